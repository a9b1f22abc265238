"""`hostile`: what our buyer and the official client do before a hostile seller: payments signed, transfers on chain.

Each tries to buy one thing, up to three times: a program that asks again where it got an error or a 402, as programs
do. The seller misbehaves twice and then behaves. The money is real: a devnet, a facilitator, a shop behind the seller.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from typing import TYPE_CHECKING

import msgspec

from bench.figure import Figure
from farthing.testing import Books, HostileSeller, SellerMode, Town

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from farthing.testing import Account

ATTEMPTS = 3
MISBEHAVES = 2
# How long a caller waits for an answer. Settling takes a few hundredths of a second here.
TIMEOUT_SECONDS = 1.5
_SUCCESSES = range(200, 300)
_TOLD_CHARS = 60

# One attempt: what the caller was told, and whether it got an answer that it would take for the goods.
Attempt = tuple[str, bool]
Ask = "Callable[[str], Attempt]"


class Row(msgspec.Struct, frozen=True):
    """What one buyer did in one mode."""

    mode: str
    signed: int
    transfers: int
    told: tuple[str, ...]
    seconds: float

    def to_text(self) -> str:
        """The outcome, in one cell."""
        return f"{self.signed} signed, {self.transfers} paid; {' / '.join(self.told)}"


def ask_with_ours(town: Town, account: Account) -> Callable[[str], Attempt]:
    """Our buyer, through httpx2."""
    import httpx2  # noqa: PLC0415 - only who buys needs it

    from farthing.clients.httpx import PayingTransport  # noqa: PLC0415 - likewise
    from farthing.errors import PaymentError  # noqa: PLC0415 - likewise

    buyer = town.buyer(account)
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def ask(url: str) -> Attempt:
        transport = PayingTransport(buyer, inner=httpx2.HTTPTransport(verify=no_tls))
        with httpx2.Client(transport=transport, timeout=TIMEOUT_SECONDS) as client:
            try:
                answer = client.get(url)
            except PaymentError as error:
                return f"{type(error).__name__}({error.reason})", False
            except httpx2.HTTPError as error:
                return type(error).__name__, False
        return _told(answer.status_code)

    return ask


def ask_with_official(_town: Town, account: Account) -> Callable[[str], Attempt]:
    """The official client of PyPI x402, through httpx; its own limits know public networks' tokens only."""
    from eth_account import Account as EthAccount  # noqa: PLC0415 - it takes seconds to import
    from x402 import x402Client  # noqa: PLC0415 - likewise
    from x402.http.clients import wrapHttpxWithPayment  # noqa: PLC0415 - likewise
    from x402.mechanisms.evm import EthAccountSigner  # noqa: PLC0415 - likewise
    from x402.mechanisms.evm.exact import register_exact_evm_client  # noqa: PLC0415 - likewise

    signer = EthAccountSigner(EthAccount.from_key(account.key))
    client = register_exact_evm_client(x402Client().set_spend_controls(False), signer)

    async def story(url: str) -> Attempt:
        async with wrapHttpxWithPayment(client, timeout=TIMEOUT_SECONDS) as http:
            try:
                answer = await http.get(url)
            except Exception as error:  # noqa: BLE001 - whatever it raises is what its caller is told
                return type(error).__name__, False
            return _told(answer.status_code)

    return lambda url: asyncio.run(story(url))


def buy(town: Town, mode: SellerMode, who: Callable[[Town, Account], Callable[[str], Attempt]]) -> Row:
    """Buy one thing from a seller that misbehaves in this mode; count what left the buyer and what the chain has."""
    account = town.account(usdc=1)
    shop = town.shop()
    books = Books(town.devnet)
    ask = who(town, account)
    told: list[str] = []
    begun = time.monotonic()
    with HostileSeller(shop.url, [mode] * MISBEHAVES) as seller:
        for _ in range(ATTEMPTS):
            said, served = ask(seller.url + shop.path)
            told.append(said[:_TOLD_CHARS])
            if served:
                break
        seconds = time.monotonic() - begun
    return Row(mode.name, len(seller.payments()), len(books.transfers(payer=account.address)), tuple(told), seconds)


BUYERS = {"ours": ask_with_ours, "official": ask_with_official}


def table(modes: Iterable[SellerMode] = SellerMode) -> dict[str, list[Row]]:
    """Every mode, each buyer in turn, on one devnet."""
    from farthing.services.devnet import start_devnet  # noqa: PLC0415 - it takes a second to import

    with start_devnet() as devnet, Town(devnet) as town:
        rows: dict[str, list[Row]] = {name: [] for name in BUYERS}
        for mode in modes:
            for name, who in BUYERS.items():
                rows[name].append(buy(town, mode, who))
        return rows


def doubled(rows: Iterable[Row]) -> int:
    """In how many modes the chain has more than one transfer for the one purchase."""
    return sum(row.transfers > 1 for row in rows)


def run() -> list[Figure]:
    """Measure: modes in which a buyer paid more than once."""
    rows = table()
    notes = [
        f"{ours.mode}: ours {ours.to_text()}; official {official.to_text()}"
        for ours, official in zip(rows["ours"], rows["official"], strict=True)
    ]
    for name, found in rows.items():
        signed, transfers = sum(row.signed for row in found), sum(row.transfers for row in found)
        notes.append(f"{name}: {len(found)} purchases, {signed} payments signed, {transfers} transfers on chain")
    return [
        Figure(
            name="hostile_paid_twice",
            ours=doubled(rows["ours"]),
            unit=f"of {len(rows['ours'])} modes",
            better="lower",
            official=doubled(rows["official"]),
            target=0,
            target_is="ours",
            notes=tuple(notes),
        )
    ]


def _told(status: int) -> Attempt:
    return str(status), status in _SUCCESSES


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for figure in run():
        print(figure.to_text(), *figure.notes, sep="\n")
