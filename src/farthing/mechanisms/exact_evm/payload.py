"""The scheme's `payload` and `extra`, parsed at the door into structs of their own.

On the wire an authorisation is text; behind `read_payment` it is bytes and integers, checked.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.evm.abi import UINT256_MAX
from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address, read_address
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES
from farthing.evm.typed_data import TransferWithAuthorization
from farthing.mechanisms.interface import SignedPayment
from farthing.networks import eip155_chain_id
from farthing.protocol.codec import decode_with
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.messages import Message, PaymentPayload

SCHEME: Final = "exact"
# The face serves every EIP-155 network; what it knows of one stands in `farthing.networks`.
NETWORKS: Final = "eip155:*"
IDENTITY_KIND: Final = "eip3009"
TRANSFER_METHOD: Final = "eip3009"

# 65 bytes for an account's signature. A contract's (EIP-1271, ERC-6492 with its factory call) is a few kilobytes at
# most; the header's own bound allows hardly more.
SIGNATURE_MAX_BYTES: Final = 4096
_SIGNATURE_MAX_CHARS = 2 + 2 * SIGNATURE_MAX_BYTES

# Payments under way that are remembered as they were read: a megabyte or two. Larger ones are read each time.
_REMEMBERED_MAX: Final = 1_024
_REMEMBERED_MAX_BYTES: Final = 1_024

_HEX_PREFIX_CHARS = 2
_NONCE_CHARS = 66
# Two spellings of v are one signature (27 and 28, or 0 and 1), so that they have one fingerprint.
_V_OFFSET = 27

# Plain ASCII digits, as amounts are; the pattern bounds the size, `_read_uint` the value.
_Uint = Annotated[str, msgspec.Meta(pattern=r"\A(?:0|[1-9][0-9]{0,77})\Z")]
_Hex = Annotated[str, msgspec.Meta(max_length=_SIGNATURE_MAX_CHARS)]


class ExactAuthorization(Message, frozen=True):
    """The EIP-3009 authorisation on the wire: everything is text, times are Unix seconds, `value` is atomic units."""

    from_: _Hex = msgspec.field(name="from")
    to: _Hex
    value: _Uint
    valid_after: _Uint
    valid_before: _Uint
    nonce: _Hex


class ExactPayload(Message, frozen=True):
    """The scheme's `payload`: the signature (`0x…`) and what it signs."""

    signature: _Hex
    authorization: ExactAuthorization


class ExactExtra(msgspec.Struct, frozen=True, rename="camel"):
    """What the scheme reads in `extra`: the token's EIP-712 name and version, and how it is paid."""

    name: str | None = None
    version: str | None = None
    asset_transfer_method: str = TRANSFER_METHOD


class ExactDetail(msgspec.Struct, frozen=True, gc=False):
    """A payment as this mechanism works with it; `SignedPayment.detail`.

    `name` and `version` are the token's EIP-712 names as the accepted offer has them, None where it has none.
    `deployed` says that a wallet whose signature brings its own deployment (ERC-6492) was found to be there already.
    """

    chain_id: int
    token: bytes
    message: TransferWithAuthorization
    signature: bytes
    name: str | None = None
    version: str | None = None
    deployed: bool = False


_decoder = msgspec.json.Decoder(ExactPayload)


def read_payment(payment: PaymentPayload) -> SignedPayment:
    """Parse a payment's scheme payload; nothing is judged yet.

    Raises `RemoteProtocolError` with the JSON path of the field at fault.
    """
    accepted = payment.accepted
    extra = accepted.extra or {}
    name, version = extra.get("name"), extra.get("version")
    terms = (
        accepted.network,
        accepted.asset,
        name if isinstance(name, str) else None,
        version if isinstance(version, str) else None,
    )
    raw = bytes(payment.payload)
    return _read_again(raw, *terms) if len(raw) <= _REMEMBERED_MAX_BYTES else _read(raw, *terms)


def _read(raw: bytes, network: str, asset: str, name: str | None, version: str | None) -> SignedPayment:
    chain_id = eip155_chain_id(network)
    if chain_id is None:
        message = f"{network!r} is no eip155 network"
        raise RemoteProtocolError(message, path="$.accepted.network")
    wire = decode_with(_decoder, msgspec.Raw(raw), what="payload", at="$.payload")
    said = wire.authorization
    try:
        token = parse_address(asset)
    except AddressInvalid as error:
        raise RemoteProtocolError(str(error), path="$.accepted.asset") from None
    try:
        from_, payer = read_address(said.from_)
    except AddressInvalid as error:
        raise RemoteProtocolError(str(error), path="$.payload.authorization.from") from None
    try:
        to = parse_address(said.to)
    except AddressInvalid as error:
        raise RemoteProtocolError(str(error), path="$.payload.authorization.to") from None
    authorization = TransferWithAuthorization(
        from_,
        to,
        _read_uint(said.value, "value"),
        _read_uint(said.valid_after, "validAfter"),
        _read_uint(said.valid_before, "validBefore"),
        _read_nonce(said.nonce),
    )
    detail = ExactDetail(chain_id, token, authorization, _read_signature(wire.signature), name, version)
    return signed_payment(network, detail, payer=payer)


# A seller and a facilitator in one process read each payment four times on its way; what was read never changes.
_read_again = lru_cache(maxsize=_REMEMBERED_MAX)(_read)


def signed_payment(network: str, detail: ExactDetail, *, payer: str | None = None) -> SignedPayment:
    """Name a payment: identity, fingerprint, and what everybody asks of it.

    `payer` is the EIP-55 text of `from`, where the caller has it already.
    """
    message = detail.message
    payer = payer or checksum_address(message.from_)
    token = "0x" + detail.token.hex()
    return SignedPayment(
        identity=PaymentIdentity(IDENTITY_KIND, (network, token, payer.lower(), "0x" + message.nonce.hex())),
        fingerprint=_fingerprint(network, detail),
        payer=payer,
        pay_to=checksum_address(message.to),
        asset=checksum_address(detail.token),
        network=network,
        amount=message.value,
        valid_after=message.valid_after,
        valid_before=message.valid_before,
        detail=detail,
    )


def write_payload(detail: ExactDetail) -> ExactPayload:
    """Write a payment as the wire has it."""
    message = detail.message
    return ExactPayload(
        signature="0x" + detail.signature.hex(),
        authorization=ExactAuthorization(
            from_=checksum_address(message.from_),
            to=checksum_address(message.to),
            value=str(message.value),
            valid_after=str(message.valid_after),
            valid_before=str(message.valid_before),
            nonce="0x" + message.nonce.hex(),
        ),
    )


def _fingerprint(network: str, detail: ExactDetail) -> str:
    """Hash all that was signed, with the signature. Every member but the last has a fixed size or an end mark."""
    message = detail.message
    signature = detail.signature
    if len(signature) == SIGNATURE_SIZE_BYTES and signature[64] < _V_OFFSET:
        signature = signature[:64] + bytes((signature[64] + _V_OFFSET,))
    return hashlib.sha256(network.encode() + b"\x00" + detail.token + message.words() + signature).hexdigest()


def _read_uint(text: str, name: str) -> int:
    number = int(text)
    if number > UINT256_MAX:
        message = f"{name} is over 2^256 - 1"
        raise RemoteProtocolError(message, path=f"$.payload.authorization.{name}")
    return number


def _read_nonce(text: str) -> bytes:
    nonce = _hex(text) if len(text) == _NONCE_CHARS else None
    if nonce is None:
        message = "a nonce is 0x and 64 hexadecimal digits"
        raise RemoteProtocolError(message, path="$.payload.authorization.nonce")
    return nonce


def _read_signature(text: str) -> bytes:
    signature = _hex(text)
    if signature is None:
        message = "a signature is 0x and two hexadecimal digits a byte"
        raise RemoteProtocolError(message, path="$.payload.signature")
    return signature


def _hex(text: str) -> bytes | None:
    if not text.startswith(("0x", "0X")):
        return None
    try:
        data = bytes.fromhex(text[_HEX_PREFIX_CHARS:])
    except ValueError:
        return None
    # bytes.fromhex passes over white space; the size tells.
    return data if 2 * len(data) == len(text) - _HEX_PREFIX_CHARS else None
