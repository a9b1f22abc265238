"""What became of an authorisation, judged by the token's own events.

Evidence for "settled" is `AuthorizationUsed(from, nonce)` and the transfer that belongs to it, in one transaction. A
used nonce alone proves nothing (a cancellation uses it too), and neither does a matching transfer somewhere in the
transaction: with two authorisations in one transaction, one could borrow the other's transfer. EIP-3009 emits the event
and then makes the transfer, so that the transfer of an authorisation is the next event of the same payer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from farthing.errors import NodeUnavailable
from farthing.evm.abi import AbiInvalid, pack_address, read_bool
from farthing.evm.calls import authorization_state
from farthing.evm.hexadecimal import read_data, read_list, read_object, read_quantity, write_data
from farthing.evm.logs import (
    AUTHORIZATION_CANCELED_TOPIC,
    AUTHORIZATION_USED_TOPIC,
    TRANSFER_TOPIC,
    AuthorizationCanceled,
    AuthorizationUsed,
    Event,
    Log,
    Transfer,
    read_event,
    read_log,
)
from farthing.evm.node import NodeCall, NodeFailure
from farthing.mechanisms.exact_evm.reasons import NONCE_ALREADY_USED
from farthing.mechanisms.interface import Evidence, Spent, SpentOtherwise, Unspent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from farthing.evm.typed_data import TransferWithAuthorization
    from farthing.mechanisms.exact_evm.payload import ExactDetail

# A block holds some thousands of logs; a payer's own in a few minutes are far fewer. More is not an answer.
LOGS_MAX: Final = 10_000

_CALLS = 4
_CALLS_FROM_GENESIS = 3


class Receipts:
    """Judges payments by receipts, and reads the logs of one once for all of its payments.

    A joined transaction has the logs of a hundred payments: read for each of them, they would be the settlement's
    largest part by far.
    """

    def __init__(self) -> None:
        """Begin with none."""
        # The last receipt, and its logs by their first indexed member, which is the payer in all events that count.
        self._last: tuple[Any, dict[bytes, list[Log]]] | None = None

    def judge(self, detail: ExactDetail, receipt: Any) -> Evidence:
        """Judge one transaction receipt (`eth_getTransactionReceipt`'s JSON). Raises `NodeUnavailable` for others."""
        members = read_object(receipt)
        if read_quantity(members.get("status")) == 0:
            # A refused transaction has done nothing, whatever else the receipt says.
            return Unspent()
        last = self._last
        if last is None or last[0] is not receipt:
            last = self._last = (receipt, _by_payer(_read_logs(members.get("logs"))))
        return _judge(detail, last[1].get(pack_address(detail.message.from_), ()))


def judge_receipt(detail: ExactDetail, receipt: Any) -> Evidence:
    """Judge one transaction receipt (`eth_getTransactionReceipt`'s JSON). Raises `NodeUnavailable` for other things."""
    return Receipts().judge(detail, receipt)


def _by_payer(logs: Iterable[Log]) -> dict[bytes, list[Log]]:
    found: dict[bytes, list[Log]] = {}
    for log in logs:
        if len(log.topics) > 1:
            found.setdefault(log.topics[1], []).append(log)
    return found


def evidence_calls(detail: ExactDetail, from_block: int) -> tuple[NodeCall, ...]:
    """Ask whether the nonce is used, and for the payer's events on the token since `from_block`, in one batch.

    The last call asks whether it was used before `from_block`; it is left out where there is no such block.
    """
    state = {"to": write_data(detail.token), "data": write_data(_state_call(detail))}
    payer = write_data(pack_address(detail.message.from_))
    where = {"address": write_data(detail.token), "fromBlock": hex(from_block), "toBlock": "latest"}
    used = [write_data(AUTHORIZATION_USED_TOPIC), write_data(AUTHORIZATION_CANCELED_TOPIC)]
    calls = (
        NodeCall("eth_call", (state, "latest")),
        NodeCall("eth_getLogs", ({**where, "topics": [used, payer]},)),
        NodeCall("eth_getLogs", ({**where, "topics": [write_data(TRANSFER_TOPIC), payer]},)),
    )
    if from_block <= 0:
        return calls
    return (*calls, NodeCall("eth_call", (state, hex(from_block - 1))))


def judge_evidence(detail: ExactDetail, answers: tuple[Any, ...]) -> Evidence:
    """Judge the answers to `evidence_calls`. Raises `NodeUnavailable` where they are none, or contradict each other."""
    if len(answers) not in {_CALLS, _CALLS_FROM_GENESIS}:
        message = f"The node sent {len(answers)} answers to {_CALLS} calls."
        raise NodeUnavailable(message)
    verdict = _judge(detail, [*_read_logs(answers[1]), *_read_logs(answers[2])])
    if not isinstance(verdict, Unspent) or not _read_state(answers[0]):
        return verdict
    # Used, and no event since from_block. Only a node that still has the state before it can tell why.
    if len(answers) == _CALLS and _read_state(answers[3]):
        return SpentOtherwise(NONCE_ALREADY_USED)
    message = "The node says that the nonce is used and has no event of it: its state and its logs disagree."
    raise NodeUnavailable(message)


def _judge(detail: ExactDetail, logs: Iterable[Log]) -> Evidence:
    message = detail.message
    # One log may come twice, by two filters.
    ordered = sorted({(log.block_number, log.index): log for log in logs}.items())
    events = [(log, event) for _, log in ordered if (event := _of_payer(detail, log)) is not None]
    for at, (log, event) in enumerate(events):
        transaction = write_data(log.transaction_hash)
        if isinstance(event, AuthorizationCanceled) and event.nonce == message.nonce:
            return SpentOtherwise(NONCE_ALREADY_USED, transaction, log.block_number)
        if isinstance(event, AuthorizationUsed) and event.nonce == message.nonce:
            paid = _next_transfer(events[at + 1 :], log)
            if paid is None or (paid.to, paid.value) != (message.to, message.value):
                return SpentOtherwise(NONCE_ALREADY_USED, transaction, log.block_number)
            return Spent(transaction, log.block_number, write_data(log.block_hash), log.index)
    return Unspent()


def _of_payer(detail: ExactDetail, log: Log) -> Event | None:
    """The event of a log of this token about this payer, or None."""
    if log.address != detail.token:
        return None
    event = read_event(log)
    if event is None:
        return None
    about = event.from_ if isinstance(event, Transfer) else event.authorizer
    return event if about == detail.message.from_ else None


def _next_transfer(events: list[tuple[Log, Event]], used: Log) -> Transfer | None:
    """The transfer that belongs to an `AuthorizationUsed`: the payer's next event, in the same transaction."""
    if not events:
        return None
    log, event = events[0]
    if log.transaction_hash != used.transaction_hash or not isinstance(event, Transfer):
        return None
    return event


def _state_call(detail: ExactDetail) -> bytes:
    message: TransferWithAuthorization = detail.message
    return authorization_state(message.from_, message.nonce)


def _read_state(answer: Any) -> bool:
    if isinstance(answer, NodeFailure):
        message = f"The node did not tell the state of the nonce: {answer.message}"
        raise NodeUnavailable(message)
    try:
        return read_bool(read_data(answer))
    except AbiInvalid as error:
        message = f"The node sent no state of the nonce: {error}"
        raise NodeUnavailable(message) from error


def _read_logs(answer: Any) -> list[Log]:
    if isinstance(answer, NodeFailure):
        message = f"The node did not send the logs: {answer.message}"
        raise NodeUnavailable(message)
    return [log for raw in read_list(answer, size_max=LOGS_MAX) if (log := read_log(raw)) is not None]
