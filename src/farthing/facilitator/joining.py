"""Joined settlement: which payments share a transaction, through which contract, and with how much gas.

Payments that wait when the submitter is free go together; there is no timer. Multicall3 makes the calls, each of which
may fail alone, and every payment's verdict is read from the logs. Multicall3 is called and never trusted: it gets no
allowance, and an authorisation names its payee, whoever submits it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.calls import MULTICALL3, Call3, aggregate3
from farthing.facilitator.store import PaymentRecord

# Payments in one transaction: what remains of the fixed costs is shared by so many that more would save nothing (two
# hundred gas each), and fifty kilobytes of calldata stay well under the 128 that nodes relay.
JOINED_MAX: Final = 100
# Gas of one transaction: under the 2^24 that EIP-7825 allows, and half of a small block (30,000,000).
JOINED_GAS_MAX: Final = 15_000_000
# Who calls itself Multicall3 here: the same address on every public chain (mds1/multicall3).
JOINING_CONTRACT: Final = checksum_address(MULTICALL3)


def goes_alone(record: PaymentRecord) -> bool:
    """Tell whether a payment shares its transaction with no other: its payer has code, or its call failed once."""
    return record.alone or record.attempts > 0


def group(
    records: Iterable[PaymentRecord], *, members_max: int, alone: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], ...]:
    """Share payments out over transactions, in their order: those that may be joined together, the others alone.

    `alone` are the ids of payments that go alone for another reason than their own record.
    """
    groups: list[list[str]] = []
    joined: list[str] = []
    gas = 0
    for record in records:
        if goes_alone(record) or record.payment_id in alone or members_max <= 1:
            groups.append([record.payment_id])
            continue
        if not joined or len(joined) == members_max or gas + record.gas_limit > JOINED_GAS_MAX:
            joined, gas = [], 0
            groups.append(joined)
        joined.append(record.payment_id)
        gas += record.gas_limit
    return tuple(map(tuple, groups))


def joined_gas_limit(gas_limits: Iterable[int]) -> int:
    """The gas limit of members together.

    Each limit holds the 21,000 that a transaction takes, which is paid once here and is several times what Multicall3
    takes for a call; so the sum is enough, and no member can take from the others what they need.
    """
    return sum(gas_limits)


def settling_call(calls: tuple[tuple[str, bytes], ...]) -> tuple[str, bytes]:
    """Give the contract to call and its calldata, for the members' own calls: a lone one is made directly."""
    if len(calls) == 1:
        return calls[0]
    return JOINING_CONTRACT, aggregate3(tuple(Call3(parse_address(to), data) for to, data in calls))
