"""`farthing explain`: why a payment was or would be refused: which field, what was signed and what was expected."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from farthing.cli.home import is_there, journal_path
from farthing.cli.terminal import plain
from farthing.cli.tokens import known_networks
from farthing.errors import ConfigError, FarthingError, StoreError

if TYPE_CHECKING:
    from farthing.buyer.journal import Purchase
    from farthing.mechanisms.exact_evm.explaining import Point
    from farthing.networks import Networks
    from farthing.protocol.messages import PaymentPayload, PaymentRequirements

EXIT_NOTHING_WRONG: Final = 0
EXIT_USAGE: Final = 2
# As for a purchase: it would be refused; nobody could say.
EXIT_REFUSED: Final = 4
EXIT_OUTAGE: Final = 6
# A dump of a whole exchange holds a few headers of 16 kB each.
INPUT_MAX_BYTES: Final = 262_144
# Longer than any file's name; a header's value is longer still.
_PATH_MAX_CHARS: Final = 255

_PAYMENT_ID = re.compile(r"pay_[0-9a-f]{8,64}\Z")
_MARKS: Final = {"ok": " ", "wrong": "✗", "unknown": "?"}


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What is explained: the payment, the offer it is held to, and what the journal knows of it."""

    payment: PaymentPayload
    offer: PaymentRequirements
    purchase: Purchase | None = None


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="HEADER|FILE|PAYMENT-ID",
            help="A payment's header, a file with one (- is stdin), or a payment's id.",
        ),
    ],
    *,
    offer: Annotated[
        str, typer.Option("--offer", metavar="HEADER", help="Hold it to this PAYMENT-REQUIRED, not to what it accepts.")
    ] = "",
    rpc: Annotated[
        str, typer.Option("--rpc", metavar="URL", help="Ask this node for balance, nonce, block-list, pause and clock.")
    ] = "",
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token", metavar="NETWORK/CONTRACT:NAME:VERSION", help="Know this token too (or FARTHING_TOKENS)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    journal: Annotated[
        str | None,
        typer.Option(
            "--journal",
            metavar="FILE|URL",
            envvar="FARTHING_JOURNAL",
            help="Find payment ids in this journal.",
            show_default="in FARTHING_HOME",
        ),
    ] = None,
) -> None:
    """Say why a payment was or would be refused: which field, what was signed, and what was expected.

    Of a bad signature it tries the near misses (the token's name or version, chain id, contract, amount, swapped
    fields, a domain that lacks a member, another way of signing) and names the one that fits. With --rpc it tells lack
    of funds, a used nonce, a block-list, a pause, a wrong clock and an outage apart. Exit codes: 0 nothing speaks
    against it, 4 it would be refused, 6 the node could not say, 2 it can't be read.

    \b
    Examples:
      farthing explain eyJ4NDAyVmVyc2lvbiI6Mi… --rpc https://mainnet.base.org
      farthing explain pay_241761d399bf2a --rpc https://mainnet.base.org
      farthing explain exchange.txt --offer "$(cat payment-required.txt)" --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    table = known_networks(token or ())
    found = _find(what, table, journal or journal_path())
    if offer:
        found = msgspec.structs.replace(found, offer=_offer_for(found.payment, offer))
    points = _look(found, table, rpc)
    wrong = [each for each in points if each.verdict == "wrong"]
    outage = any(each.cause == "outage" for each in points)
    code = EXIT_REFUSED if wrong else EXIT_OUTAGE if outage else EXIT_NOTHING_WRONG
    if as_json:
        said: dict[str, Any] = {"exit_code": code, "points": [msgspec.to_builtins(each) for each in points]}
        if found.purchase is not None:
            said |= {"payment_id": found.purchase.payment_id, "state": found.purchase.state}
            said["told"] = found.purchase.reason
        print(json.dumps(said))
    else:
        _show(found, points, asked=bool(rpc))
    raise typer.Exit(code)


def _find(what: str, table: Networks, journal: str) -> Explained:
    if _PAYMENT_ID.match(what):
        return _from_journal(what, journal)
    from farthing.cli.reading import find_headers  # noqa: PLC0415 - heavy parts only when run

    return _read(find_headers(_text(what)), table)


def _text(what: str) -> str:
    if what == "-":
        data = sys.stdin.buffer.read(INPUT_MAX_BYTES + 1)
    elif len(what) <= _PATH_MAX_CHARS and Path(what).is_file():
        with Path(what).open("rb") as opened:
            data = opened.read(INPUT_MAX_BYTES + 1)
    else:
        return what
    if len(data) > INPUT_MAX_BYTES:
        raise ConfigError(f"{what[:80]!a} has more than {INPUT_MAX_BYTES} bytes; headers are shorter.")
    return data.decode("utf-8", "replace")


def _read(headers: list[str], table: Networks) -> Explained:
    from farthing.cli.reading import guesses  # noqa: PLC0415 - heavy parts only when run
    from farthing.protocol.versions import VERSIONS  # noqa: PLC0415

    troubles: list[str] = []
    for text in headers:
        name, colon, value = text.partition(":")
        value = value.strip() if colon else name
        for wire in VERSIONS:
            if colon and name.strip().upper() not in {wire.payment_header, "", name}:
                continue
            try:
                payments = wire.read_payments(value, guesses(table))
            except FarthingError as error:
                troubles.append(str(error))
                continue
            if payments:
                payment = payments[0]
                return Explained(payment=payment, offer=payment.accepted)
    why = troubles[0] if troubles else "there is none in it"
    what = "Give a payment header's value, a file that holds one, or a payment's id (pay_…)."
    raise ConfigError(f"This can't be read as a payment: {ascii(why[:300])[1:-1]}. {what}")


def _from_journal(payment_id: str, path: str) -> Explained:
    from farthing.cli.payments import find_purchase  # noqa: PLC0415 - heavy parts only when run
    from farthing.protocol.messages import PaymentRequirements  # noqa: PLC0415
    from farthing.protocol.versions import wire_of_payment  # noqa: PLC0415
    from farthing.world.journal import Journal  # noqa: PLC0415

    if not is_there(path):
        raise StoreError(f"There is no journal at {path}.")
    journal = Journal(path)
    try:
        purchase = find_purchase(journal, payment_id)
        header = journal.header_of(purchase.payment_id)
    finally:
        journal.close()
    accepted = PaymentRequirements(
        scheme=purchase.scheme,
        network=purchase.network,
        amount=str(purchase.amount),
        asset=purchase.asset,
        pay_to=purchase.pay_to,
        max_timeout_seconds=0,
    )
    payments = wire_of_payment(header).read_payments(header, (accepted,))
    if not payments:
        raise StoreError(f"The journal's payment {purchase.payment_id} can't be read.")
    return Explained(payment=payments[0], offer=payments[0].accepted, purchase=purchase)


def _offer_for(payment: PaymentPayload, header: str) -> PaymentRequirements:
    from farthing.protocol.codec import decode_payment_required  # noqa: PLC0415 - heavy parts only when run

    value = header.strip().rpartition(" ")[2]
    offers = [each.requirements for each in decode_payment_required(value).offers]
    if not offers:
        raise ConfigError("--offer has no offer that can be read.")
    said = payment.accepted

    def likeness(offer: PaymentRequirements) -> int:
        members = ("scheme", "network", "asset", "pay_to", "amount")
        return sum(str(getattr(offer, name)).lower() == str(getattr(said, name)).lower() for name in members)

    return max(offers, key=likeness)


def _look(found: Explained, table: Networks, rpc: str) -> tuple[Point, ...]:
    from farthing.flow import drive  # noqa: PLC0415 - heavy parts only when run
    from farthing.mechanisms.exact_evm import NETWORKS, SCHEME  # noqa: PLC0415
    from farthing.mechanisms.exact_evm.explaining import explain_payment  # noqa: PLC0415
    from farthing.networks import eip155_chain_id  # noqa: PLC0415
    from farthing.world.performers import Performer, system_handlers  # noqa: PLC0415

    accepted = found.payment.accepted
    if accepted.scheme != SCHEME or eip155_chain_id(accepted.network) is None:
        said = f"{accepted.scheme[:60]!a} on {accepted.network[:60]!a}"
        raise ConfigError(f"Only payments of {SCHEME} on {NETWORKS} are explained, and this is of {said}.")
    handlers = system_handlers()
    if not rpc:
        return drive(explain_payment(found.payment, found.offer, networks=table), Performer(handlers).blocking)
    from farthing.world.jsonrpc import Node, Nodes  # noqa: PLC0415
    from farthing.world.loop import run_blocking  # noqa: PLC0415

    nodes = Nodes({accepted.network: Node(accepted.network, [rpc])})
    performer = Performer({**handlers, **nodes.handlers()})
    try:
        flow = explain_payment(found.payment, found.offer, networks=table, node=accepted.network)
        return drive(flow, performer.blocking)
    finally:
        run_blocking(nodes.aclose())


def _show(found: Explained, points: tuple[Point, ...], *, asked: bool) -> None:
    purchase = found.purchase
    if purchase is not None:
        told = f" It was told: {purchase.reason}." if purchase.reason else ""
        print(plain(f"{purchase.payment_id} is {purchase.state} by the journal.{told}"))
    for each in points:
        print(plain(f"{_MARKS[each.verdict]} {each.field:<24}{each.says}"))
    wrong = [each for each in points if each.verdict == "wrong"]
    for each in wrong:
        code = f" ({each.reason})" if each.reason else ""
        print(plain(f"\nRefused for {each.field}{code}:"))
        if each.signed or each.expected:
            print(plain(f"  signed    {each.signed}\n  expected  {each.expected}"))
    if not wrong:
        more = "" if asked else " The chain was not asked: --rpc URL asks for funds, nonce, block-list and pause."
        print(f"\nNothing speaks against it.{more}")
