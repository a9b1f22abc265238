"""What a verification asks of the chain, in one batch, and what the answers say of the payment."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.calls import AUTHORIZATION_STATE, BALANCE_OF
from farthing.evm.hexadecimal import read_data, read_object, read_quantity, read_word, write_data
from farthing.evm.node import NodeCall, NodeFailure
from farthing.evm.reverts import read_revert
from farthing.mechanisms.exact_evm import reasons
from farthing.mechanisms.exact_evm.payload import ExactDetail
from farthing.mechanisms.interface import Refusal, SignedPayment

# JSON-RPC code of a revert (geth, anvil, Erigon, Reth), and the words of nodes that use another.
_REVERTED_CODE = 3
_VM_WORDS = ("revert", "invalid opcode")
# Nethermind says "VM execution error." and writes its data as "Reverted 0x…".
_NETHERMIND = "Reverted "

# What a token says when the balance or the nonce is at fault. Where the same batch says that it isn't, the node
# contradicts itself.
_BALANCE_OR_NONCE_WORDS = ("exceeds balance", "insufficientbalance", "is used", "alreadyused", "usedorcanceled")

# Gas that a transfer may take beyond the estimate, by a state that changes in between: a quarter.
_GAS_MARGIN_DIVISOR: Final = 4


class ChainFacts(msgspec.Struct, frozen=True):
    """The chain's side of a payment at its latest block. Balance in atomic units, fee in wei; `gas` is 0 if not asked.

    `balance` is None where there is no token contract, `used` None where the contract has no EIP-3009.
    """

    code: bytes
    balance: int | None
    used: bool | None
    simulation: NodeFailure | None
    block_number: int
    block_time_seconds: int
    base_fee_wei: int
    gas: int = 0


def chain_calls(signed: SignedPayment, calldata: bytes, *, sender: str | None, settling: bool) -> tuple[NodeCall, ...]:
    """The batch: chain id, the payer's code, balance, nonce, the simulated payment, the latest block (and the gas)."""
    # The identity is text already: the calls about it are put together from text.
    _, token, payer, nonce = signed.identity.parts
    payer_word = _PAD + payer[2:]
    payment = {"to": token, "data": write_data(calldata)}
    if sender is not None:
        payment["from"] = sender
    calls = (
        _CHAIN_ID,
        NodeCall("eth_getCode", (payer, "latest")),
        NodeCall("eth_call", ({"to": token, "data": _BALANCE_OF + payer_word}, "latest")),
        NodeCall("eth_call", ({"to": token, "data": _AUTHORIZATION_STATE + payer_word + nonce[2:]}, "latest")),
        NodeCall("eth_call", (payment, "latest")),
        _LATEST_BLOCK,
    )
    return (*calls, NodeCall("eth_estimateGas", (payment,))) if settling else calls


_BALANCE_OF = write_data(BALANCE_OF)
_AUTHORIZATION_STATE = write_data(AUTHORIZATION_STATE)
_PAD = "0" * 24
_CHAIN_ID = NodeCall("eth_chainId")
_LATEST_BLOCK = NodeCall("eth_getBlockByNumber", ("latest", False))
_EMPTY = "0x"


def read_facts(detail: ExactDetail, answers: tuple[Any, ...], *, settling: bool) -> ChainFacts:
    """Read the answers. Raises `NodeUnavailable` where one is missing, broken, or another chain's."""
    expected = 7 if settling else 6
    if len(answers) != expected:
        message = f"The node sent {len(answers)} answers to {expected} calls."
        raise NodeUnavailable(message)
    # The usual answers are compared as text, without being read: the batch is read for every payment.
    if answers[0] != hex(detail.chain_id):
        _check_chain(detail.chain_id, answers[0])
    block = read_object(_result(answers[5]))
    simulation = answers[4]
    if isinstance(simulation, NodeFailure):
        if not is_revert(simulation):
            raise NodeUnavailable(_failed(simulation))
    else:
        if simulation != _EMPTY:
            read_data(simulation)
        simulation = None
    return ChainFacts(
        code=b"" if answers[1] == _EMPTY else read_data(_result(answers[1])),
        balance=_view(answers[2]),
        used=_flag(answers[3]),
        simulation=simulation,
        block_number=read_quantity(block.get("number")),
        block_time_seconds=read_quantity(block.get("timestamp")),
        # A chain without EIP-1559 has none.
        base_fee_wei=read_quantity(block.get("baseFeePerGas", "0x0")),
        gas=_gas(answers[6]) if settling else 0,
    )


def judge_facts(detail: ExactDetail, facts: ChainFacts, *, settling: bool) -> Refusal | None:
    """Judge the payment by the chain. Raises `NodeUnavailable` where the node contradicts itself.

    A single call that went wrong is never a verdict: insufficient funds takes the balance *and* the refused simulation,
    a used nonce the state *and* the refused simulation (SAFETY F3).
    """
    amount = detail.message.value
    if facts.balance is None:
        return Refusal(reasons.ASSET_NOT_DEPLOYED, "There is no token contract at the asset's address.")
    if facts.used is None:
        return Refusal(reasons.EIP3009_NOT_SUPPORTED, "The token does not answer authorizationState: no EIP-3009.")
    if facts.code:
        what = "The payer has code (a contract account, or EIP-7702): only accounts without code can pay here yet."
        return Refusal(reasons.SIGNATURE, what)
    if facts.simulation is None:
        if facts.used or facts.balance < amount:
            message = "The node simulates a payment that its own balance or nonce rules out: its answers disagree."
            raise NodeUnavailable(message)
        if settling and facts.gas == 0:
            message = "The node simulates a payment whose gas it can't estimate: its answers disagree."
            raise NodeUnavailable(message)
        return None
    return _judge_refused_simulation(detail, facts, facts.balance, facts.simulation)


def _judge_refused_simulation(detail: ExactDetail, facts: ChainFacts, balance: int, simulation: NodeFailure) -> Refusal:
    message = detail.message
    said = revert_reason(simulation)
    if facts.used:
        return Refusal(reasons.NONCE_ALREADY_USED, "The authorisation's nonce is used: paid already, or cancelled.")
    if balance < message.value:
        what = f"The payer has {balance} atomic units, the payment is {message.value}."
        return Refusal(reasons.INSUFFICIENT_FUNDS, what)
    if facts.block_time_seconds >= message.valid_before:
        return Refusal(reasons.VALID_BEFORE, f"By the chain's clock the window is over: {said}")
    if facts.block_time_seconds <= message.valid_after:
        return Refusal(reasons.VALID_AFTER, f"By the chain's clock the window is not open yet: {said}")
    if any(word in said.lower() for word in _BALANCE_OR_NONCE_WORDS):
        text = f"The node refuses the payment ({said}) and reports balance and nonce in order: its answers disagree."
        raise NodeUnavailable(text)
    return Refusal(reasons.SIMULATION_FAILED, f"The token refuses the payment: {said}")


def is_revert(failure: NodeFailure) -> bool:
    """Tell a refusal by the contract from trouble of the node: code 3, or the words that other nodes use."""
    if failure.code == _REVERTED_CODE or (isinstance(failure.data, str) and failure.data.startswith(_NETHERMIND)):
        return True
    words = failure.message.lower()
    return any(word in words for word in _VM_WORDS)


def revert_reason(failure: NodeFailure) -> str:
    """What the contract said, from the revert data, else from the node's own words; clean and short."""
    data: Any = failure.data
    # Hardhat's family puts the data into an object.
    with suppress(NodeUnavailable):
        data = read_object(data).get("data")
    text = data.removeprefix(_NETHERMIND) if isinstance(data, str) else ""
    try:
        revert = read_revert(read_data(text))
    except NodeUnavailable:
        revert = None
    if revert is not None and revert.reason:
        return revert.reason
    return "".join(letter if letter.isprintable() else "?" for letter in failure.message[:_WORDS_MAX])


# As long as `farthing.evm.reverts.REASON_SIZE_MAX`: a node's words are a stranger's too.
_WORDS_MAX = 256


def _check_chain(expected: int, answer: Any) -> None:
    chain_id = read_quantity(_result(answer))
    if chain_id != expected:
        message = f"The node that is configured for chain {expected} serves chain {chain_id}."
        raise NodeUnavailable(message)


def _gas(answer: Any) -> int:
    if isinstance(answer, NodeFailure) and is_revert(answer):
        # What can't be done can't be estimated; the verdict is the simulation's.
        return 0
    estimate = read_quantity(_result(answer))
    return estimate + estimate // _GAS_MARGIN_DIVISOR


def _result(answer: Any) -> Any:
    if isinstance(answer, NodeFailure):
        raise NodeUnavailable(_failed(answer))
    return answer


def _failed(failure: NodeFailure) -> str:
    return f"The node failed a call with {failure.code}: {revert_reason(failure)}"


def _view(answer: Any) -> int | None:
    """The word that a view function answers; None where the contract, or the function, isn't there."""
    if isinstance(answer, NodeFailure):
        if is_revert(answer):
            return None
        raise NodeUnavailable(_failed(answer))
    return read_word(answer)


def _flag(answer: Any) -> bool | None:
    number = _view(answer)
    if number is None:
        return None
    if number > 1:
        message = f"The node sent {number} where true or false belongs."
        raise NodeUnavailable(message)
    return number == 1
