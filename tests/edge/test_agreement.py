"""What an edge serves for, the clearing house bills: of one signature, both must read the same (C2).

A payer chooses how it writes its request. Whatever an edge takes and the clearing house then refuses is a page for
nothing; whatever the clearing house can't read at all stops an edge's uploads.
"""

from __future__ import annotations

import base64
import gzip
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from farthing.clearing.intake import IntakeLine, bind, read_upload
from farthing.flow import drive
from farthing.mechanisms.batch_credit import (
    KeptCommitment,
    KeptReceipt,
    SignedCommitment,
    judge_line,
    keep,
    pack_kept,
    settlement_of,
    sign_receipt,
    verify_commitment,
    written_out,
)
from farthing.mechanisms.batch_credit.seller import BatchCreditSeller
from farthing.mechanisms.interface import Refusal
from farthing.protocol.clearing import (
    COMMITTED_AFTER_MAX_SECONDS,
    DIRECTORY_MAX_CHARS,
    UPLOAD_MAX_BYTES,
    Commitment,
    KeyRecord,
    PublicJwk,
    Signed,
    fits_upload,
)
from farthing.protocol.codec import encode_json, pack_header
from farthing.protocol.messages import URL_MAX_CHARS, PaymentRequirements
from farthing.protocol.versions import CURRENT
from farthing.seller.answers import Answer
from farthing.seller.credit import CreditTicket, GiveBack, Taken, conclude_commitment
from farthing.seller.repeats import Bound
from farthing.servers.credit import commitment_in
from farthing.signatures import HttpRequest, SigningKey, gather_fields
from farthing.signatures.messages import component
from farthing.signatures.signing import signature_base, signature_lines
from farthing.world.edge_store import EdgeStore, LoggedLine
from farthing.world.edge_uploads import Uploader

if TYPE_CHECKING:
    from edge_town import Town

NETWORK = "clearing:demo"
KEY = SigningKey(b"\x07" * 32)
SELLER = SigningKey(b"\x08" * 32)
AGENT = '"https://crawler.example"'
NOW = 1_767_614_400
OFFER = BatchCreditSeller().complete(
    PaymentRequirements("batch-settlement", NETWORK, "1000", "USD", "news", 60, {"version": "1.0.0"})
)
COVERED = ("@method", "@authority", "@path", "@query", "signature-agent", "payment-signature")
KEYED = ("payment-signature", '"signature-agent";key="my"', "@query", "@path", "@authority", "@method")


def signed(
    *, extra: str = '{"version":"1.0.0","decimals":6}', more: str = "", path: str = "/a", agent: str = AGENT,
    nonce: bytes = b"n" * 64, query: str = "", label: str = "sig",
    components: tuple[str, ...] = COVERED, **changes: str,
) -> HttpRequest:  # fmt: skip
    """Sign a request as a payer may write it."""
    accepted = msgspec.to_builtins(OFFER) | {"extra": msgspec.Raw(extra.encode())}
    payment = {"x402Version": 2, "accepted": accepted, "payload": {"amount": "1000", "asset": "USD"}}
    header = base64.b64encode(msgspec.json.encode(payment) + changes.get("padding", "").encode()).decode()
    covered = " ".join(component(each).identifier for each in components)
    said = f';created={NOW};expires={NOW + 60};keyid="{KEY.public_key.thumbprint}"'
    text = f'({covered}){said};nonce="{base64.b64encode(nonce).decode()}";tag="web-bot-auth"{more}'
    bare = HttpRequest(
        "GET", "news.example", path, query, gather_fields([("signature-agent", agent), ("payment-signature", header)])
    )
    signature = KEY.sign(signature_base(bare, [component(each) for each in components], text))
    lines = [("signature-agent", agent), ("payment-signature", header), *signature_lines(label, text, signature)]
    return msgspec.structs.replace(bare, fields=gather_fields(lines))


def judge(request: HttpRequest) -> SignedCommitment | Refusal:
    found = verify_commitment(request, offer=OFFER, keys=lambda *_: KEY.public_key, now_seconds=NOW + 5)
    assert isinstance(found, SignedCommitment | Refusal)
    return found


def receipt_of(found: SignedCommitment, request: HttpRequest) -> Signed:
    said = pack_header(settlement_of(found, now_seconds=NOW))
    return sign_receipt(found, request, status=200, payment_response=said, signer=SELLER, now_seconds=NOW)[1]


def kept(found: SignedCommitment, request: HttpRequest) -> KeptCommitment:
    """What the log keeps of an answered commitment."""
    signature = base64.b64decode(receipt_of(found, request).signature)
    return keep(found, KeptReceipt(200, None, SELLER.public_key.thumbprint, signature), committed=NOW, lease="")


@pytest.mark.parametrize(
    ("request_", "is_taken"),
    [
        (signed(), True),
        (signed(agent="crawler.example"), True),
        (signed(agent='"https://CRAWLER.example:443/"'), True),
        (signed(agent='sig="https://crawler.example", x="https://a.example";type=other'), True),
        (signed(agent='my="https://crawler.example"', label="my"), True),
        (signed(agent='my="https://crawler.example"', label="my", components=KEYED), True),
        (signed(components=COVERED[::-1]), True),
        (signed(query="?x=1?"), True),
        (signed(query="??"), True),
        (signed(more=';alg="ed25519"'), True),
        (signed(path="/a%2fb/" + "x" * 7_000), True),
        (signed(extra='{"version":"1.0.0","decimals":6.0}'), False),
        (signed(extra='{"version":"1.0.0","decimals":6e0}'), False),
        (signed(more=r';other="\";created=5"'), False),
        (signed(more=";other"), False),
        (signed(path="/" + "x" * URL_MAX_CHARS), False),
    ],
)
def test_C2_of_one_signature_edge_and_clearing_house_read_the_same(request_: HttpRequest, is_taken: Any) -> None:
    found = judge(request_)
    assert isinstance(found, SignedCommitment) == is_taken, found
    if isinstance(found, SignedCommitment):
        taken = bind(found.line(committed=NOW + 6), 1, NETWORK)
        assert isinstance(taken, IntakeLine), taken
        # And whoever has the line can prove it.
        assert judge_line(found.line(committed=NOW + 6), KEY.public_key, network=NETWORK) is None
        assert written_out(kept(found, request_)) == found.line(committed=NOW, receipt=receipt_of(found, request_))


def test_C2_no_promise_that_an_edge_takes_is_a_line_that_can_not_be_read() -> None:
    """The longest that a payer may make each part, with the receipt over it."""
    request = signed(path="/" + '"' * (URL_MAX_CHARS - 25), padding=" " * 11_500)
    found = judge(request)
    assert isinstance(found, SignedCommitment), found
    _, receipt = sign_receipt(found, request, status=200, payment_response="x" * 2_000, signer=SELLER, now_seconds=NOW)
    assert fits_upload(found.line(committed=NOW + 6, receipt=receipt))


def test_C2_work_that_takes_long_is_billed_and_work_without_end_is_let_go() -> None:
    request = signed()
    found = judge(request)
    assert isinstance(found, SignedCommitment)
    ticket = CreditTicket(found, Taken("le-1"), request, OFFER, shared_cache=False)

    def concluded(now_seconds: int) -> tuple[Any, list[Any]]:
        asked: list[Any] = []

        def perform(effect: Any) -> Any:
            asked.append(effect)
            return now_seconds if type(effect).__name__ == "Now" else True

        concluding = conclude_commitment(ticket, status=200, body=b"", signer=SELLER, head=lambda said: said.headers)
        return drive(concluding, perform), asked

    last = NOW + 60 + COMMITTED_AFTER_MAX_SECONDS
    _, asked = concluded(last)
    assert isinstance(bind(written_out(asked[-1].line), 1, NETWORK), IntakeLine)
    answer, asked = concluded(last + 1)
    assert isinstance(answer, Answer)
    assert answer.status == 504
    assert isinstance(asked[-1], GiveBack)


def test_C5_a_payment_with_more_than_space_around_it_is_no_promise() -> None:
    """It would be signed as it is, and the line's readers find no payment in it."""
    header = signed().fields["payment-signature"][0]

    def taken(value: str) -> bool:
        return commitment_in(cast("Any", SimpleNamespace(wire=CURRENT, payments=(value,)))) is not None

    assert [taken(each) for each in (f" {header}\t", f"{header}\x1c", f"\x0b{header}")] == [True, False, False]


# The log and its uploads


def logged(store: EdgeStore, line: Commitment, key: str = "") -> None:
    store.log(
        LoggedLine(line.payer, line.id, "n", line.expires, "", 1_000, key or line.key, encode_json(line))
    ).result()


def uploader(store: EdgeStore) -> Any:
    return Uploader(None, store, lease_seconds=60, upload_every_seconds=1, now_seconds=lambda: NOW)  # type: ignore[arg-type]


def test_C2_no_payer_can_make_an_upload_that_is_larger_than_what_is_taken(tmp_path: Path) -> None:
    """What doesn't compress, thousands of times: bytes of a payment are the payer's choice."""
    store = EdgeStore(tmp_path / "edge.sqlite", "shop")
    found = judge(signed())
    assert isinstance(found, SignedCommitment)
    line = found.line(committed=NOW)
    for number in range(700):
        noise = base64.b64encode(os.urandom(18_000)).decode()
        logged(store, msgspec.structs.replace(line, id=f"sha256:{number:064x}", base=noise))
    up = uploader(store)
    made = up._build()
    assert made is not None
    assert len(made.body) < UPLOAD_MAX_BYTES
    assert len(read_upload(made.body, NETWORK).raw) > 400
    store.add_upload(made).result()
    rest = up._build()
    assert rest is not None
    assert rest.last_seq == 700
    store.close()


def test_C2_an_answer_that_goes_out_for_long_is_noted_after_its_line_is_gone(tmp_path: Path) -> None:
    """Else who reads slowly has every page back as not delivered."""
    store = EdgeStore(tmp_path / "edge.sqlite", "shop")
    found = judge(signed())
    assert isinstance(found, SignedCommitment)
    line = found.line(committed=NOW)
    logged(store, line)
    up = uploader(store)
    made = up._build()
    store.add_upload(made).result()
    store.acknowledge(made, b"{}").result()
    store.prune(line.expires + 1_000).result()
    assert store.recent(0) == []
    store.note_sent(line.payer, line.id, line.expires)
    store.prune(line.expires + 1_000).result()  # behind the note, which nobody waits for
    later = up._build()
    assert later is not None
    assert [(each.payer, each.id) for each in read_upload(later.body, NETWORK).sent] == [(line.payer, line.id)]
    store.close()


def test_C2_a_repeat_by_another_process_is_told_with_its_line_and_makes_no_empty_uploads(tmp_path: Path) -> None:
    """The house takes no note before its line; and an upload of nothing would be followed by the next one at once."""
    first, second = (EdgeStore(tmp_path / "edge.sqlite", label) for label in ("shop", "shop.2"))
    found = judge(signed())
    assert isinstance(found, SignedCommitment)
    line = found.line(committed=NOW)
    bound = Bound("scope", line.payer, line.id, "print", "said", line.expires)
    row = LoggedLine(line.payer, line.id, "n", line.expires, "", 1_000, line.key, encode_json(line))
    assert first.log_bound(row, bound, NOW).result() == "committed"
    second.note_repeated("scope")
    second.prune(0).result()  # behind the note, which nobody waits for
    assert uploader(second)._build() is None
    made = uploader(first)._build()
    assert made is not None
    told = [msgspec.json.decode(each, type=Commitment) for each in gzip.decompress(made.body).splitlines()[1:]]
    assert told == [msgspec.structs.replace(line, sent=True)]
    first.close()
    second.close()


def test_C2_a_note_that_is_read_before_its_line_makes_no_upload(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path / "edge.sqlite", "shop")
    found = judge(signed())
    assert isinstance(found, SignedCommitment)
    line = found.line(committed=NOW)
    logged(store, line)
    store.note_sent(line.payer, line.id, line.expires)
    store.prune(0).result()  # behind the note, which nobody waits for
    _, notes, last_seq, last_note = store.waiting(10)
    up = uploader(store)
    # The line became durable between the two reads.
    up._store = SimpleNamespace(waiting=lambda _limit: ([], notes, last_seq, last_note), edge="shop", next_sequence=int)
    assert up._build() is None
    store.close()


def test_C2_an_answer_that_went_out_is_told_in_its_line(tmp_path: Path) -> None:
    """Of what is kept now, and of what an older version logged: the line as it was uploaded then."""
    store = EdgeStore(tmp_path / "edge.sqlite", "shop")
    wanted: list[Commitment] = []
    for number, older in enumerate((True, False)):
        request = signed(path=f"/{number}")
        found = judge(request)
        assert isinstance(found, SignedCommitment)
        line = found.line(committed=NOW, receipt=receipt_of(found, request))
        data = encode_json(line) if older else pack_kept(kept(found, request))
        store.log(LoggedLine(line.payer, line.id, str(number), line.expires, "", 1_000, line.key, data)).result()
        store.note_sent(line.payer, line.id, line.expires)
        wanted.append(msgspec.structs.replace(line, sent=True))
    store.prune(0).result()  # behind the notes, which nobody waits for
    made = uploader(store)._build()
    assert made is not None
    told = [msgspec.json.decode(each, type=Commitment) for each in gzip.decompress(made.body).splitlines()[1:]]
    assert told == wanted
    store.close()


def test_C2_a_record_of_a_key_that_no_upload_can_hold_is_known_before() -> None:
    jwk = PublicJwk("OKP", "Ed25519", KEY.public_key.jwk().x)
    record = KeyRecord(KEY.public_key.thumbprint, jwk, "https://crawler.example", NOW, "x" * DIRECTORY_MAX_CHARS)
    assert fits_upload(record)
    assert not fits_upload(msgspec.structs.replace(record, answer='"' * DIRECTORY_MAX_CHARS))
    assert not fits_upload(msgspec.structs.replace(record, answer="x" * (DIRECTORY_MAX_CHARS + 1)))


def test_C2_a_second_key_of_one_directory_is_archived_before_it_is_served_for(town: Town) -> None:
    """The clearing house bills nothing by a key that it has no record of."""
    from edge_town import Crawler  # noqa: PLC0415 - beside this file

    town.buy("/page/1")
    second = Crawler(seed=b"\x0b")
    # The directory lists both, and was read for the first.
    town.directory.cached[second.origin, second.agent.key_id] = second.key.public_key
    town.directory.published[second.origin, second.agent.key_id] = second.key.public_key
    answer, _, commitment_id = town.buy("/page/2", crawler=second)
    assert answer.status == 200
    town.house.wait(lambda: commitment_id in town.house.lines)
    assert town.house.lines[commitment_id]["key"] in town.house.keys


def test_C2_a_directory_that_is_too_large_for_the_archive_opens_nothing(town: Town, monkeypatch: Any) -> None:
    archived = town.directory.archived

    def large(origin: str, key_id: str) -> Any:
        found = archived(origin, key_id)
        return None if found is None else msgspec.structs.replace(found, answer=b'"' * DIRECTORY_MAX_CHARS)

    monkeypatch.setattr(town.directory, "archived", large)
    answer, _, _ = town.buy("/page/1")
    assert answer.status == 402
    assert town.ran == []
