"""A buyer, a payee and a hot wallet on a real node: what the tests of the facilitator's face on chain share."""

from __future__ import annotations

import itertools
from typing import Any

from eth_utils.crypto import keccak
from exact_evm_desk import payload_of

from farthing.errors import NodeRefused
from farthing.evm.addresses import parse_address
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.evm.signatures import PrivateKey
from farthing.evm.signing import SignTypedData
from farthing.evm.transactions import Transaction
from farthing.flow import Effect, Now, RandomBytes, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmFacilitator
from farthing.mechanisms.interface import PreparedPayment, Verification
from farthing.protocol.messages import PaymentRequirements
from farthing.services.devnet import Devnet

AMOUNT = 10_000
FACE = ExactEvmFacilitator()
_labels = itertools.count()


class Market:
    """A buyer with a dollar, a payee, and a hot wallet, on one node."""

    def __init__(self, devnet: Devnet) -> None:
        self.devnet = devnet
        self.key = PrivateKey(keccak(text=f"exact on chain {next(_labels)}"))
        self.wallet = PrivateKey.from_hex(devnet.accounts[-1][1])
        self.offer = PaymentRequirements(
            scheme="exact",
            network=devnet.network,
            amount=str(AMOUNT),
            asset=devnet.usdc,
            pay_to="0x" + keccak(text=f"payee {next(_labels)}")[:20].hex(),
            max_timeout_seconds=120,
            extra={"name": "USDC", "version": "2"},
        )
        self.batches = 0
        self.from_block = devnet.block_number() + 1

    def ask(self, call: NodeCall) -> Any:
        try:
            return self.devnet.rpc(call.method, *call.params)
        except NodeRefused as error:
            return NodeFailure(error.code, error.message, error.data)

    def perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Now):
            return self.devnet.timestamp()
        if isinstance(effect, RandomBytes):
            return keccak(text=f"nonce {next(_labels)}")
        if isinstance(effect, SignTypedData):
            return self.key.sign_typed_data(effect.message)
        assert isinstance(effect, AskNode)
        self.batches += 1
        return tuple(self.ask(call) for call in effect.calls)

    def pay(self, *, payer: str | None = None, key: PrivateKey | None = None) -> PreparedPayment:
        signer = key or self.key

        def perform(effect: Effect[Any]) -> Any:
            return signer.sign_typed_data(effect.message) if isinstance(effect, SignTypedData) else self.perform(effect)

        return drive(ExactEvmBuyer().pay(self.offer, payer=payer or self.key.address, nonce=None), perform)

    def verify(
        self, made: PreparedPayment, offer: PaymentRequirements | None = None, *, face: ExactEvmFacilitator = FACE
    ) -> Verification:
        offer = offer or self.offer
        return drive(face.verify(payload_of(made.payload, offer), offer, settling=True), self.perform)

    def send(self, to: str, calldata: bytes, gas: int = 200_000, key: PrivateKey | None = None) -> dict[str, Any]:
        sender = key or self.wallet
        nonce = int(self.devnet.rpc("eth_getTransactionCount", sender.address, "latest"), 16)
        transaction = Transaction(
            chain_id=self.devnet.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas=1,
            max_fee_per_gas=10**12,
            gas_limit=gas,
            to=parse_address(to),
            data=calldata,
        )
        signed = transaction.sign(sender)
        assert self.devnet.rpc("eth_sendRawTransaction", "0x" + signed.raw.hex()) == "0x" + signed.hash.hex()
        return self.devnet.wait_for_receipt("0x" + signed.hash.hex())

    def search(self, made: PreparedPayment) -> Any:
        calls = FACE.evidence_calls(made.signed, from_block=self.from_block)
        return FACE.judge_evidence(made.signed, tuple(self.ask(call) for call in calls))
