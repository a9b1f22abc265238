"""What became of an authorisation, by a node alone: settled, not settled, or neither is shown.

Judged at a finalised block, in a handful of round trips:

    used, by the transfer that was signed         settled: transaction, block and log
    used, by a cancellation or another transfer   not settled
    unused, and the block is past validBefore     not settled: the token compares the block's time with the window
    anything else                                 open

The event of a use can only stand in a block of the window, so that few blocks are searched, however old the payment is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.abi import AbiInvalid, pack_address, read_bool
from farthing.evm.calls import authorization_state
from farthing.evm.hexadecimal import read_data, read_list, read_object, read_quantity, write_data
from farthing.evm.logs import AUTHORIZATION_CANCELED_TOPIC, AUTHORIZATION_USED_TOPIC, Log, read_log
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.flow import Flow
from farthing.mechanisms.exact_evm.evidence import judge_receipt
from farthing.mechanisms.exact_evm.payload import NETWORKS, SCHEME, ExactDetail, read_payment
from farthing.mechanisms.interface import SignedPayment, Spent, SpentOtherwise, Traced
from farthing.protocol.messages import PaymentPayload

# Blocks whose time is asked for in one batch. Five rounds of them find one among forty million.
_PROBES: Final = 32
_ROUNDS_MAX: Final = 12
# How much earlier than the journal's time a block may call itself: a clock that is ten minutes off either way.
CLOCK_SLACK_SECONDS: Final = 600
# Blocks of one `eth_getLogs`, which hosted nodes bound at 2,000 to 10,000; and how many such questions are asked.
LOG_BLOCKS: Final = 2_000
LOG_QUESTIONS_MAX: Final = 50
_EVENTS_MAX: Final = 16


class _Block(msgspec.Struct, frozen=True):
    number: int
    time_seconds: int


class ExactEvmTracer:
    """Finds out what became of `exact` payments on EIP-155 networks by EIP-3009."""

    scheme: str = SCHEME
    network: str = NETWORKS

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the scheme's payload. Raises `RemoteProtocolError` with the JSON path."""
        return read_payment(payment)

    def trace(self, signed: SignedPayment, *, node: str, recorded_at: int) -> Flow[Traced]:
        """Look for the authorisation at the node's finalised block. Raises `NodeUnavailable`."""
        detail: ExactDetail = signed.detail
        final, newest = yield from _heads(detail, node)
        used, used_now = yield from _used(detail, node, final)
        if used:
            return (yield from _trace_used(detail, node, final, recorded_at))
        if final.time_seconds >= detail.message.valid_before:
            says = (
                f"Unused in the finalised block {final.number}, whose time {final.time_seconds} is past validBefore "
                f"({detail.message.valid_before})."
            )
            return Traced(verdict="not_settled", says=says, block_number=final.number)
        if used_now:
            says = (
                f"The nonce is used in block {newest.number} or before, which is not final yet (final: {final.number})."
            )
            return Traced(verdict="open", says=says, block_number=final.number)
        left = detail.message.valid_before - final.time_seconds
        says = f"Unused in the finalised block {final.number}, and its window is open for {left} s more by that block."
        return Traced(verdict="open", says=says, block_number=final.number)


def _heads(detail: ExactDetail, node: str) -> Flow[tuple[_Block, _Block]]:
    calls = (NodeCall("eth_chainId"), _block_call("finalized"), _block_call("latest"))
    answers = yield from AskNode(node, calls)
    chain_id, final, newest = _three(answers)
    if read_quantity(_result(chain_id)) != detail.chain_id:
        message = f"The node serves another chain than {detail.chain_id}."
        raise NodeUnavailable(message)
    return _read_block(final), _read_block(newest)


def _used(detail: ExactDetail, node: str, final: _Block) -> Flow[tuple[bool, bool]]:
    """Ask whether the nonce is used: at the finalised block, and now."""
    state = {
        "to": write_data(detail.token),
        "data": write_data(authorization_state(detail.message.from_, detail.message.nonce)),
    }
    calls = tuple(NodeCall("eth_call", (state, at)) for at in (hex(final.number), "latest"))
    answers = yield from AskNode(node, calls)
    if len(answers) != len(calls):
        message = f"The node sent {len(answers)} answers to {len(calls)} calls."
        raise NodeUnavailable(message)
    at_final, now = (_read_flag(each) for each in answers)
    if at_final and not now:
        message = "The node says that the nonce was used, and is not any more: its answers disagree."
        raise NodeUnavailable(message)
    return at_final, now


def _trace_used(detail: ExactDetail, node: str, final: _Block, recorded_at: int) -> Flow[Traced]:
    begin = max(detail.message.valid_after, recorded_at - CLOCK_SLACK_SECONDS)
    first = yield from _first_block_at(node, final, begin)
    last = yield from _first_block_at(node, final, detail.message.valid_before)
    log = yield from _find_event(detail, node, first, last)
    if log is None and last < final.number:
        # Not paid within its window, so cancelled: at any time since.
        log = yield from _find_event(detail, node, last + 1, final.number)
    if log is None:
        message = "The node says that the nonce is used and shows no event of it: its state and its logs disagree."
        raise NodeUnavailable(message)
    transaction = write_data(log.transaction_hash)
    answers = yield from AskNode(node, (NodeCall("eth_getTransactionReceipt", (transaction,)),))
    if len(answers) != 1 or answers[0] is None:
        message = "The node has no receipt of a transaction whose log it sent."
        raise NodeUnavailable(message)
    evidence = judge_receipt(detail, _result(answers[0]))
    if isinstance(evidence, Spent) and evidence.block_number <= final.number:
        return Traced(
            verdict="settled",
            says=f"AuthorizationUsed and the matching Transfer, final at block {final.number}.",
            transaction=evidence.transaction,
            block_number=evidence.block_number,
            block_hash=evidence.block_hash,
            log_index=evidence.log_index,
        )
    if isinstance(evidence, SpentOtherwise):
        cancelled = log.topics[0] == AUTHORIZATION_CANCELED_TOPIC
        how = "cancelled" if cancelled else "used by another transfer than the one that was signed"
        return Traced(
            verdict="not_settled",
            says=f"The authorisation was {how}, final at block {final.number}.",
            transaction=transaction,
            block_number=log.block_number,
            block_hash=write_data(log.block_hash),
            log_index=log.index,
        )
    message = "The node's log of the nonce and the receipt of its transaction disagree."
    raise NodeUnavailable(message)


def _first_block_at(node: str, final: _Block, time_seconds: int) -> Flow[int]:
    """Find the first block whose time is not before `time_seconds`; the finalised one where none is."""
    if final.time_seconds < time_seconds:
        return final.number
    low, high = -1, final.number  # the time of `low` is before, that of `high` is not
    for _ in range(_ROUNDS_MAX):
        if high - low <= 1:
            return high
        step = max(1, (high - low) // (_PROBES + 1))
        numbers = list(range(low + step, high, step))[:_PROBES]
        answers = yield from AskNode(node, tuple(_block_call(number) for number in numbers))
        for number, answer in zip(numbers, answers, strict=True):
            if _read_block(answer).time_seconds < time_seconds:
                low = number
            else:
                high = number
                break
    # Enough for any chain that there is; what is left of a longer one is searched for its logs too.
    return max(low, 0)


def _find_event(detail: ExactDetail, node: str, first: int, last: int) -> Flow[Log | None]:
    """Find the event that used the nonce up in these blocks: a use or a cancellation, of which there is one at most."""
    kinds = [write_data(AUTHORIZATION_USED_TOPIC), write_data(AUTHORIZATION_CANCELED_TOPIC)]
    topics = [kinds, write_data(pack_address(detail.message.from_)), write_data(detail.message.nonce)]
    for _ in range(LOG_QUESTIONS_MAX):
        if first > last:
            return None
        until = min(last, first + LOG_BLOCKS - 1)
        query = {"address": write_data(detail.token), "fromBlock": hex(first), "toBlock": hex(until), "topics": topics}
        answers = yield from AskNode(node, (NodeCall("eth_getLogs", (query,)),))
        logs = read_list(_result(answers[0] if answers else None), size_max=_EVENTS_MAX)
        found = [log for raw in logs if (log := read_log(raw)) is not None and _is_event(detail, log)]
        if found:
            return found[0]
        first = until + 1
    message = f"The event was not found in {LOG_QUESTIONS_MAX * LOG_BLOCKS} blocks, which are all that are searched."
    raise NodeUnavailable(message)


def _is_event(detail: ExactDetail, log: Log) -> bool:
    about = (pack_address(detail.message.from_), detail.message.nonce)
    known = log.topics[:1] in ((AUTHORIZATION_USED_TOPIC,), (AUTHORIZATION_CANCELED_TOPIC,))
    return log.address == detail.token and known and log.topics[1:] == about


def _block_call(which: int | str) -> NodeCall:
    return NodeCall("eth_getBlockByNumber", (which if isinstance(which, str) else hex(which), False))


def _read_block(answer: Any) -> _Block:
    block = read_object(_result(answer))
    return _Block(read_quantity(block.get("number")), read_quantity(block.get("timestamp")))


def _read_flag(answer: Any) -> bool:
    try:
        return read_bool(read_data(_result(answer)))
    except AbiInvalid as error:
        message = f"The node sent no state of the nonce: {error}"
        raise NodeUnavailable(message) from error


def _three(answers: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    try:
        first, second, third = answers
    except ValueError:
        message = f"The node sent {len(answers)} answers to 3 calls."
        raise NodeUnavailable(message) from None
    return first, second, third


def _result(answer: Any) -> Any:
    if isinstance(answer, NodeFailure):
        message = f"The node failed a call with {answer.code}: {ascii(answer.message[:200])[1:-1]}"
        raise NodeUnavailable(message)
    return answer
