"""The demo's reconciliation: what journal, ledger and chain say of each payment, each read by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from farthing.evm.abi import pack_address, read_uint
from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.calls import balance_of
from farthing.evm.logs import TRANSFER_TOPIC, Transfer, read_event, read_log
from farthing.services.devnet import Devnet
from farthing.world.facilitator_books import Books
from farthing.world.journal import Journal
from farthing.world.sqlite import Database, load_migrations


class Line(msgspec.Struct, frozen=True):
    """One payment in three books; atomic units, None where a book does not have it."""

    payment_id: str
    transaction: str
    journal: int | None
    ledger: int | None
    chain: int | None

    @property
    def agrees(self) -> bool:
        """Tell whether the three say the same."""
        return self.journal is not None and self.journal == self.ledger == self.chain


def balance(devnet: Devnet, address: str) -> int:
    """Read an account's USDC from the chain, in atomic units."""
    call = {"to": devnet.usdc, "data": "0x" + balance_of(parse_address(address)).hex()}
    return read_uint(bytes.fromhex(devnet.rpc("eth_call", call, "latest")[2:]), 0)


def transfers(receipt: dict[str, Any]) -> list[Transfer]:
    """Read the Transfer logs of a receipt."""
    logs = (read_log(raw) for raw in receipt["logs"])
    events = (read_event(log) for log in logs if log is not None)
    return [event for event in events if isinstance(event, Transfer)]


def transfers_from(devnet: Devnet, payer: str) -> dict[str, int]:
    """Read all Transfer logs out of `payer` from the chain: the sum by transaction hash."""
    topics = ["0x" + TRANSFER_TOPIC.hex(), "0x" + pack_address(parse_address(payer)).hex()]
    query = {"address": devnet.usdc, "fromBlock": "0x0", "toBlock": "latest", "topics": topics}
    sums: dict[str, int] = {}
    for raw in devnet.rpc("eth_getLogs", query):
        log = read_log(raw)
        event = read_event(log) if log is not None else None
        if log is not None and isinstance(event, Transfer):
            key = "0x" + log.transaction_hash.hex()
            sums[key] = sums.get(key, 0) + event.value
    return sums


def reconcile(devnet: Devnet, journal: Journal, facilitator_store: Path, payer: str) -> list[Line]:
    """Read the three books and lay them beside each other: a line for each payment that any of them knows."""
    database = Database(facilitator_store, migrations=load_migrations("facilitator"))
    try:
        ledger = Books(database).settled()
    finally:
        database.close()
    chain = transfers_from(devnet, payer)
    lines: list[Line] = []
    for purchase in sorted(journal.all_purchases(), key=lambda each: (each.created_at, each.amount)):
        spent = purchase.amount if purchase.state == "settled" else None
        transaction = purchase.transaction.lower()
        lines.append(
            Line(
                purchase.payment_id,
                transaction,
                spent,
                ledger.pop(purchase.payment_id, None),
                chain.pop(transaction, None),
            )
        )
    # What only the ledger or only the chain knows of is a difference, too.
    lines += [Line(payment_id, "", None, amount, None) for payment_id, amount in ledger.items()]
    lines += [Line("", transaction, None, None, amount) for transaction, amount in chain.items()]
    return lines


def show_address(address: bytes) -> str:
    """Write an address as people read it."""
    return checksum_address(address)
