"""C5 and C7: a statement is a function of its lines, closing twice gives one, and sums are exact."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from town import NETWORK, NOON, Crawler, House, leaves, pack

from farthing.clearing import flows
from farthing.clearing.checking import key_of_record
from farthing.clearing.rules import Rules, payer_key
from farthing.clearing.statements import as_csv
from farthing.clearing.states import as_markdown
from farthing.clearing.store import FindStatement, Listing, ListStatements, StatementRecord
from farthing.errors import RemoteProtocolError
from farthing.evm.references import payout_reference, statement_reference
from farthing.ledger.merkle import leaf_hash, root_from_path, root_of
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import RUN_LINES, StatementLine
from farthing.signatures.keys import PublicKey

DAY = 86_400


def verified(house: House, record: StatementRecord) -> Any:
    """The statement, its signature checked."""
    statement, kid, signed, signature = open_statement(record.jws)
    assert kid == house.signing.public_key.thumbprint
    assert PublicKey(house.signing.public_key.raw).verifies(signature, signed)
    return statement


def test_C5_whoever_has_the_lines_gets_the_same_sums_and_root(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    lines = [crawler.commit(f"/{n}", amount=n + 1) for n in range(RUN_LINES + 300)]
    house.upload(pack([crawler.record, *lines[:700]]))
    house.upload(pack(lines[700:], sequence=2))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    statement = verified(house, record)
    found = leaves(house, record.statement)
    read = [msgspec.json.decode(each, type=StatementLine) for each in found]
    assert [each.id for each in read] == sorted(line.id for line in lines)
    assert {each.id: each.charged for each in read} == {line.id: line.amount for line in lines}
    assert root_of(map(leaf_hash, found)).hex() == statement.root
    assert statement.count == len(lines)
    assert int(statement.net) == sum(int(line.amount) for line in lines) == record.net
    assert (statement.payer, statement.adjustments, statement.rounding) == (crawler.directory, "0", "0")
    assert statement.rail.reference == statement_reference(NETWORK, record.statement)


@pytest.mark.parametrize("count", [1, 2, RUN_LINES, RUN_LINES + 1, 2 * RUN_LINES + 77])
def test_C5_each_line_has_a_proof_and_its_payers_own_signature(house: House, count: int) -> None:
    crawler = Crawler()
    house.open(crawler)
    lines = [crawler.commit(f"/{number}") for number in range(count)]
    house.upload(pack([crawler.record, *lines]))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    statement = verified(house, record)
    for line in (lines[0], lines[count // 2], lines[-1]):
        proof = house.run(flows.prove(record, line.id))
        leaf = StatementLine(**proof.line).leaf()
        path = [bytes.fromhex(each) for each in proof.path]
        root = root_from_path(leaf, index=proof.index, size=statement.count, path=path)
        assert root is not None
        assert root.hex() == statement.root == proof.root
        # What was charged is bound, not only the id.
        changed = msgspec.structs.replace(StatementLine(**proof.line), charged="1").leaf()
        assert root_from_path(changed, index=proof.index, size=statement.count, path=path) != root
        assert proof.commitment == line
        key = key_of_record(proof.key)
        assert key is not None
        assert key.verifies(base64.b64decode(line.signature), line.base.encode())
    assert house.run(flows.prove(record, "sha256:" + "0" * 64)) is None
    assert house.run(flows.prove(record, "adjustment:x")) is None


def test_C5_closing_twice_gives_one_statement(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit()]))
    assert house.run(flows.close(house.desk)) is None
    house.now += DAY
    window = house.run(flows.close(house.desk))
    before = house.ask(ListStatements())
    assert house.run(flows.close(house.desk)) is None
    house.run(flows.finish(house.desk, window))
    assert house.ask(ListStatements()) == before
    assert len(before) == 1


def test_C5_two_processes_closing_one_window_make_one_statement_a_payer(new_house: Callable[..., House]) -> None:
    crawlers = [Crawler(f"https://crawler-{n}.example", bytes([n + 1]) * 32) for n in range(4)]
    houses = [new_house(), new_house()]
    houses[0].open(*crawlers)
    lines = [crawler.commit(f"/{n}") for crawler in crawlers for n in range(200)]
    houses[0].upload(pack([*(each.record for each in crawlers), *lines]))
    for each in houses:
        each.now += DAY
    failures: list[BaseException] = []

    def close(house: House) -> None:
        try:
            house.run(flows.close(house.desk))
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=close, args=(each,)) for each in houses]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    records = houses[0].ask(ListStatements())
    assert sorted(each.payer for each in records) == sorted(payer_key(each.directory) for each in crawlers)
    assert {each.count for each in records} == {200}
    assert all(verified(houses[1], each).root for each in records)
    assert sum(houses[0].balances().values()) == 0


def test_C5_what_two_processes_make_of_one_window_is_the_same_to_the_byte(
    tmp_path: Any, new_house: Callable[..., House]
) -> None:
    made: list[str] = []
    for name in ("a", "b"):
        house, crawler = House(tmp_path / f"{name}.sqlite3"), Crawler()
        house.open(crawler)
        lines = [crawler.commit(f"/{number}") for number in range(50)]
        # In whatever order and uploads the lines come.
        house.upload(pack([crawler.record, *(lines if name == "a" else lines[::-1])]))
        house.now += DAY
        house.run(flows.close(house.desk))
        made.append(house.ask(ListStatements())[0].jws)
        house.close()
    assert made[0] == made[1]


def test_C5_a_statement_names_the_one_before(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    for sequence in (1, 2):
        house.upload(pack([crawler.record, crawler.commit(f"/{sequence}")], sequence=sequence))
        house.run(flows.close(house.desk, force=True))
    first, second = house.ask(ListStatements())
    assert verified(house, first).previous == ""
    assert verified(house, second).previous == hashlib.sha256(first.jws.encode()).hexdigest()


def test_C5_a_statement_with_one_member_altered_is_refused(house: House) -> None:
    crawler = Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit()]))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    header, payload, signature = record.jws.split(".")
    statement, _, signed, _ = open_statement(record.jws)
    changed = msgspec.structs.replace(statement, net="1").canonical()
    forged = ".".join((header, base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), signature))
    _, _, signed, given = open_statement(forged)
    assert not house.signing.public_key.verifies(given, signed)
    spaced = base64.urlsafe_b64encode(base64.urlsafe_b64decode(payload + "==") + b" ").rstrip(b"=").decode()
    for bad in ("", "a.b", f"{header}.{spaced}.{signature}", f"{payload}.{payload}.{signature}", f"{header}.!.x"):
        with pytest.raises(RemoteProtocolError):
            open_statement(bad)


def test_C7_sums_of_parts_of_a_cent_are_exact_and_the_residue_is_booked(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(Rules(network=NETWORK, statement_decimals=2)), Crawler()
    house.open(crawler)
    amounts = [3_333, 3_333, 3_333, 1, 4_999, 123_456]
    lines = [crawler.commit(f"/{number}", amount=amount) for number, amount in enumerate(amounts)]
    house.upload(pack([crawler.record, *lines]))
    house.run(flows.close(house.desk, force=True))
    (record,) = house.ask(ListStatements())
    statement = verified(house, record)
    assert (statement.gross, statement.net, statement.rounding) == ("138455", "140000", "1545")
    assert house.total("receivable") == -140_000 == -house.payer(crawler).owed
    assert house.total("accrued") == 138_455
    assert house.total("rounding") == 1_545


def test_C7_a_statement_rounded_down_is_the_houses_loss(new_house: Callable[..., House]) -> None:
    house, crawler = new_house(Rules(network=NETWORK, statement_decimals=2)), Crawler()
    house.open(crawler)
    house.upload(pack([crawler.record, crawler.commit(amount=14_999)]))
    house.run(flows.close(house.desk, force=True))
    assert house.total("receivable") == -10_000
    assert house.total("rounding") == -4_999
    # Less than half a cent rounds to nothing: there is nothing to pay, and the payee is not the one who loses.
    house.upload(pack([crawler.commit(amount=4_000)], sequence=2))
    house.run(flows.close(house.desk, force=True))
    second = house.ask(ListStatements())[1]
    assert (second.net, second.state) == (0, "settled")
    assert house.total("cleared") == 4_000


def test_a_window_without_lines_has_no_statement_and_the_next_opens(house: House) -> None:
    house.open(Crawler())
    house.run(flows.close(house.desk, force=True))
    assert house.ask(ListStatements()) == ()
    windows = house.ask(Listing("windows"))
    assert [(each["number"], each["state"]) for each in windows] == [(1, "issued"), (2, "open")]


def test_windows_end_at_multiples_of_their_length(house: House) -> None:
    house.open(Crawler())
    (window,) = house.ask(Listing("windows"))
    assert window["closes_at"] == NOON - NOON % DAY + DAY


def test_lines_as_csv_run_no_formula(house: House) -> None:
    line = StatementLine("sha256:00", "=cmd()", 'https://a.example/"x",y', "10", "-5", "USD", "1", "")
    text = b"".join(as_csv([line.leaf()], header=True)).decode()
    head, body = text.splitlines()
    assert head == "id,payee,resource,committed,charged,currency,time,adjustment"
    assert body == 'sha256:00,\'=cmd(),"https://a.example/""x"",y",10,-5,USD,1,'


def test_references_are_one_things_alone() -> None:
    made = {
        statement_reference("clearing:a", "st-1"),
        statement_reference("clearing:b", "st-1"),
        statement_reference("clearing:a", "st-2"),
        payout_reference("clearing:a", "st-1"),
    }
    assert len(made) == 4
    assert all(len(each) == 66 for each in made)


def test_a_statement_is_found_by_its_name_alone(house: House) -> None:
    assert house.ask(FindStatement("st-000001-0000000000000000")) is None


def test_the_page_shows_the_tables_of_states() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clearing.md").read_text("utf-8")
    assert as_markdown() in page
