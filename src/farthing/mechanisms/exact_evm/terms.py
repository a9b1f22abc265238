"""The terms of an offer, and whether a payment meets them: what seller and facilitator judge alike, without a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from farthing.evm.addresses import ZERO_ADDRESS, AddressInvalid, parse_address
from farthing.evm.signatures import SignatureInvalid, recover_address
from farthing.evm.typed_data import Domain, TypedDataInvalid
from farthing.mechanisms.exact_evm import reasons
from farthing.mechanisms.exact_evm.payload import SCHEME, TRANSFER_METHOD, ExactDetail, ExactExtra
from farthing.mechanisms.interface import Refusal, SignedPayment
from farthing.networks import EIP3009, Networks, eip155_chain_id

if TYPE_CHECKING:
    from farthing.evm.typed_data import TransferWithAuthorization
    from farthing.protocol.messages import PaymentRequirements

# The least that a settlement takes: six seconds in the official packages, and never less than two blocks.
SETTLEMENT_MARGIN_SECONDS: Final = 6
_MARGIN_BLOCKS = 2

# How much longer than `maxTimeoutSeconds` a window may last by our clock: a payer's clock that is a little fast, and
# the way of the request. A longer window is refused, since the payment could be taken long after it was forgotten.
WINDOW_SLACK_SECONDS: Final = 300

# Up to a quarter of an hour a window that misses the present is more likely a wrong clock than an old payment.
SKEW_SUSPECTED_SECONDS: Final = 900


class Terms(msgspec.Struct, frozen=True):
    """An offer as this mechanism works with it."""

    chain_id: int
    token: bytes
    pay_to: bytes
    amount: int
    max_timeout_seconds: int
    domain: Domain


def read_terms(requirements: PaymentRequirements, networks: Networks) -> Terms | Refusal:
    """Parse an offer's requirements, or say why they can't be met by this mechanism.

    Where our own table knows the token, its EIP-712 name and version must be the offer's: a signature for another
    domain could never be settled.
    """
    chain_id = eip155_chain_id(requirements.network)
    if requirements.scheme != SCHEME or chain_id is None:
        return _another_kind(requirements)
    try:
        extra = msgspec.convert(requirements.extra or {}, ExactExtra)
        token, pay_to = parse_address(requirements.asset), parse_address(requirements.pay_to)
    except (msgspec.ValidationError, AddressInvalid) as error:
        return Refusal(reasons.INVALID_PAYMENT_REQUIREMENTS, f"asset, payTo or extra of the requirements: {error}")
    refusal = _passed_over(extra, pay_to)
    if refusal is not None:
        return refusal
    if extra.name is None or extra.version is None:
        what = "extra of the requirements lacks the token's EIP-712 name or version."
        return Refusal(reasons.MISSING_EIP712_DOMAIN, what)
    domain = Domain(extra.name, extra.version, chain_id, token)
    terms = Terms(chain_id, token, pay_to, requirements.atomic, requirements.max_timeout_seconds, domain)
    return _unlike_our_table(requirements, domain, networks) or terms


class TermsReader:
    """Reads offers, and remembers the last one: a buyer asks twice about one offer, a seller makes the same again.

    Offers are immutable and compared by identity, so that what is remembered is never another's. Safe in threads: the
    pair is replaced as one.
    """

    __slots__ = ("_last", "networks")

    def __init__(self, networks: Networks) -> None:
        """Know the tokens of `networks`."""
        self.networks = networks
        self._last: tuple[PaymentRequirements | None, Terms | Refusal] = (None, Refusal("", ""))

    def read(self, requirements: PaymentRequirements) -> Terms | Refusal:
        """Parse an offer's requirements, as `read_terms`."""
        last, terms = self._last
        if last is not requirements:
            terms = read_terms(requirements, self.networks)
            self._last = (requirements, terms)
        return terms


def _another_kind(requirements: PaymentRequirements) -> Refusal:
    if requirements.scheme != SCHEME:
        return Refusal(reasons.UNSUPPORTED_SCHEME, f"The scheme is {requirements.scheme!r}, not {SCHEME!r}.")
    return Refusal(reasons.INVALID_NETWORK, f"{requirements.network!r} is no eip155 network.")


def _passed_over(extra: ExactExtra, pay_to: bytes) -> Refusal | None:
    if extra.asset_transfer_method != TRANSFER_METHOD:
        what = f"The offer is paid by {extra.asset_transfer_method!r}; here only {TRANSFER_METHOD!r} is."
        return Refusal(reasons.UNSUPPORTED_TRANSFER_METHOD, what)
    if pay_to == ZERO_ADDRESS:
        what = "payTo is the zero address, to which tokens refuse to pay."
        return Refusal(reasons.INVALID_PAYMENT_REQUIREMENTS, what)
    return None


def judge_terms(signed: SignedPayment, detail: ExactDetail, terms: Terms, network: str) -> Refusal | None:
    """Compare what was signed with the offer: network, asset, payee, amount. Each must be equal."""
    message = detail.message
    if signed.network != network or detail.chain_id != terms.chain_id:
        return Refusal(reasons.NETWORK_MISMATCH, f"Signed for {signed.network}, offered on {network}.")
    if detail.token != terms.token:
        what = f"The payment accepts the asset {signed.asset}, which is not the one of the requirements."
        return Refusal(reasons.INVALID_PAYMENT_REQUIREMENTS, what)
    if message.to != terms.pay_to:
        return Refusal(reasons.RECIPIENT_MISMATCH, f"Signed to pay {signed.pay_to}, which is not the offer's payTo.")
    if message.value != terms.amount:
        what = f"Signed for {message.value} atomic units, the offer is {terms.amount}."
        return Refusal(reasons.VALUE_MISMATCH, what)
    return None


def judge_signature(detail: ExactDetail, domain: Domain) -> Refusal | None:
    """Recover the signer of 65 bytes and compare it with `from`.

    What is not `from`'s own may still be good: where `from` is a contract, its code judges (EIP-1271). That is known
    to a node alone: see `wallets`.
    """
    try:
        signer = recover_address(detail.message.digest(domain), detail.signature)
    except (SignatureInvalid, TypedDataInvalid) as error:
        return Refusal(reasons.SIGNATURE, str(error))
    if signer != detail.message.from_:
        what = "The signature is not that of `from` under the token's EIP-712 domain on this network."
        return Refusal(reasons.SIGNATURE, what)
    return None


def settlement_margin_seconds(network: str, networks: Networks) -> int:
    """How long a window must still be open for a settlement to fit in."""
    known = networks.find(network)
    if known is None:
        return SETTLEMENT_MARGIN_SECONDS
    blocks = -(-_MARGIN_BLOCKS * known.block_time_milliseconds // 1000)
    return max(SETTLEMENT_MARGIN_SECONDS, blocks)


def judge_window(
    message: TransferWithAuthorization, terms: Terms, *, now_seconds: int, margin_seconds: int
) -> Refusal | None:
    """Judge the window by our clock: open now, long enough to settle in, not open for longer than was asked.

    The codes are the protocol's; a window that misses the present by minutes is reported as clock skew in words
    (SAFETY F8).
    """
    after, before = message.valid_after, message.valid_before
    if after > now_seconds:
        early = after - now_seconds
        what = f"The window opens in {early} s, at {after}."
        return Refusal(reasons.VALID_AFTER, what + _skew(early, "ahead"))
    if before <= now_seconds:
        late = now_seconds - before
        what = f"The window closed {late} s ago, at {before}."
        return Refusal(reasons.VALID_BEFORE, what + _skew(late, "behind"))
    if before < now_seconds + margin_seconds:
        what = f"The window closes in {before - now_seconds} s; a settlement needs {margin_seconds} s."
        return Refusal(reasons.VALID_BEFORE, what)
    latest = now_seconds + terms.max_timeout_seconds + WINDOW_SLACK_SECONDS
    if before > latest:
        over = before - now_seconds - terms.max_timeout_seconds
        what = f"The window closes {over} s later than maxTimeoutSeconds ({terms.max_timeout_seconds}) allows."
        return Refusal(reasons.VALID_BEFORE, what + _skew(over, "ahead"))
    return None


def _skew(seconds: int, side: str) -> str:
    if seconds > SKEW_SUSPECTED_SECONDS:
        return ""
    return f" If it was signed just now, this is clock skew: the payer's clock is about {seconds} s {side} of ours."


def _unlike_our_table(requirements: PaymentRequirements, domain: Domain, networks: Networks) -> Refusal | None:
    known = networks.token(requirements.network, requirements.asset)
    if known is None:
        return None
    if known.transfer_method != EIP3009:
        what = f"{known.symbol} on {known.network} has no EIP-3009; it is paid by {known.transfer_method}."
        return Refusal(reasons.EIP3009_NOT_SUPPORTED, what)
    if known.eip712_name != domain.name:
        what = f"The token's EIP-712 name is {known.eip712_name!r}, extra says {domain.name!r}."
        return Refusal(reasons.TOKEN_NAME_MISMATCH, what)
    if known.eip712_version != domain.version:
        what = f"The token's EIP-712 version is {known.eip712_version!r}, extra says {domain.version!r}."
        return Refusal(reasons.TOKEN_VERSION_MISMATCH, what)
    return None
