"""What stands in for the rest of the world in a bench: facilitator, chain and store that answer in the process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from bench.purchases import CHAIN_ID, OFFER
from farthing.evm.calls import MULTICALL3, TRANSFER_WITH_AUTHORIZATION_VRS
from farthing.evm.keccak import keccak256
from farthing.evm.logs import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.protocol.facilitator import Outcome, PaymentStatus, Settled
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequirements,
    SettlementResponse,
    SupportedKind,
    SupportedResponse,
    VerifyResponse,
)
from farthing.seller.states import State
from farthing.seller.store import Advance, Claimed, FetchResponse, Known, LookUp, MakeClaim, MarkDelivered

if TYPE_CHECKING:
    from collections.abc import Callable

    from farthing.flow import Effect

TRANSACTION = "0x" + "ab" * 32
# Blocks whose receipts the chain remembers: who waits for one asks at every block, and what the chain keeps is in the
# memory of the process that is measured.
BLOCKS_KEPT = 16


class _Said(msgspec.Struct):
    from_: str = msgspec.field(name="from")


class _Signed(msgspec.Struct):
    authorization: _Said


_signed = msgspec.json.Decoder(_Signed)


class CannedFacilitator:
    """Says yes to everything, and to whom, as all facilitators do."""

    answers_at_once = True

    async def supported(self) -> SupportedResponse:
        """One kind."""
        return SupportedResponse(kinds=(SupportedKind("exact", OFFER.network),))

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        """Yes."""
        del requirements
        return VerifyResponse(is_valid=True, payer=_signed.decode(payment.payload).authorization.from_)

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        """Yes."""
        del payment, idempotency_key
        return Settled(SettlementResponse(success=True, transaction=TRANSACTION, network=requirements.network))

    async def find(self, payment_id: str) -> PaymentStatus | None:
        """Nothing is ever lost here."""
        del payment_id
        return None


class CannedChain:
    """A node in the process: knows rich payers without code, and Multicall3; what it is sent is in the next block.

    A block is made when somebody looks for the latest one and something waits. Its receipts have the logs that the
    token writes, read off the calldata, whether a transaction has one transfer in it or many.
    """

    def __init__(self, *_: object) -> None:
        """Begin at some height."""
        self._height = 21_000_000
        self._waiting: list[str] = []
        self._mined = 0
        self._receipts: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, Callable[[tuple[Any, ...]], Any]] = {
            "eth_chainId": lambda _: hex(CHAIN_ID),
            "eth_getCode": lambda parameters: "0x60" if parameters[0].lower() == _MULTICALL3 else "0x",
            "eth_call": _call,
            "eth_estimateGas": lambda _: "0x15f90",
            "eth_getBlockByNumber": self._block,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionReceipt": lambda parameters: self._receipts.get(parameters[0]),
            "eth_getTransactionCount": lambda _: hex(self._mined),
            "eth_getLogs": lambda _: [],
        }

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handler, for a `Performer`."""
        return {AskNode: self._ask}

    async def aclose(self) -> None:
        """Nothing is open."""

    def _ask(self, effect: AskNode) -> tuple[Any, ...]:
        return tuple([self._one(call) for call in effect.calls])

    def _one(self, call: NodeCall) -> Any:
        answer = self._answers.get(call.method)
        return NodeFailure(-32601, f"no method {call.method}") if answer is None else answer(call.params)

    def _block(self, parameters: tuple[Any, ...]) -> dict[str, str]:
        which = parameters[0]
        if which == "latest" and self._waiting:
            self._mine()
        number = self._height if which in ("latest", "finalized") else int(which, 16)
        return {
            "number": hex(number),
            "hash": _block_hash(number),
            "timestamp": hex(int(time.time())),
            "baseFeePerGas": "0x4c4b40",
        }

    def _send(self, parameters: tuple[Any, ...]) -> str:
        raw: str = parameters[0]
        self._waiting.append(raw)
        return "0x" + keccak256(bytes.fromhex(raw[2:])).hex()

    def _mine(self) -> None:
        self._height += 1
        index = 0
        for raw in self._waiting:
            transaction = "0x" + keccak256(bytes.fromhex(raw[2:])).hex()
            where = {
                "transactionHash": transaction,
                "blockNumber": hex(self._height),
                "blockHash": _block_hash(self._height),
            }
            logs: list[dict[str, Any]] = []
            at = raw.find(_TRANSFER)
            while at >= 0:
                at += len(_TRANSFER)
                payer, payee, value, _, _, nonce = ("0x" + raw[at + 64 * n : at + 64 * n + 64] for n in range(6))
                for topics, data in (([_USED, payer, nonce], "0x"), ([_MOVED, payer, payee], value)):
                    logs.append(
                        {"address": OFFER.asset, "topics": topics, "data": data, "logIndex": hex(index), **where}
                    )
                    index += 1
                at = raw.find(_TRANSFER, at)
            gas = {"status": "0x1", "gasUsed": "0x15f90", "effectiveGasPrice": "0x4c4b40"}
            self._receipts[transaction] = {**where, **gas, "logs": logs}
        self._mined += len(self._waiting)
        self._waiting.clear()
        oldest = self._height - BLOCKS_KEPT
        self._receipts = {each: it for each, it in self._receipts.items() if int(it["blockNumber"], 16) > oldest}


_TRANSFER = TRANSFER_WITH_AUTHORIZATION_VRS.hex()
_USED, _MOVED = "0x" + AUTHORIZATION_USED_TOPIC.hex(), "0x" + TRANSFER_TOPIC.hex()
_MULTICALL3 = "0x" + MULTICALL3.hex()
_BALANCE_SELECTOR = "0x70a08231"
_STATE_SELECTOR = "0xe94a0102"
_RICH, _UNUSED = "0x" + (10**9).to_bytes(32, "big").hex(), "0x" + bytes(32).hex()


def _call(parameters: tuple[Any, ...]) -> str:
    selector = parameters[0]["data"][:10]
    if selector == _BALANCE_SELECTOR:
        return _RICH
    return _UNUSED if selector == _STATE_SELECTOR else "0x"


def _block_hash(number: int) -> str:
    return f"0x{number:064x}"


class MemoryStore:
    """The seller's store as a table in memory: what the flows cost without a disk. It survives nothing."""

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: dict[str, tuple[State, int]] = {}

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers, for a `Performer`."""
        return {
            LookUp: self._look_up,
            MakeClaim: self._claim,
            Advance: self._advance,
            FetchResponse: lambda _: None,
            MarkDelivered: self._delivered,
        }

    def _look_up(self, effect: LookUp) -> Known | None:
        assert effect.payment_id not in self._rows, "each payment of a bench is new"
        return None

    def _claim(self, effect: MakeClaim) -> Claimed:
        self._rows[effect.claim.payment_id] = (effect.claim.state, 1)
        return Claimed(1)

    def _advance(self, effect: Advance) -> bool:
        if self._rows.get(effect.payment_id) != (effect.source, effect.epoch):
            return False
        self._rows[effect.payment_id] = (effect.target, effect.epoch)
        return True

    def _delivered(self, effect: MarkDelivered) -> None:
        self._rows[effect.payment_id] = (State.DELIVERED, effect.epoch)
