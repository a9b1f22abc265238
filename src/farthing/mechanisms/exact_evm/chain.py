"""What a verification asks of the chain, in one batch, and what the answers say of the payment."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.abi import AbiInvalid
from farthing.evm.calls import AUTHORIZATION_STATE, BALANCE_OF, read_aggregate3
from farthing.evm.hexadecimal import read_data, read_object, read_quantity, read_word, write_data
from farthing.evm.node import NodeCall, NodeFailure
from farthing.evm.reverts import read_revert
from farthing.mechanisms.exact_evm import reasons
from farthing.mechanisms.exact_evm.payload import ExactDetail
from farthing.mechanisms.exact_evm.wallets import WalletPayment, describe_code
from farthing.mechanisms.interface import Refusal, SignedPayment

# JSON-RPC code of a revert (geth, anvil, Erigon, Reth), and the words of nodes that use another.
_REVERTED_CODE = 3
_VM_WORDS = ("revert", "invalid opcode")
# Nethermind says "VM execution error." and writes its data as "Reverted 0x…".
_NETHERMIND = "Reverted "

# What a token says when the balance or the nonce is at fault. Where the same batch says that it isn't, the node
# contradicts itself.
_BALANCE_OR_NONCE_WORDS = ("exceeds balance", "insufficientbalance", "is used", "alreadyused", "usedorcanceled")

# What tokens say of a signature: USDC and its descendants, OpenZeppelin's ECDSA, Bridged USDC's custom errors.
_SIGNATURE_WORDS = ("invalid signature", "invalidsignature", "signermismatch")

# Gas for simulating what may be a stranger's code (an account may delegate to it): several times what is ever paid
# for, and a bound on what a node does for junk.
SIMULATED_GAS_MAX: Final = 2_000_000
# What geth, Erigon, Nethermind and anvil say where that is too little.
_GAS_WORDS = ("out of gas", "outofgas", "gas required exceeds")

# Gas that a transfer may take beyond the estimate, by a state that changes in between: a quarter.
_GAS_MARGIN_DIVISOR: Final = 4


class ChainFacts(msgspec.Struct, frozen=True):
    """The chain's side of a payment at its latest block. Balance in atomic units, fee in wei; `gas` is 0 if not asked.

    `balance` is None where there is no token contract, `used` None where the contract has no EIP-3009. `deploying` says
    that the simulation deployed the payer's wallet first, `factory_failed` that it tried to and could not.
    """

    code: bytes
    balance: int | None
    used: bool | None
    simulation: NodeFailure | None
    block_number: int
    block_time_seconds: int
    base_fee_wei: int
    gas: int = 0
    deploying: bool = False
    factory_failed: bool = False


def chain_calls(signed: SignedPayment, calldata: bytes, *, sender: str | None, asks_gas: bool) -> tuple[NodeCall, ...]:
    """The batch: chain id, the payer's code, balance, nonce, the simulated payment, the latest block (and the gas)."""
    # The identity is text already: the calls about it are put together from text.
    _, token, payer, nonce = signed.identity.parts
    payer_word = _PAD + payer[2:]
    payment = _request(token, calldata, sender)
    calls = (
        _CHAIN_ID,
        NodeCall("eth_getCode", (payer, "latest")),
        NodeCall("eth_call", ({"to": token, "data": _BALANCE_OF + payer_word}, "latest")),
        NodeCall("eth_call", ({"to": token, "data": _AUTHORIZATION_STATE + payer_word + nonce[2:]}, "latest")),
        NodeCall("eth_call", (payment, "latest")),
        _LATEST_BLOCK,
    )
    return (*calls, NodeCall("eth_estimateGas", (payment,))) if asks_gas else calls


def wallet_calls(signed: SignedPayment, wallet: WalletPayment, *, sender: str | None) -> tuple[NodeCall, ...]:
    """The batch for a signature that is not `from`'s own: always with the gas, and the payment with its deployment.

    Whether the wallet is there shows in the same batch, so that both ways are asked for.
    """
    calls = chain_calls(signed, wallet.call.calldata, sender=sender, asks_gas=True)
    if wallet.deploying is None or wallet.rehearsal is None:
        return calls
    rehearsal, deploying = (_request(each.to, each.calldata, sender) for each in (wallet.rehearsal, wallet.deploying))
    return (*calls, NodeCall("eth_call", (rehearsal, "latest")), NodeCall("eth_estimateGas", (deploying,)))


def _request(to: str, calldata: bytes, sender: str | None) -> dict[str, str]:
    request = {"to": to, "data": write_data(calldata), "gas": _SIMULATED_GAS}
    if sender is not None:
        request["from"] = sender
    return request


_SIMULATED_GAS = hex(SIMULATED_GAS_MAX)


_BALANCE_OF = write_data(BALANCE_OF)
_AUTHORIZATION_STATE = write_data(AUTHORIZATION_STATE)
_PAD = "0" * 24
_CHAIN_ID = NodeCall("eth_chainId")
_LATEST_BLOCK = NodeCall("eth_getBlockByNumber", ("latest", False))
_EMPTY = "0x"


def read_wallet_facts(detail: ExactDetail, answers: tuple[Any, ...], wallet: WalletPayment) -> ChainFacts:
    """Read the answers to `wallet_calls`: those about the deployment count where the payer has no code."""
    answers = tuple(map(_out_of_gas, answers))
    plain, more = answers[:_CALLS_WITH_GAS], answers[_CALLS_WITH_GAS:]
    facts = read_facts(detail, plain, asks_gas=True)
    expected = 0 if wallet.rehearsal is None else 2
    if len(more) != expected:
        message = f"The node sent {len(answers)} answers to {_CALLS_WITH_GAS + expected} calls."
        raise NodeUnavailable(message)
    if facts.code or not more:
        return facts
    factory_failed, simulation = _rehearsed(more[0])
    return msgspec.structs.replace(
        facts, simulation=simulation, gas=_gas(more[1]), deploying=True, factory_failed=factory_failed
    )


def _out_of_gas(answer: Any) -> Any:
    """Take a call that found our bound of gas too small for one that was refused: it is the wallet's doing."""
    if isinstance(answer, NodeFailure) and _says(answer.message, _GAS_WORDS):
        return NodeFailure(_REVERTED_CODE, answer.message)
    return answer


def _rehearsed(answer: Any) -> tuple[bool, NodeFailure | None]:
    """What became of the factory's call, and of the payment after it, as a simulation of its own would have said it."""
    if isinstance(answer, NodeFailure):
        if is_revert(answer):
            return True, answer
        raise NodeUnavailable(_failed(answer))
    if answer == _EMPTY:
        return True, NodeFailure(_REVERTED_CODE, "there is no Multicall3 on this network")
    try:
        results = read_aggregate3(read_data(answer))
    except AbiInvalid as error:
        message = f"The node sent no answer of Multicall3: {error}"
        raise NodeUnavailable(message) from error
    if len(results) != _REHEARSED_CALLS:
        message = f"Multicall3 made {_REHEARSED_CALLS} calls, and the node sent {len(results)} results."
        raise NodeUnavailable(message)
    factory, payment = results
    refused = None if payment.success else NodeFailure(_REVERTED_CODE, "reverted", write_data(payment.return_data))
    return not factory.success, refused


_CALLS = 6
_CALLS_WITH_GAS = 7
_REHEARSED_CALLS = 2


def read_facts(detail: ExactDetail, answers: tuple[Any, ...], *, asks_gas: bool) -> ChainFacts:
    """Read the answers. Raises `NodeUnavailable` where one is missing, broken, or another chain's."""
    expected = _CALLS_WITH_GAS if asks_gas else _CALLS
    if len(answers) != expected:
        message = f"The node sent {len(answers)} answers to {expected} calls."
        raise NodeUnavailable(message)
    # The usual answers are compared as text, without being read: the batch is read for every payment.
    if answers[0] != hex(detail.chain_id):
        _check_chain(detail.chain_id, answers[0])
    code = b"" if answers[1] == _EMPTY else read_data(_result(answers[1]))
    if code:
        answers = tuple(map(_out_of_gas, answers))
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
        code=code,
        balance=_view(answers[2]),
        used=_flag(answers[3]),
        simulation=simulation,
        block_number=read_quantity(block.get("number")),
        block_time_seconds=read_quantity(block.get("timestamp")),
        # A chain without EIP-1559 has none.
        base_fee_wei=read_quantity(block.get("baseFeePerGas", "0x0")),
        gas=_gas(answers[6]) if asks_gas else 0,
    )


def judge_facts(
    detail: ExactDetail, facts: ChainFacts, *, asks_gas: bool, wallet: WalletPayment | None = None
) -> Refusal | None:
    """Judge the payment by the chain. Raises `NodeUnavailable` where the node contradicts itself.

    `wallet` is given where the signature is not that of `from`'s own key.

    A single call that went wrong is never a verdict: insufficient funds takes the balance *and* the refused simulation,
    a used nonce the state *and* the refused simulation (SAFETY F3).
    """
    amount = detail.message.value
    if facts.balance is None:
        return Refusal(reasons.ASSET_NOT_DEPLOYED, "There is no token contract at the asset's address.")
    if facts.used is None:
        return Refusal(reasons.EIP3009_NOT_SUPPORTED, "The token does not answer authorizationState: no EIP-3009.")
    if wallet is not None and not facts.code and not facts.deploying:
        # Nobody is there to judge it. Where the answers disagree, it is another size that gives them away: a signature
        # of 65 bytes that is not `from`'s is no good, whatever the node says.
        if facts.simulation is None and wallet.refusal.reason == reasons.UNDEPLOYED_SMART_WALLET:
            message = (
                "The node simulates a contract's payment and says that there is no contract: its answers disagree."
            )
            raise NodeUnavailable(message)
        return wallet.refusal
    if facts.simulation is not None:
        return _judge_refused_simulation(detail, facts, facts.balance, facts.simulation, wallet)
    # What a deployment does is the factory's business; it may bring the wallet its money.
    if facts.used or (facts.balance < amount and not facts.deploying):
        message = "The node simulates a payment that its own balance or nonce rules out: its answers disagree."
        raise NodeUnavailable(message)
    if asks_gas and facts.gas == 0:
        if facts.code or facts.deploying:
            # Code can tell an estimate from a call: what it does then is no disagreement of the node.
            what = "The payment's gas can't be estimated: it is refused in an estimate and not in a simulation."
            return Refusal(reasons.SIMULATION_FAILED, what)
        message = "The node simulates a payment whose gas it can't estimate: its answers disagree."
        raise NodeUnavailable(message)
    return None


def _judge_refused_simulation(  # noqa: PLR0911 - one return a reason
    detail: ExactDetail, facts: ChainFacts, balance: int, simulation: NodeFailure, wallet: WalletPayment | None
) -> Refusal:
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
    if wallet is not None and facts.factory_failed:
        return Refusal(wallet.refusal.reason, wallet.refusal.message)
    if (facts.code or facts.deploying) and _says(said, _SIGNATURE_WORDS):
        judge = describe_code(facts.code) if facts.code else "what the factory deploys, if it is at `from`,"
        return Refusal(reasons.SIGNATURE, f"The token refuses the signature ({said}): {judge} does not confirm it.")
    if _says(said, _BALANCE_OR_NONCE_WORDS) and not facts.deploying:
        text = f"The node refuses the payment ({said}) and reports balance and nonce in order: its answers disagree."
        raise NodeUnavailable(text)
    return Refusal(reasons.SIMULATION_FAILED, f"The token refuses the payment: {said}")


def _says(said: str, words: tuple[str, ...]) -> bool:
    lower = said.lower()
    return any(word in lower for word in words)


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
