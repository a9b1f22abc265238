"""The books of a devnet: what was transferred since a moment, read from the chain alone, and assertions that explain.

books = Books(devnet)
client.get(url)
books.assert_paid(payee, "0.01")
books.assert_transfers((payer, payee, "0.01"))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.logs import TRANSFER_TOPIC, read_event, read_log
from farthing.evm.logs import Transfer as TransferEvent
from farthing.money import parse_price, to_atomic
from farthing.services.devnet import Devnet

USDC_DECIMALS: Final = 6
# Of a long list of differences the first are shown.
SHOWN_MAX: Final = 20
_NOBODY: Final = bytes(20)

Expected = tuple[str, str, "str | Decimal | int"]


class Transfer(msgspec.Struct, frozen=True):
    """One transfer of the dollar: payer, payee, atomic units (6 decimals), and where it stands."""

    payer: str
    payee: str
    amount: int
    transaction: str
    block_number: int

    def __str__(self) -> str:
        return f"{self.payer} -> {self.payee}: {shown(self.amount)} in {self.transaction}, block {self.block_number}"


class Books:
    """What happened on a devnet since these books were opened. Minting (the faucet) is no transfer."""

    def __init__(self, devnet: Devnet) -> None:
        """Open them now."""
        self.devnet = devnet
        self._opened_at = devnet.block_number()

    def transfers(self, *, payer: str = "", payee: str = "") -> tuple[Transfer, ...]:
        """The transfers since, in the chain's order; of one payer or to one payee where these are named."""
        topics: list[str | None] = ["0x" + TRANSFER_TOPIC.hex(), _topic(payer), _topic(payee)]
        query: dict[str, Any] = {
            "address": self.devnet.usdc,
            "fromBlock": hex(self._opened_at + 1),
            "toBlock": "latest",
            "topics": topics,
        }
        found: list[Transfer] = []
        for raw in self.devnet.rpc("eth_getLogs", query):
            log = read_log(raw)
            event = read_event(log) if log is not None else None
            if log is not None and isinstance(event, TransferEvent) and event.from_ != _NOBODY:
                found.append(
                    Transfer(
                        checksum_address(event.from_),
                        checksum_address(event.to),
                        event.value,
                        "0x" + log.transaction_hash.hex(),
                        log.block_number,
                    )
                )
        return tuple(found)

    def assert_paid(self, payee: str, dollars: str | Decimal | int, *, times: int | None = None) -> None:
        """`payee` got exactly `dollars` (`"0.01"`) in all, and, where `times` is given, in that many transfers.

        Raises `AssertionError` that lists what came.
        """
        came = self.transfers(payee=payee)
        expected, total = _atomic(dollars), sum(each.amount for each in came)
        if total == expected and times in (None, len(came)):
            return
        wanted = "" if times is None else f" in {times} transfers"
        lines = [f"{payee} should have got {shown(expected)}{wanted}, and got {shown(total)} in {len(came)}:"]
        lines += _listed(came) or ["  nothing"]
        if total > expected:
            lines.append(f"too much by {shown(total - expected)}: {_repeated(came)}")
        elif total < expected:
            lines.append(f"too little by {shown(expected - total)}")
        raise AssertionError("\n".join(lines))

    def assert_transfers(self, *expected: Expected) -> None:
        """Exactly these happened (payer, payee, dollars), in whatever order.

        Raises `AssertionError` that names what is missing and what nobody expected.
        """
        wanted = Counter((_checksum(payer), _checksum(payee), _atomic(dollars)) for payer, payee, dollars in expected)
        came = self.transfers()
        had = Counter((each.payer, each.payee, each.amount) for each in came)
        if wanted == had:
            return
        missing, extra = wanted - had, had - wanted
        lines = [f"{wanted.total()} transfers were expected, {had.total()} happened."]
        for (payer, payee, amount), count in missing.items():
            lines.append(f"missing{_times(count)}: {payer} -> {payee}: {shown(amount)}")
        for (payer, payee, amount), count in extra.items():
            where = [
                each.transaction for each in came if (each.payer, each.payee, each.amount) == (payer, payee, amount)
            ]
            lines.append(f"not expected{_times(count)}: {payer} -> {payee}: {shown(amount)}, in {', '.join(where)}")
        raise AssertionError("\n".join(lines[:SHOWN_MAX]))

    def assert_balance(self, account: str, dollars: str | Decimal | int) -> None:
        """`account` has exactly `dollars` now. Raises `AssertionError` that lists what came and went since."""
        expected, has = _atomic(dollars), self.devnet.usdc_balance(account)
        if has == expected:
            return
        lines = [
            f"{account} should have {shown(expected)}, and has {shown(has)} ({shown(has - expected)} apart). Since:"
        ]
        moved = [each for each in self.transfers() if _checksum(account) in (each.payer, each.payee)]
        lines += _listed(moved) or ["  nothing came or went"]
        raise AssertionError("\n".join(lines))


def shown(atomic: int) -> str:
    """Write atomic units as dollars: `$0.01`."""
    return f"{'-' if atomic < 0 else ''}${Decimal(abs(atomic)).scaleb(-USDC_DECIMALS):f}"


def _atomic(dollars: str | Decimal | int) -> int:
    return to_atomic(parse_price(dollars).number, USDC_DECIMALS)


def _checksum(address: str) -> str:
    return checksum_address(parse_address(address))


def _topic(address: str) -> str | None:
    return "0x" + parse_address(address).hex().rjust(64, "0") if address else None


def _listed(transfers: Iterable[Transfer]) -> list[str]:
    lines = [f"  {each}" for each in transfers]
    more = len(lines) - SHOWN_MAX
    return lines[:SHOWN_MAX] + ([f"  and {more} more"] if more > 0 else [])


def _repeated(transfers: tuple[Transfer, ...]) -> str:
    counts = Counter((each.payer, each.amount) for each in transfers)
    doubled = [f"{payer} paid {shown(amount)} {count} times" for (payer, amount), count in counts.items() if count > 1]
    return "; ".join(doubled) or "no payer paid one sum twice"


def _times(count: int) -> str:
    return f" {count} times" if count > 1 else ""
