"""`farthing payments reconcile`: what became of each payment that nobody answered for, and what a seller owes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from farthing.cli.home import farthing_home, is_there, journal_path
from farthing.cli.terminal import plain
from farthing.cli.tokens import known_networks
from farthing.errors import ConfigError, NodeError, StoreError

if TYPE_CHECKING:
    from farthing.buyer.reconcile import Finding
    from farthing.networks import Networks
    from farthing.seller.refunds import RefundRecord

EXIT_FOUND_OUT: Final = 0
EXIT_OWING: Final = 1
# As for a purchase: nobody knows yet.
EXIT_COULD_NOT: Final = 5
# Of what a seller owes, in one list.
OWED_MAX: Final = 1000

_WORDS: Final = {"settled": "settled", "not_settled": "not settled", "could_not": "could not find out"}

KeepIn = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="FOLDER",
        file_okay=False,
        help="Keep what sellers then send here.",
        show_default="answers in FARTHING_HOME",
    ),
]
JournalFile = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE|URL",
        envvar="FARTHING_JOURNAL",
        help="Reconcile this journal.",
        show_default="in FARTHING_HOME",
    ),
]


def reconcile(
    context: typer.Context,
    *,
    rpc: Annotated[
        list[str] | None,
        typer.Option("--rpc", metavar="URL", help="Ask this node (repeatable: no two may disagree)."),
    ] = None,
    facilitator: Annotated[str, typer.Option("--facilitator", metavar="URL", help="Ask this facilitator.")] = "",
    present: Annotated[
        bool, typer.Option("--present", help="Ask the sellers too, by presenting each payment once more.")
    ] = False,
    keep: KeepIn = None,
    refund_due: Annotated[
        bool, typer.Option("--refund-due", help="List what a seller owes its buyers instead (with --store).")
    ] = False,
    store: Annotated[str, typer.Option("--store", metavar="STORE", help="The seller's store, with --refund-due.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
    journal: JournalFile = None,
) -> None:
    """Find out what became of every payment that nobody answered for, with evidence: never guessed.

    What is settled, or can't be any more, stands in the journal then; what could not be found out keeps its place in
    the budget. Exit codes: 0 all found out, 5 some could not be; with --refund-due 0 nothing is owed, 1 something is.

    \b
    Examples:
      farthing payments reconcile --rpc https://mainnet.base.org
      farthing payments reconcile --rpc URL --rpc URL --facilitator https://facilitator.example --json
      farthing payments reconcile --present --keep answers
      farthing payments reconcile --refund-due --store seller.sqlite
    """  # noqa: D301 - click's mark for lines that are not to be joined
    table = known_networks()
    if refund_due or store:
        if not (refund_due and store):
            raise ConfigError("What a seller owes is listed by --refund-due together with --store.")
        raise typer.Exit(_list_owed(store, table, as_json=as_json))
    if not (rpc or facilitator or present):
        raise ConfigError(
            "There is nobody to ask: --rpc URL asks a chain, --facilitator URL, or --present the sellers."
        )
    where = journal or context.obj or journal_path()
    if not is_there(where):
        if journal is not None:
            raise StoreError(f"There is no journal at {where}.")
        print("No payments.")
        return
    from farthing.clients.reconcile import Reconciliation  # noqa: PLC0415 - heavy parts only when run
    from farthing.world.journal import Journal  # noqa: PLC0415

    opened = Journal(where)
    try:
        nodes = nodes_of(rpc or ())
        asking = Reconciliation(opened, nodes=nodes, facilitator=facilitator or None, present=present)
        counts = _tell(asking.blocking(), table, keep or farthing_home() / "answers", as_json=as_json)
    finally:
        opened.close()
    raise typer.Exit(EXIT_COULD_NOT if counts["could_not"] else EXIT_FOUND_OUT)


def _tell(findings: Iterable[Finding], table: Networks, kept: Path, *, as_json: bool) -> dict[str, int]:
    counts = dict.fromkeys(_WORDS, 0)
    for finding in findings:
        counts[finding.verdict] += 1
        file = _keep(finding, kept) if finding.body else ""
        _show(finding, table, file, as_json=as_json)
    if not as_json:
        print(f"{'' if sum(counts.values()) else 'Nothing is open: '}{_sum(counts)}")
    return counts


def nodes_of(urls: list[str] | tuple[str, ...]) -> dict[str, list[str]]:
    """Ask each node which chain it serves, and give their URLs by network. Raises `ConfigError` and `NodeError`."""
    from farthing.evm.hexadecimal import read_quantity  # noqa: PLC0415 - heavy parts only when run
    from farthing.world.jsonrpc import Node  # noqa: PLC0415
    from farthing.world.loop import run_blocking  # noqa: PLC0415
    from farthing.world.urls import origin_of  # noqa: PLC0415

    found: dict[str, list[str]] = {}
    for url in urls:
        node = Node("that chain", [url])

        async def ask(node: Any = node) -> Any:
            try:
                return await node.request("eth_chainId")
            finally:
                await node.aclose()

        try:
            network = f"eip155:{read_quantity(run_blocking(ask()))}"
        except NodeError as error:
            raise ConfigError(f"The node at {origin_of(url)} does not say which chain it serves: {error}") from None
        found.setdefault(network, []).append(url)
    return found


def _show(finding: Finding, table: Networks, file: str, *, as_json: bool) -> None:
    from farthing.cli.payments import price_of  # noqa: PLC0415 - the two modules know each other

    purchase = finding.purchase
    price, symbol = price_of(table, purchase.network, purchase.asset, purchase.amount)
    if as_json:
        evidence = [msgspec.to_builtins(each) for each in finding.evidence]
        said = {
            "payment_id": purchase.payment_id,
            "verdict": finding.verdict,
            "state": finding.state,
            "transaction": finding.transaction,
            "price": price,
            "symbol": symbol,
            "network": purchase.network,
            "method": purchase.method,
            "url": purchase.url,
            "evidence": evidence,
            "file": file,
        }
        print(json.dumps(said), flush=True)
        return
    print(
        plain(f"{purchase.payment_id}  {_WORDS[finding.verdict]}  {price} {symbol}  {purchase.method} {purchase.url}")
    )
    for each in finding.evidence:
        where = f" Transaction {each.transaction}" if each.transaction else ""
        where += f", block {each.block_number}" if where and each.block_number is not None else ""
        where += f", log {each.log_index}" if where and each.log_index is not None else ""
        print(plain(f"  {each.who}: {each.says}{where + '.' if where else ''}"))
    if file:
        print(plain(f"  its answer: {file}"))


def _keep(finding: Finding, folder: Path) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / finding.purchase.payment_id
    path.write_bytes(finding.body)
    return str(path)


def _sum(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {_WORDS[verdict]}" for verdict, count in counts.items()) + "."


def _refund_of(record: RefundRecord) -> dict[str, Any]:
    return {"signer": record.signer, "signed": bool(record.payment), "note": record.note}


def _list_owed(store: str, table: Networks, *, as_json: bool) -> int:
    from farthing.cli.payments import price_of  # noqa: PLC0415 - the two modules know each other
    from farthing.seller.conclude import ANSWER_CUT  # noqa: PLC0415 - heavy parts only when run
    from farthing.seller.states import State  # noqa: PLC0415
    from farthing.world.seller_store import SellerStore  # noqa: PLC0415

    if not is_there(store):
        raise StoreError(f"There is no store at {store}.")
    opened = SellerStore(store)
    try:
        owed = opened.payments(State.REFUND_DUE, limit=OWED_MAX)
        records = opened.refunds.under_way(limit=OWED_MAX)
    finally:
        opened.close()
    for each in owed:
        price, symbol = price_of(table, each.network, each.asset, each.amount)
        record = records.get(each.payment_id)
        refund = {} if record is None else _refund_of(record)
        if as_json:
            more = {"price": price, "symbol": symbol, "amount": str(each.amount), "refund": refund or None}
            print(json.dumps(msgspec.to_builtins(each) | more))
        else:
            print(plain(f"{each.payment_id}  {price} {symbol} to {each.payer}  {each.resource}  {each.transaction}"))
            if each.reason == ANSWER_CUT:
                print("  its answer was cut after a part of it had left: pay it back by hand, or don't.")
            if refund:
                what = "is under way" if refund["signed"] else "waits until the payment is final"
                print(plain(f"  its refund by {refund['signer']} {what}. {refund['note']}".rstrip()))
    if not as_json:
        print(f"{len(owed)} refunds are due." if owed else "Nothing is owed.")
    return EXIT_OWING if owed else EXIT_FOUND_OUT
