"""`farthing payments`: what the journal of the paying commands knows."""

from __future__ import annotations

import collections
import contextlib
import json
import re
from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from farthing.cli.home import is_there, journal_path
from farthing.cli.terminal import plain
from farthing.cli.tokens import known_networks
from farthing.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from farthing.buyer.journal import Purchase
    from farthing.networks import Networks
    from farthing.world.journal import Journal

# What a list shows that does not say how much: a screenful.
LIMIT_DEFAULT: Final = 40
# Of a payment id: 48 bits, enough that two of one journal don't begin alike.
_SHORT_ID_CHARS: Final = 16
_PREFIX_MIN_CHARS: Final = 8

_MEANING: Final = {
    "reserved": "Its place in the budget is taken; nothing is signed.",
    "sent": "The payment is on record and may have left; its purchase is under way, or was cut.",
    "settled": "The seller named the transaction that moved the money.",
    "refused": "The seller refused it. It keeps its place in the budget until evidence is given.",
    "unknown": "Nobody has said whether it settled. It keeps its place in the budget.",
    "released": "Nothing was signed or sent; its place in the budget is given back.",
    "closed": "It can't settle any more; its place in the budget is given back.",
}
_WHAT_TO_DO: Final = (
    "Run the same command again: it presents the same payment, never a second one. Or find out what became of it: "
    "`farthing payments reconcile --rpc URL` asks the chain. What you know otherwise is told by `farthing payments "
    "mark {id} --settled TRANSACTION` or, where the window is over, `--unspent EVIDENCE`."
)

payments = typer.Typer(
    name="payments",
    rich_markup_mode=None,
    invoke_without_command=True,
)

JournalFile = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE|URL",
        envvar="FARTHING_JOURNAL",
        help="Read this journal.",
        show_default="in FARTHING_HOME",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")]
PaymentId = Annotated[
    str, typer.Argument(metavar="ID", help="The payment's id, the beginning of it, or the transaction.")
]


@payments.callback()
def list_payments(
    context: typer.Context,
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only these: settled, unknown, refused … By default all that was signed."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Only what this host was paid.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, metavar="N", help="Show the newest N; 0 shows all.")
    ] = LIMIT_DEFAULT,
    as_json: AsJson = False,
    journal: JournalFile = None,
) -> None:
    """List the payments, the newest last, and what they come to.

    \b
    Examples:
      farthing payments
      farthing payments --state unknown         what nobody has answered for
      farthing payments --json -n 0 | jq -s 'map(select(.state == "settled")) | length'
      farthing payments show pay_241761d399bf2a
    """  # noqa: D301 - click's mark for lines that are not to be joined
    context.obj = journal
    if context.invoked_subcommand is not None:
        return
    wanted = set(state or ())
    if unknown := wanted - set(_MEANING):
        raise ConfigError(f"--state {unknown.pop()}: there are {', '.join(_MEANING)}.")
    table = known_networks()
    newest: collections.deque[Purchase] = collections.deque(maxlen=limit or None)
    totals = _Totals(table)
    with _opened(journal) as opened:
        for each in opened.all_purchases() if opened else ():
            if (each.state in wanted if wanted else each.payment_id) and (not host or each.host == host.lower()):
                newest.append(each)
                totals.add(each)
    for each in newest:
        print(json.dumps(_facts(each, table)) if as_json else plain(_line(each, table)))
    if not as_json:
        totals.show(shown=len(newest))


@payments.command("show")
def show(
    context: typer.Context, payment_id: PaymentId, *, as_json: AsJson = False, journal: JournalFile = None
) -> None:
    """Show all that is known of one payment.

    \b
    Examples:
      farthing payments show pay_241761d399bf2a
      farthing payments show 0x6e481963… --json
    """  # noqa: D301
    table = known_networks()
    with _opened(journal or context.obj) as opened:
        found = find_purchase(opened, payment_id)
    facts = _facts(found, table)
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in {"", None}:
            print(plain(f"{name:<14}{value}"))
    print(f"\n{_MEANING[found.state]}")
    if found.state in {"unknown", "sent", "refused"}:
        print(_WHAT_TO_DO.format(id=found.payment_id[: 2 * _SHORT_ID_CHARS]))


@payments.command("mark")
def mark(
    context: typer.Context,
    payment_id: PaymentId,
    *,
    settled: Annotated[str, typer.Option("--settled", metavar="TRANSACTION", help="This transaction settled it.")] = "",
    unspent: Annotated[
        str, typer.Option("--unspent", metavar="EVIDENCE", help="It can't settle any more, and how you know.")
    ] = "",
    journal: JournalFile = None,
) -> None:
    """Tell the journal what you found out about a payment that nobody answered for.

    \b
    Examples:
      farthing payments mark pay_241761d399bf2a --settled 0x6e481963…
      farthing payments mark pay_241761d399bf2a --unspent 'nonce unused in block 123456, which is final'
    """  # noqa: D301
    if bool(settled) == bool(unspent):
        raise ConfigError("Say one of --settled TRANSACTION and --unspent EVIDENCE.")
    with _opened(journal or context.obj) as opened:
        found = find_purchase(opened, payment_id)
        if opened is None:
            return
        if settled:
            marked = opened.mark_settled(found.payment_id, transaction=settled)
        else:
            marked = opened.mark_unspent(found.payment_id, evidence=unspent)
    print(f"{marked.payment_id} is {marked.state}.")


@payments.command("approve")
def approve(
    context: typer.Context,
    approval_id: Annotated[str, typer.Argument(metavar="ID", help="The id that the refusal named.")],
    *,
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=1440, metavar="N", help="For so long.")] = 5,
    journal: JournalFile = None,
) -> None:
    """Agree ahead to one offer that a buyer may not pay unasked: once, and to the letter.

    \b
    Examples:
      farthing payments approve 3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    """  # noqa: D301
    _check_approval(approval_id)
    with _writable(journal or context.obj) as opened:
        opened.approve(approval_id.lower(), seconds=60 * minutes)
    print(f"Agreed to for {minutes} minutes, once: send the request again.")


@payments.command("stop")
def stop(
    context: typer.Context,
    reason: Annotated[str, typer.Argument(metavar="[REASON]", help="What is told to whoever would pay.")] = "by hand",
    *,
    journal: JournalFile = None,
) -> None:
    """Stop all payments of this journal, in every process: nothing is signed, and nothing leaves.

    \b
    Examples:
      farthing payments stop 'the agent runs wild'
      farthing payments resume
    """  # noqa: D301
    with _writable(journal or context.obj) as opened:
        opened.stop(reason)
    print("Stopped. What has left can still settle. To go on: farthing payments resume")


@payments.command("resume")
def resume(context: typer.Context, *, journal: JournalFile = None) -> None:
    """Let payments go on that `farthing payments stop` has stopped.

    \b
    Examples:
      farthing payments resume
    """  # noqa: D301
    with _writable(journal or context.obj) as opened:
        opened.resume()
        still = opened.stopped()
    print(f"Still stopped: {still}." if still else "Payments may go on.")


class _Totals:
    """What the listed payments come to, by asset."""

    _KINDS: Final = {"settled": "settled", "unknown": "unknown", "sent": "unknown", "refused": "refused"}

    def __init__(self, table: Networks) -> None:
        self._table = table
        self._sums: dict[tuple[str, str, str], list[int]] = {}
        self._count = 0

    def add(self, purchase: Purchase) -> None:
        self._count += 1
        kind = self._KINDS.get(purchase.state)
        if kind is not None:
            entry = self._sums.setdefault((purchase.network, purchase.asset, kind), [0, 0])
            entry[0] += purchase.amount
            entry[1] += 1

    def show(self, *, shown: int) -> None:
        if not self._count:
            print("No payments.")
            return
        more = f" ({self._count - shown} older ones are not shown: -n 0)" if shown < self._count else ""
        print(f"\n{self._count} in all{more}")
        for (network, asset, kind), (amount, count) in sorted(self._sums.items()):
            price, symbol = price_of(self._table, network, asset, amount)
            print(f"  {kind:<9}{price:>14} {symbol} on {network} in {count}")


@contextlib.contextmanager
def _opened(path: str | None) -> Generator[Journal | None]:
    from farthing.world.journal import Journal  # noqa: PLC0415 - heavy parts only when run

    where = path or journal_path()
    if not is_there(where):
        if path is not None:
            raise StoreError(f"There is no journal at {where}.")
        yield None
        return
    journal = Journal(where)
    try:
        yield journal
    finally:
        journal.close()


@contextlib.contextmanager
def _writable(path: str | None) -> Generator[Journal]:
    from farthing.world.journal import Journal  # noqa: PLC0415 - heavy parts only when run

    journal = Journal(path or journal_path())
    try:
        yield journal
    finally:
        journal.close()


def _check_approval(text: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ConfigError(f"{text[:80]!a} is no approval's id: 64 hexadecimal digits, as the refusal named them.")


def find_purchase(journal: Journal | None, text: str) -> Purchase:
    """Find a payment by its id, the beginning of it, its transaction or its purchase id. Raises `StoreError`."""
    found = journal.find(text) if journal else None
    if found is not None:
        return found
    bare = text.removeprefix("pay_")
    alike = [
        each
        for each in (journal.all_purchases() if journal else ())
        if text in {each.purchase_id, each.transaction}
        or (len(bare) >= _PREFIX_MIN_CHARS and each.payment_id.startswith(f"pay_{bare}"))
    ]
    if len(alike) != 1:
        raise StoreError(f"The journal has {len(alike) or 'no'} payments that are called {text[:80]!a}.")
    return alike[0]


def _facts(purchase: Purchase, table: Networks) -> dict[str, Any]:
    price, symbol = price_of(table, purchase.network, purchase.asset, purchase.amount)
    network = table.find(purchase.network)
    return {
        "payment_id": purchase.payment_id,
        "state": purchase.state,
        "delivered": purchase.delivered,
        "price": price,
        "symbol": symbol,
        "amount": str(purchase.amount),
        "asset": purchase.asset,
        "network": purchase.network,
        "network_name": network.name if network else "",
        "scheme": purchase.scheme,
        "method": purchase.method,
        "url": purchase.url,
        "pay_to": purchase.pay_to,
        "payer": purchase.payer,
        "transaction": purchase.transaction,
        "reason": purchase.reason,
        "evidence": purchase.evidence,
        "created": _time(purchase.created_at),
        "valid_before": _time(purchase.valid_before) if purchase.valid_before else "",
        "purchase_id": purchase.purchase_id,
    }


def _line(purchase: Purchase, table: Networks) -> str:
    price, symbol = price_of(table, purchase.network, purchase.asset, purchase.amount)
    short = purchase.payment_id[:_SHORT_ID_CHARS] or "-"
    return (
        f"{_time(purchase.created_at)}  {purchase.state:<8}  {price:>10} {symbol:<6}  {short:<{_SHORT_ID_CHARS}}  "
        f"{purchase.method} {purchase.url}"
    )


def price_of(table: Networks, network: str, asset: str, amount: int) -> tuple[str, str]:
    """The amount in units of the token and its symbol; atomic units where the token isn't known here."""
    from farthing.money import show_atomic  # noqa: PLC0415 - heavy parts only when run

    token = table.token(network, asset)
    return (show_atomic(amount, token.decimals), token.symbol) if token else (str(amount), f"atomic of {asset[:10]}…")


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
