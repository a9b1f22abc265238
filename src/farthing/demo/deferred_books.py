"""The books of `farthing demo deferred`: journal, statement, chain and balances, each read by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.evm.abi import pack_address
from farthing.evm.addresses import parse_address
from farthing.evm.logs import TRANSFER_TOPIC, Transfer, read_event, read_log
from farthing.services.devnet import Devnet
from farthing.world.journal import Journal, Promised

SETTLED: Final = "settled"


class Sum(msgspec.Struct, frozen=True):
    """What one book says: how many commitments (None where it counts none), and how much in all, in atomic units."""

    book: str
    commitments: int | None
    amount: int


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """All books beside each other. `faults` says in words what does not agree; none means reconciled."""

    sums: tuple[Sum, ...]
    transactions: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Tell whether every book says the same."""
        return not self.faults


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared. Amounts in atomic units; `publishers` are addresses by the payee's name.

    `kept` are the payment ids of the pages on the crawler's list; `lines` are those of all statements, which the
    payer's auditor holds for settled by `settled_by` (hashes of transactions); `paid` and
    `earned` are changes of balances; `transfers_in` went from the payer to the treasury, `transfers_out` from the
    treasury, both by transaction and receiver.
    """

    kept: tuple[str, ...]
    promised: tuple[Promised, ...]
    lines: tuple[Mapping[str, str], ...]
    net: int
    settled_by: tuple[str, ...]
    publishers: Mapping[str, str]
    paid: int
    earned: Mapping[str, int]
    transfers_in: Mapping[tuple[str, str], int]
    transfers_out: Mapping[tuple[str, str], int]
    house: Mapping[str, int]
    pending: Mapping[str, int]
    treasury: str


def promises_of(journal: Path) -> tuple[Promised, ...]:
    """Read all promises from the crawler's journal."""
    opened = Journal(journal)
    try:
        found: list[Promised] = []
        while page := opened.promises(after=found[-1].purchase if found else None):
            found += page
        return tuple(found)
    finally:
        opened.close()


def transfers_by_receiver(devnet: Devnet, sender: str) -> dict[tuple[str, str], int]:
    """Read all Transfer logs out of an account from the chain: the sums by transaction and receiver."""
    topics = ["0x" + TRANSFER_TOPIC.hex(), "0x" + pack_address(parse_address(sender)).hex()]
    query = {"address": devnet.usdc, "fromBlock": "0x0", "toBlock": "latest", "topics": topics}
    sums: dict[tuple[str, str], int] = {}
    for raw in devnet.rpc("eth_getLogs", query):
        log = read_log(raw)
        event = read_event(log) if log is not None else None
        if log is not None and isinstance(event, Transfer):
            key = ("0x" + log.transaction_hash.hex(), "0x" + event.to.hex())
            sums[key] = sums.get(key, 0) + event.value
    return sums


def compare(facts: Facts) -> Books:
    """Lay the books beside each other (SAFETY C1, C2, C7): the same commitments in each, and the same money."""
    journal = {each.promise.promise_id: each.purchase.amount for each in facts.promised if each.receipt is not None}
    billed = {line["id"]: int(line["charged"]) for line in facts.lines}
    owed: dict[str, int] = {}
    for line in facts.lines:
        owed[line["payee"]] = owed.get(line["payee"], 0) + int(line["charged"])
    came = sum(facts.transfers_in.values())
    went = sum(facts.transfers_out.values())
    faults = [
        *_differences("the journal", journal, "the statement", billed),
        *([] if len(facts.lines) == len(billed) else ["a commitment stands on a statement twice"]),
        *_unequal("pages kept that were bought", len(facts.kept), "commitments billed", len(billed)),
        *_unequal("the journal", sum(journal.values()), "the statement", facts.net),
        *_unequal("the statement", facts.net, "Transfer logs to the treasury", came),
        *_unequal("Transfer logs to the treasury", came, "what left the crawler's account", facts.paid),
        *_unequal("Transfer logs to the treasury", came, "Transfer logs to the publishers", went),
        *_unsettled(facts),
        *(f"the treasury is not who was paid: {each}" for _, each in facts.transfers_in if each != facts.treasury),
        *_unequal("the clearing house's debits", sum(facts.house.values()), "its credits", 0),
        *([f"the clearing house still has {len(facts.pending)} accounts with promised money"] if facts.pending else []),
    ]
    for payee, address in facts.publishers.items():
        logged = sum(amount for (_, to), amount in facts.transfers_out.items() if to == address.lower())
        faults += _unequal(f"{payee}'s lines", owed.get(payee, 0), "Transfer logs to it", logged)
        faults += _unequal(f"Transfer logs to {payee}", logged, "what its account gained", facts.earned[payee])
    return Books(
        sums=(
            Sum("crawler's journal", len(journal), sum(journal.values())),
            Sum("statement", len(billed), facts.net),
            Sum("Transfer logs, crawler to treasury", None, came),
            Sum("Transfer logs, treasury to publishers", None, went),
            Sum("publishers' balances", None, sum(facts.earned.values())),
        ),
        transactions=tuple(dict.fromkeys(each for each, _ in (*facts.transfers_in, *facts.transfers_out))),
        faults=tuple(faults),
    )


def _unsettled(facts: Facts) -> list[str]:
    said, moved = set(facts.settled_by), {transaction for transaction, _ in facts.transfers_in}
    return [] if said == moved else ["the transactions that the auditor holds for settled are not those that paid"]


def _unequal(one: str, amount: int, other: str, amount_other: int) -> list[str]:
    return [] if amount == amount_other else [f"{one}: {amount:,}; {other}: {amount_other:,}"]


def _differences(one: str, first: Mapping[str, int], other: str, second: Mapping[str, int]) -> list[str]:
    only = {one: first.keys() - second.keys(), other: second.keys() - first.keys()}
    faults = [f"{len(ids):,} commitments stand in {name} alone" for name, ids in only.items() if ids]
    changed = sum(first[each] != second[each] for each in first.keys() & second.keys())
    return [*faults, *([f"{changed:,} commitments have another amount in {other}"] if changed else [])]


def bought(pages: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Give the payment ids on a crawler's list."""
    return tuple(str(page["payment_id"]) for page in pages if page.get("payment_id"))
