"""What a mechanism is: one scheme on one kind of network, with up to three faces.

The parties (buyer, seller, facilitator) know mechanisms by these interfaces alone; `docs/adding-a-mechanism.md` walks
through them. A face does no I/O: what needs the outside is a flow.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from farthing.evm.node import NodeCall
from farthing.flow import Flow
from farthing.protocol.clearing import Signed
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, VerifyResponse


class SignedPayment(msgspec.Struct, frozen=True, gc=False):
    """A payment as its mechanism reads it: the identity that can be spent once and all that was signed.

    `fingerprint` is the SHA-256, in hex, of all that was signed, with the signature. Amount in atomic units, times in
    Unix seconds; addresses as EIP-55. `detail` is the mechanism's own parsed payload.
    """

    identity: PaymentIdentity
    fingerprint: str
    payer: str
    pay_to: str
    asset: str
    network: str
    amount: int
    valid_after: int
    valid_before: int
    detail: Any = None

    @property
    def payment_id(self) -> str:
        """The payment id, which both sides can compute."""
        return self.identity.payment_id


class Refusal(msgspec.Struct, frozen=True):
    """A verdict against a payment: the protocol's reason code, and words for a person."""

    reason: str
    message: str


class PreparedPayment(msgspec.Struct, frozen=True):
    """What a buyer's face made: the scheme's `payload` struct, and the payment as the other side will read it."""

    payload: msgspec.Struct
    signed: SignedPayment


class RequestToBind(msgspec.Struct, frozen=True):
    """The request that a payment goes with; `body_digest` is its body's SHA-256 in hex, empty where it has none."""

    method: str
    url: str
    body_digest: str = ""


class BoundPayment(msgspec.Struct, frozen=True):
    """A payment that is signed together with its request: header lines to send beside the payment's own.

    `signed` is what the other side will read; `evidence` what proves it later, and `promise_id` its id there.
    """

    headers: tuple[tuple[str, str], ...]
    signed: SignedPayment
    evidence: Signed
    promise_id: str


@runtime_checkable
class BindsRequest(Protocol):
    """What a buyer's face has beside the others where the request itself is signed (payments on credit)."""

    @property
    def payer(self) -> str:
        """Who pays by this face: not the account of the buyer's signer."""
        ...

    def bind(
        self, prepared: PreparedPayment, offer: PaymentRequirements, request: RequestToBind, *, payment_header: str
    ) -> Flow[BoundPayment]:
        """Sign the request with the payment header that it will carry; yields the effect of its signature."""
        ...


class BuyerMechanism(Protocol):
    """The buyer's face: says which offers it can pay, and makes the payload."""

    @property
    def scheme(self) -> str:
        """The scheme's name on the wire."""
        ...

    @property
    def network(self) -> str:
        """The CAIP-2 network, or a pattern like `eip155:*`."""
        ...

    def passes_over(self, requirements: PaymentRequirements) -> str | None:
        """Say why this offer can't be paid by this mechanism (its `extra` too), or None where it can."""
        ...

    def pay(self, requirements: PaymentRequirements, *, payer: str, nonce: bytes | None) -> Flow[PreparedPayment]:
        """Make and sign the payload; yields `Now`, `RandomBytes` (where `nonce` is None) and `SignTypedData`."""
        ...


class SellerMechanism(Protocol):
    """The seller's face: completes the requirements at start-up, and reads a payment without asking anybody."""

    @property
    def scheme(self) -> str:
        """The scheme's name on the wire."""
        ...

    @property
    def network(self) -> str:
        """The CAIP-2 network, or a pattern like `eip155:*`."""
        ...

    def complete(self, requirements: PaymentRequirements) -> PaymentRequirements:
        """Add what buyers need in `extra` (for `exact` on EVM: the token's EIP-712 name and version).

        Raises `ConfigError` for an asset, payee or network that can't be used.
        """
        ...

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the scheme's payload: identity and fingerprint; nothing is judged yet.

        Raises `RemoteProtocolError` with the JSON path of the field at fault.
        """
        ...

    def check(self, signed: SignedPayment, requirements: PaymentRequirements, *, now_seconds: int) -> Refusal | None:
        """Judge what needs nobody: amount, payee, asset, network, window. None means that nothing speaks against it.

        The signature is not judged here: that of a payer with code is the facilitator's business.
        """
        ...

    def check_signature(self, signed: SignedPayment, requirements: PaymentRequirements) -> Refusal | None:
        """Judge whether the payer's own key signed for these requirements. A refusal says nothing of a payer with code.

        For a seller whose facilitator does not say whom its verdict is about; and to tell offers apart that a payment
        fits which does not say what it accepts.
        """
        ...


class Spent(msgspec.Struct, frozen=True):
    """Evidence that the right was spent as signed: its event and the matching transfer in one transaction."""

    transaction: str
    block_number: int
    block_hash: str
    log_index: int


class SpentOtherwise(msgspec.Struct, frozen=True):
    """Evidence that the right is gone, and not as signed: cancelled, or spent by another transfer.

    `block_number` is None where it was gone before the blocks that were looked through.
    """

    reason: str
    transaction: str = ""
    block_number: int | None = None


class Unspent(msgspec.Struct, frozen=True):
    """Nothing in this transaction, or at this block, has spent the right."""


Evidence: TypeAlias = Spent | SpentOtherwise | Unspent


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """What a node shows of a right, judged at a finalised block, so that no reorganisation takes it back.

    `verdict`: `settled` (spent as signed: its event and the matching transfer), `not_settled` (it can't be any more:
    cancelled, spent otherwise, or unused past its window) or `open` (neither is shown). `block_number` is the block of
    the transaction, else the finalised block that was looked at.
    """

    verdict: Literal["settled", "not_settled", "open"]
    says: str
    transaction: str = ""
    block_number: int | None = None
    block_hash: str = ""
    log_index: int | None = None


class Tracer(Protocol):
    """A face for whoever must find out what became of a payment, by a node alone."""

    @property
    def scheme(self) -> str:
        """The scheme's name on the wire."""
        ...

    @property
    def network(self) -> str:
        """The CAIP-2 network, or a pattern like `eip155:*`."""
        ...

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the scheme's payload. Raises `RemoteProtocolError` with the JSON path."""
        ...

    def trace(self, signed: SignedPayment, *, node: str, recorded_at: int) -> Flow[Traced]:
        """Look for the payment on chain, from when it was put on record (Unix seconds). Yields `AskNode` of `node`.

        Raises `NodeUnavailable` where the node does not answer, or contradicts itself.
        """
        ...


class Verification(msgspec.Struct, frozen=True):
    """What a facilitator's face found: the verdict for the wire, and what the settlement needs to know of the chain.

    `gas_limit` is 0 where the gas wasn't asked for. `alone` says that the payer has code (EIP-1271, ERC-6492,
    EIP-7702): such a payment shares its transaction with no other, under a gas cap of its own. `signed` is what the
    settlement is built from: the payment as it was read, with what was found out about the payer.
    """

    response: VerifyResponse
    signed: SignedPayment | None = None
    block_number: int = 0
    block_time_seconds: int = 0
    base_fee_wei: int = 0
    gas_limit: int = 0
    alone: bool = False


class FacilitatorMechanism(Protocol):
    """The facilitator's face: verifies against the chain, builds the settling call, judges evidence."""

    @property
    def scheme(self) -> str:
        """The scheme's name on the wire."""
        ...

    @property
    def network(self) -> str:
        """The CAIP-2 network, or a pattern like `eip155:*`."""
        ...

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the scheme's payload. Raises `RemoteProtocolError` with the JSON path."""
        ...

    def verify(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, settling: bool = False
    ) -> Flow[Verification]:
        """Judge a payment in one batched round trip (yields `Now` and one `AskNode`).

        `settling` asks, in the same batch, for what the transaction needs too (fees). Raises `NodeUnavailable`.
        """
        ...

    def settlement_call(self, signed: SignedPayment) -> tuple[str, bytes]:
        """Give the contract to call and its calldata."""
        ...

    def judge_receipt(self, signed: SignedPayment, receipt: dict[str, Any]) -> Evidence:
        """Judge one transaction receipt (`eth_getTransactionReceipt`'s JSON) by its logs."""
        ...

    def evidence_calls(self, signed: SignedPayment, *, from_block: int) -> tuple[NodeCall, ...]:
        """Give the calls (one batch) that find out whether and by which transaction the right was spent."""
        ...

    def judge_evidence(self, signed: SignedPayment, answers: tuple[Any, ...]) -> Evidence:
        """Judge the answers to `evidence_calls`, in their order. Raises `NodeUnavailable` where they are no answers."""
        ...
