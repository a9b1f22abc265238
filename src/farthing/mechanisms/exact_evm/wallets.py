"""Payers with code: contract wallets (EIP-1271), undeployed ones (ERC-6492), accounts that delegate code (EIP-7702).

How a payment is submitted follows from the payment alone, so that the call that was simulated is the one that is sent,
after a crash too:

    the 65 bytes are those of `from`'s own key    the overload with (v, r, s)
    anything else                                 the overload with bytes: the token asks the payer's code
    wrapped, by a factory that is allowed         Multicall3: the factory's call, then the overload with bytes

A wrapped signature is taken out of its wrapper first. EIP-7702 accounts sign with their own key, and the token asks the
code that they delegate to: both overloads of USDC do.
"""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.calls import (
    MULTICALL3,
    Call3,
    aggregate3,
    transfer_with_authorization_bytes,
    transfer_with_authorization_vrs,
)
from farthing.evm.counterfactual import WrappedSignature, unwrap_signature
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES, SignatureInvalid, split_signature
from farthing.evm.typed_data import Domain
from farthing.mechanisms.exact_evm import reasons
from farthing.mechanisms.exact_evm.payload import ExactDetail
from farthing.mechanisms.exact_evm.terms import judge_signature
from farthing.mechanisms.interface import Refusal

# EIP-7702: an account that delegates has 23 bytes of code, 0xef0100 and the address whose code runs for it.
_DELEGATION_PREFIX: Final = b"\xef\x01\x00"
_DELEGATION_SIZE_BYTES: Final = 23
_MULTICALL3 = checksum_address(MULTICALL3)


class Submission(msgspec.Struct, frozen=True):
    """A call that settles a payment: the contract's address (EIP-55) and the calldata."""

    to: str
    calldata: bytes


class WalletPayment(msgspec.Struct, frozen=True):
    """A payment whose signature is not that of `from`'s own key, as it may be submitted.

    `call` asks the payer's code. `deploying` makes the factory's call first, and is what is sent where the payer has
    none; `rehearsal` is the same for a simulation, which tells what became of either call. Both are None where no
    deployment comes with the signature, or none that is allowed: `refusal` says what a payer without code is told.
    """

    call: Submission
    refusal: Refusal
    deploying: Submission | None = None
    rehearsal: Submission | None = None


def wallet_payment(detail: ExactDetail, token: str, not_own: Refusal, factories: frozenset[bytes]) -> WalletPayment:
    """Say how a payment is submitted whose signature is not `from`'s own; `not_own` is why it isn't.

    `factories` are those whose calls are made. Raises `SignatureInvalid` for a broken wrapper.
    """
    signature, wrapped = _unwrapped(detail)
    call = Submission(token, transfer_with_authorization_bytes(detail.message, signature))
    if wrapped is not None and wrapped.deploys:
        return _deployable(call, wrapped, factories)
    if len(detail.signature) == SIGNATURE_SIZE_BYTES:
        return WalletPayment(call, not_own)
    what = (
        f"The signature has {len(detail.signature)} bytes, which only a contract wallet can judge, and `from` has no "
        "code. If the wallet is not deployed, its signature must bring the deployment (ERC-6492)."
    )
    return WalletPayment(call, Refusal(reasons.UNDEPLOYED_SMART_WALLET, what))


def settling_submission(detail: ExactDetail, token: str, factories: frozenset[bytes]) -> Submission:
    """Give the call that settles a verified payment, by what the payment itself says."""
    if _is_own(detail):
        return Submission(token, transfer_with_authorization_vrs(detail.message, detail.signature))
    signature, wrapped = _unwrapped(detail)
    call = Submission(token, transfer_with_authorization_bytes(detail.message, signature))
    if wrapped is None or not wrapped.deploys or detail.deployed:
        return call
    return _deployable(call, wrapped, factories).deploying or call


def _is_own(detail: ExactDetail) -> bool:
    """Tell whether `from`'s own key signed.

    An offer without the token's EIP-712 names leaves nothing to recover a signer with; then a signature that could be
    an account's is taken for one, which makes no difference to USDC.
    """
    if len(detail.signature) != SIGNATURE_SIZE_BYTES:
        return False
    if detail.name is None or detail.version is None:
        return _could_be_an_accounts(detail.signature)
    domain = Domain(detail.name, detail.version, detail.chain_id, detail.token)
    return judge_signature(detail, domain) is None


def _unwrapped(detail: ExactDetail) -> tuple[bytes, WrappedSignature | None]:
    wrapped = unwrap_signature(detail.signature)
    return (detail.signature, None) if wrapped is None else (wrapped.signature, wrapped)


def _deployable(call: Submission, wrapped: WrappedSignature, factories: frozenset[bytes]) -> WalletPayment:
    factory = checksum_address(wrapped.factory)
    if wrapped.factory not in factories:
        what = (
            f"The wallet is not deployed, and the factory {factory} that would deploy it is not among those that this "
            "facilitator calls. Deploy the wallet first, or pay from another account."
        )
        return WalletPayment(call, Refusal(reasons.FACTORY_NOT_ALLOWED, what))
    # The factory may fail: somebody may have deployed the wallet in between. The transfer must not.
    deploy = Call3(wrapped.factory, wrapped.factory_calldata)
    pay = Call3(parse_address(call.to), call.calldata)
    what = f"The wallet is not deployed, and the call of the factory {factory} fails."
    return WalletPayment(
        call,
        Refusal(reasons.SMART_WALLET_DEPLOYMENT_FAILED, what),
        Submission(_MULTICALL3, aggregate3((deploy, msgspec.structs.replace(pay, allow_failure=False)))),
        Submission(_MULTICALL3, aggregate3((deploy, pay))),
    )


def describe_code(code: bytes) -> str:
    """Name what judges the payer's signatures."""
    if len(code) == _DELEGATION_SIZE_BYTES and code.startswith(_DELEGATION_PREFIX):
        delegate = checksum_address(code[len(_DELEGATION_PREFIX) :])
        return f"the code at {delegate}, to which the payer delegates (EIP-7702),"
    return "the payer's contract (EIP-1271)"


def _could_be_an_accounts(signature: bytes) -> bool:
    try:
        split_signature(signature)
    except SignatureInvalid:
        return False
    return True
