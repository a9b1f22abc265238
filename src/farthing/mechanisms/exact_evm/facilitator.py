"""The facilitator's face of `exact` on EVM: verification in one batched round trip, the settling call, evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from farthing.errors import ConfigError
from farthing.evm.addresses import AddressInvalid, parse_address
from farthing.evm.calls import transfer_with_authorization_vrs
from farthing.evm.node import AskNode, NodeCall
from farthing.evm.signatures import SignatureInvalid
from farthing.flow import Now
from farthing.mechanisms.exact_evm import evidence, reasons
from farthing.mechanisms.exact_evm.chain import (
    chain_calls,
    judge_facts,
    read_facts,
    read_wallet_facts,
    wallet_calls,
)
from farthing.mechanisms.exact_evm.payload import NETWORKS, SCHEME, ExactDetail, read_payment
from farthing.mechanisms.exact_evm.terms import (
    SKEW_SUSPECTED_SECONDS,
    Terms,
    judge_signature,
    judge_terms,
    judge_window,
    read_terms,
    settlement_margin_seconds,
)
from farthing.mechanisms.exact_evm.wallets import WalletPayment, settling_submission, wallet_payment
from farthing.mechanisms.interface import Evidence, Refusal, SignedPayment, Verification
from farthing.networks import KNOWN, Networks
from farthing.protocol.messages import VerifyResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from farthing.flow import Flow
    from farthing.protocol.messages import PaymentPayload, PaymentRequirements

# Beyond this a host's clock and the chain's latest block are said to differ: slow chains and missed slots stay below.
CLOCK_SKEW_SECONDS: Final = 300


class ExactEvmFacilitator:
    """Verifies and settles `exact` payments on EIP-155 networks by EIP-3009.

    `networks` knows the tokens; `sender` is the address that simulations and gas estimates are made as (the hot
    wallet's), the zero address where it is None. `factories` are the contracts, by network, whose calls are made for
    wallets that are not deployed yet (ERC-6492); there are none by default (SAFETY F6).
    """

    scheme: str = SCHEME
    network: str = NETWORKS

    def __init__(
        self,
        networks: Networks = KNOWN,
        *,
        sender: str | None = None,
        factories: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Know the tokens of `networks`, simulate as `sender`, call `factories`.

        Raises `ConfigError` for a factory that is no address.
        """
        self._networks = networks
        self._sender = sender
        self._receipts = evidence.Receipts()
        self._factories = {network: _read_factories(network, listed) for network, listed in (factories or {}).items()}

    def read(self, payment: PaymentPayload) -> SignedPayment:
        """Parse the scheme's payload. Raises `RemoteProtocolError` with the JSON path."""
        return read_payment(payment)

    def verify(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, settling: bool = False
    ) -> Flow[Verification]:
        """Judge a payment: first what needs nobody, then the chain, in one batch (yields `Now` and one `AskNode`).

        `settling` asks for the gas too. Raises `RemoteProtocolError` for a payload that can't be read and
        `NodeUnavailable` where the node gives no verdict; neither is ever a refusal.
        """
        signed = read_payment(payment)
        detail = _detail(signed)
        terms = self._judge_alone(payment, signed, detail, requirements)
        if isinstance(terms, Refusal):
            return _refused(signed, terms)
        # Yielded as they are: an answer's type by `yield from` costs a generator, and this is the hot path.
        now_seconds: int = yield Now()
        window = judge_window(
            detail.message,
            terms,
            now_seconds=now_seconds,
            margin_seconds=settlement_margin_seconds(requirements.network, self._networks),
        )
        if window is not None and _misses_by(detail, terms, now_seconds) > SKEW_SUSPECTED_SECONDS:
            return _refused(signed, window)
        not_own = judge_signature(detail, terms.domain)
        wallet: WalletPayment | None = None
        if not_own is None:
            calldata = transfer_with_authorization_vrs(detail.message, detail.signature)
            calls = chain_calls(signed, calldata, sender=self._sender, asks_gas=settling)
            answers: tuple[Any, ...] = yield AskNode(requirements.network, calls)
            facts = read_facts(detail, answers, asks_gas=settling)
        else:
            try:
                wallet = wallet_payment(detail, signed.asset, not_own, self._allowed(requirements.network))
            except SignatureInvalid as error:
                return _refused(signed, Refusal(reasons.SIGNATURE, str(error)))
            answers = yield AskNode(requirements.network, wallet_calls(signed, wallet, sender=self._sender))
            facts = read_wallet_facts(detail, answers, wallet)
        verdict = window or judge_facts(detail, facts, asks_gas=settling or wallet is not None, wallet=wallet)
        if verdict is not None:
            return _refused(signed, _with_chain_clock(verdict, facts.block_time_seconds - now_seconds))
        if wallet is not None and wallet.deploying is not None and facts.code:
            signed = msgspec.structs.replace(signed, detail=msgspec.structs.replace(detail, deployed=True))
        return Verification(
            VerifyResponse(is_valid=True, payer=signed.payer),
            signed,
            facts.block_number,
            facts.block_time_seconds,
            facts.base_fee_wei,
            facts.gas,
            bool(facts.code) or facts.deploying,
        )

    def settlement_call(self, signed: SignedPayment) -> tuple[str, bytes]:
        """Give the contract and the calldata: see `wallets`."""
        found = settling_submission(_detail(signed), signed.asset, self._allowed(signed.network))
        return found.to, found.calldata

    def judge_receipt(self, signed: SignedPayment, receipt: dict[str, Any]) -> Evidence:
        """Judge one transaction receipt by its logs. Raises `NodeUnavailable` where it is none."""
        return self._receipts.judge(_detail(signed), receipt)

    def evidence_calls(self, signed: SignedPayment, *, from_block: int) -> tuple[NodeCall, ...]:
        """Give the calls (one batch) that find out whether and by which transaction the right was spent."""
        return evidence.evidence_calls(_detail(signed), from_block)

    def judge_evidence(self, signed: SignedPayment, answers: tuple[Any, ...]) -> Evidence:
        """Judge the answers to `evidence_calls`. Raises `NodeUnavailable` where they are none or disagree."""
        return evidence.judge_evidence(_detail(signed), answers)

    def _judge_alone(
        self, payment: PaymentPayload, signed: SignedPayment, detail: ExactDetail, requirements: PaymentRequirements
    ) -> Terms | Refusal:
        """Judge what needs neither clock nor node: scheme, network, asset, payee, amount, the token's EIP-712 names."""
        if payment.accepted.scheme != SCHEME:
            return Refusal(reasons.UNSUPPORTED_SCHEME, f"The payment is for the scheme {payment.accepted.scheme!r}.")
        terms = read_terms(requirements, self._networks)
        if isinstance(terms, Refusal):
            return terms
        return judge_terms(signed, detail, terms, requirements.network) or _judge_names(detail, terms) or terms

    def _allowed(self, network: str) -> frozenset[bytes]:
        return self._factories.get(network, _NO_FACTORIES)


_NO_FACTORIES: Final[frozenset[bytes]] = frozenset()


def _read_factories(network: str, listed: Iterable[str]) -> frozenset[bytes]:
    try:
        return frozenset(parse_address(each) for each in listed)
    except AddressInvalid as error:
        message = f"A wallet factory on {network}: {error}"
        raise ConfigError(message) from None


def _judge_names(detail: ExactDetail, terms: Terms) -> Refusal | None:
    """The names in the accepted offer, where it has them, are those of the requirements.

    They decide which overload settles the payment, so that what is simulated now is what is sent then.
    """
    domain = terms.domain
    if detail.name == domain.name and detail.version == domain.version:
        return None
    if detail.name in {None, domain.name} and detail.version in {None, domain.version}:
        return None
    what = "The payment accepts another EIP-712 name or version in extra than the requirements have."
    return Refusal(reasons.INVALID_PAYMENT_REQUIREMENTS, what)


def _detail(signed: SignedPayment) -> ExactDetail:
    if isinstance(signed.detail, ExactDetail):
        return signed.detail
    message = "The payment was read by another mechanism."
    raise TypeError(message)


def _misses_by(detail: ExactDetail, terms: Terms, now_seconds: int) -> int:
    """How many seconds the window is away from what it should be, by our clock."""
    after, before = detail.message.valid_after, detail.message.valid_before
    return max(after - now_seconds, now_seconds - before, before - now_seconds - terms.max_timeout_seconds)


def _with_chain_clock(refusal: Refusal, difference_seconds: int) -> Refusal:
    """Say so where the chain's latest block and our clock differ: then the clock to be put right may be ours."""
    about_time = refusal.reason in {reasons.VALID_AFTER, reasons.VALID_BEFORE}
    if not about_time or abs(difference_seconds) < CLOCK_SKEW_SECONDS:
        return refusal
    side = "ahead of" if difference_seconds > 0 else "behind"
    what = f" The chain's latest block is {abs(difference_seconds)} s {side} this host's clock (clock skew)."
    return Refusal(refusal.reason, refusal.message + what)


def _refused(signed: SignedPayment, refusal: Refusal) -> Verification:
    response = VerifyResponse(
        is_valid=False, invalid_reason=refusal.reason, invalid_message=refusal.message, payer=signed.payer
    )
    return Verification(response, signed)
