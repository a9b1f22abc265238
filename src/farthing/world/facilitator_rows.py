"""How the facilitator's rows are read, and how a table of states becomes the condition of a statement."""

from __future__ import annotations

from typing import Any, Final

from farthing.facilitator.states import Machine
from farthing.facilitator.store import PaymentRecord

# The transaction is the evidence where there is some, else the newest version of ours on its way; its gas is ours only
# where the evidence is our own transaction.
SELECT_PAYMENT: Final = """
SELECT p.payment_id, p.state, p.scheme, p.network, p.asset, p.payer, p.pay_to, p.amount, p.valid_before,
       p.fingerprint, p.requirements_print, p.created_at, p.recorded_block, p.gas_limit, p.caller, p.idempotency_key,
       p.claimant, p.claim_until, p.told, p.attempts,
       COALESCE(NULLIF(p.transaction_hash, ''), t.hash, ''), p.block_number, p.block_hash, p.log_index,
       CASE WHEN t.hash = p.transaction_hash THEN t.gas_used END, p.reason, p.message,
       COALESCE(p.wallet, ''), p.nonce, p.alone
FROM payments p
LEFT JOIN transactions t ON t.network = p.network AND t.wallet = p.wallet AND t.nonce = p.nonce
"""


def read_payment(row: tuple[Any, ...]) -> PaymentRecord:
    """Read a row of `SELECT_PAYMENT`."""
    return PaymentRecord(
        payment_id=row[0],
        state=row[1],
        scheme=row[2],
        network=row[3],
        asset=row[4],
        payer=row[5],
        pay_to=row[6],
        amount=int(row[7]),
        valid_before=row[8],
        fingerprint=row[9],
        requirements_print=row[10],
        created_at=row[11],
        recorded_block=row[12],
        gas_limit=row[13],
        caller=row[14],
        idempotency_key=row[15],
        claimant=row[16],
        claim_until=row[17],
        told=bool(row[18]),
        attempts=row[19],
        transaction=row[20],
        block_number=row[21],
        block_hash=row[22],
        log_index=row[23],
        gas_used=row[24],
        reason=row[25],
        message=row[26],
        wallet=row[27],
        nonce=row[28],
        alone=bool(row[29]),
    )


def sources(machine: Machine, *moves: str) -> str:
    """Write the states that these moves leave as SQL's list, `('received', 'ready')`: text from a table in code."""
    states = {source: None for name in moves for source in machine.move(name).sources}
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"
