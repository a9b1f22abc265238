"""EIP-712 for the structs that payments use, each hashed by code of its own instead of by a schema.

A struct is packed by hand from words of 32 bytes and hashed once; its type hash and the domain's separator are made
beforehand. `tests/evm/test_typed_data.py` proves every digest against eth-account.

Addresses are 20 bytes, nonces 32 bytes, everything else an `int` that fits a uint256 (amounts in atomic units, times in
Unix seconds).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Final

import msgspec

from farthing.errors import FarthingError
from farthing.evm.addresses import ADDRESS_SIZE_BYTES, checksum_address
from farthing.evm.keccak import keccak256

NONCE_SIZE_BYTES: Final = 32

_WORD = 32
_PAD = bytes(_WORD - ADDRESS_SIZE_BYTES)
_PREFIX = b"\x19\x01"

# A process meets one domain a token; a hostile offer can name any, so that the cache is bounded: some 150 kB.
_SEPARATOR_CACHE_ENTRIES = 512

_DOMAIN_FIELDS = (
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
)


class TypedDataInvalid(FarthingError, ValueError):
    """A value that its EIP-712 type can't hold."""


def _type_hash(name: str, fields: tuple[tuple[str, str], ...]) -> bytes:
    members = ",".join(f"{kind} {member}" for member, kind in fields)
    return keccak256(f"{name}({members})".encode())


_DOMAIN_TYPE_HASH = _type_hash("EIP712Domain", _DOMAIN_FIELDS)


class Domain(msgspec.Struct, frozen=True):
    """The domain of a token's signatures: EIP-712's four usual members.

    A signature made for one domain is worth nothing in another: another chain, another contract.
    """

    name: str
    version: str
    chain_id: int
    verifying_contract: bytes

    def __post_init__(self) -> None:
        """Refuse an address of another size."""
        if len(self.verifying_contract) != ADDRESS_SIZE_BYTES:
            raise TypedDataInvalid(_wrong_size("verifyingContract", ADDRESS_SIZE_BYTES))

    @property
    def separator(self) -> bytes:
        """`hashStruct(eip712Domain)`, 32 bytes; what the contract's `DOMAIN_SEPARATOR()` answers."""
        return _separator(self)

    def to_json(self) -> dict[str, Any]:
        """Write the domain as the JSON form of EIP-712 has it."""
        return {
            "name": self.name,
            "version": self.version,
            "chainId": self.chain_id,
            "verifyingContract": checksum_address(self.verifying_contract),
        }


@lru_cache(maxsize=_SEPARATOR_CACHE_ENTRIES)
def _separator(domain: Domain) -> bytes:
    try:
        name, version = domain.name.encode(), domain.version.encode()
    except UnicodeEncodeError as error:
        # JSON can carry half of a surrogate pair; no contract has such a name.
        message = "The domain's name or version is not Unicode text."
        raise TypedDataInvalid(message) from error
    return keccak256(
        _DOMAIN_TYPE_HASH
        + keccak256(name)
        + keccak256(version)
        + _uint("chainId", domain.chain_id)
        + _PAD
        + domain.verifying_contract
    )


class TypedStruct(msgspec.Struct, frozen=True):
    """What the structs below have in common."""

    primary_type: ClassVar[str]
    fields: ClassVar[tuple[tuple[str, str], ...]]

    def struct_hash(self) -> bytes:
        """`hashStruct(message)`, 32 bytes."""
        raise NotImplementedError

    def digest(self, domain: Domain) -> bytes:
        """The 32 bytes that are signed. Raises `TypedDataInvalid` where a number is no uint256."""
        return keccak256(_PREFIX + _separator(domain) + self.struct_hash())

    def bind(self, domain: Domain) -> BoundMessage:
        """Bind the message to its domain: what a signer takes."""
        return BoundMessage(domain, self)

    def message_json(self) -> dict[str, Any]:
        """Write the members under their EIP-712 names: addresses with checksum, numbers as decimal text."""
        values = (getattr(self, member) for member in self.__struct_fields__)
        return {name: _member_json(kind, value) for (name, kind), value in zip(self.fields, values, strict=True)}


class BoundMessage(msgspec.Struct, frozen=True):
    """An EIP-712 message with its domain (a `TypedMessage` of `farthing.evm.signing`)."""

    domain: Domain
    message: TypedStruct

    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return self.message.digest(self.domain)

    def to_json(self) -> dict[str, Any]:
        """The whole as `eth_signTypedData_v4` takes it: `types`, `primaryType`, `domain`, `message`.

        Numbers of the message are decimal text, since JSON numbers are doubles to many readers.
        """
        return {
            "types": {
                "EIP712Domain": _fields_json(_DOMAIN_FIELDS),
                self.message.primary_type: _fields_json(self.message.fields),
            },
            "primaryType": self.message.primary_type,
            "domain": self.domain.to_json(),
            "message": self.message.message_json(),
        }


_TRANSFER_FIELDS = (
    ("from", "address"),
    ("to", "address"),
    ("value", "uint256"),
    ("validAfter", "uint256"),
    ("validBefore", "uint256"),
    ("nonce", "bytes32"),
)
_TRANSFER_TYPE_HASH = _type_hash("TransferWithAuthorization", _TRANSFER_FIELDS)
_RECEIVE_TYPE_HASH = _type_hash("ReceiveWithAuthorization", _TRANSFER_FIELDS)


class TransferWithAuthorization(TypedStruct, frozen=True):
    """EIP-3009: pay `value` from `from_` to `to`, once, by anybody who submits it, within the window.

    The window is exclusive at both ends: the block's time must be after `valid_after` and before `valid_before`.
    """

    primary_type: ClassVar[str] = "TransferWithAuthorization"
    fields: ClassVar[tuple[tuple[str, str], ...]] = _TRANSFER_FIELDS

    from_: bytes
    to: bytes
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes

    def __post_init__(self) -> None:
        """Refuse members of another size."""
        _check_transfer(self.from_, self.to, self.nonce)

    def words(self) -> bytes:
        """The members as six words: what the struct hash and the arguments of the contract's call are both made of."""
        return _transfer_words(self)

    def struct_hash(self) -> bytes:
        """`hashStruct(message)`, 32 bytes."""
        return keccak256(_TRANSFER_TYPE_HASH + _transfer_words(self))


class ReceiveWithAuthorization(TypedStruct, frozen=True):
    """EIP-3009: as `TransferWithAuthorization`, but only `to` itself may submit it."""

    primary_type: ClassVar[str] = "ReceiveWithAuthorization"
    fields: ClassVar[tuple[tuple[str, str], ...]] = _TRANSFER_FIELDS

    from_: bytes
    to: bytes
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes

    def __post_init__(self) -> None:
        """Refuse members of another size."""
        _check_transfer(self.from_, self.to, self.nonce)

    def words(self) -> bytes:
        """The members as six words: what the struct hash and the arguments of the contract's call are both made of."""
        return _transfer_words(self)

    def struct_hash(self) -> bytes:
        """`hashStruct(message)`, 32 bytes."""
        return keccak256(_RECEIVE_TYPE_HASH + _transfer_words(self))


_CANCEL_FIELDS = (("authorizer", "address"), ("nonce", "bytes32"))
_CANCEL_TYPE_HASH = _type_hash("CancelAuthorization", _CANCEL_FIELDS)


class CancelAuthorization(TypedStruct, frozen=True):
    """EIP-3009: use `nonce` up, so that no authorisation with it can be paid any more."""

    primary_type: ClassVar[str] = "CancelAuthorization"
    fields: ClassVar[tuple[tuple[str, str], ...]] = _CANCEL_FIELDS

    authorizer: bytes
    nonce: bytes

    def __post_init__(self) -> None:
        """Refuse members of another size."""
        _check_address("authorizer", self.authorizer)
        _check_nonce(self.nonce)

    def struct_hash(self) -> bytes:
        """`hashStruct(message)`, 32 bytes."""
        return keccak256(_CANCEL_TYPE_HASH + _PAD + self.authorizer + self.nonce)


_PERMIT_FIELDS = (
    ("owner", "address"),
    ("spender", "address"),
    ("value", "uint256"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
)
_PERMIT_TYPE_HASH = _type_hash("Permit", _PERMIT_FIELDS)


class Permit(TypedStruct, frozen=True):
    """EIP-2612: let `spender` take up to `value` from `owner` until `deadline`; `nonce` counts from zero."""

    primary_type: ClassVar[str] = "Permit"
    fields: ClassVar[tuple[tuple[str, str], ...]] = _PERMIT_FIELDS

    owner: bytes
    spender: bytes
    value: int
    nonce: int
    deadline: int

    def __post_init__(self) -> None:
        """Refuse members of another size."""
        _check_address("owner", self.owner)
        _check_address("spender", self.spender)

    def struct_hash(self) -> bytes:
        """`hashStruct(message)`, 32 bytes."""
        return keccak256(
            _PERMIT_TYPE_HASH
            + _PAD
            + self.owner
            + _PAD
            + self.spender
            + _uint("value", self.value)
            + _uint("nonce", self.nonce)
            + _uint("deadline", self.deadline)
        )


def _transfer_words(message: TransferWithAuthorization | ReceiveWithAuthorization) -> bytes:
    # The hot path of every verification and every purchase: one join.
    try:
        words = (
            _PAD,
            message.from_,
            _PAD,
            message.to,
            message.value.to_bytes(_WORD, "big"),
            message.valid_after.to_bytes(_WORD, "big"),
            message.valid_before.to_bytes(_WORD, "big"),
            message.nonce,
        )
    except OverflowError as error:
        text = "value, validAfter and validBefore are uint256: 0 to 2^256 - 1."
        raise TypedDataInvalid(text) from error
    return b"".join(words)


def _uint(name: str, value: int) -> bytes:
    try:
        return value.to_bytes(_WORD, "big")
    except OverflowError as error:
        message = f"{name} is a uint256: 0 to 2^256 - 1."
        raise TypedDataInvalid(message) from error


def _check_transfer(from_: bytes, to: bytes, nonce: bytes) -> None:
    if len(from_) != ADDRESS_SIZE_BYTES or len(to) != ADDRESS_SIZE_BYTES or len(nonce) != NONCE_SIZE_BYTES:
        message = "from and to have 20 bytes each, nonce has 32."
        raise TypedDataInvalid(message)


def _check_address(name: str, value: bytes) -> None:
    if len(value) != ADDRESS_SIZE_BYTES:
        raise TypedDataInvalid(_wrong_size(name, ADDRESS_SIZE_BYTES))


def _check_nonce(value: bytes) -> None:
    if len(value) != NONCE_SIZE_BYTES:
        raise TypedDataInvalid(_wrong_size("nonce", NONCE_SIZE_BYTES))


def _wrong_size(name: str, size_bytes: int) -> str:
    return f"{name} has {size_bytes} bytes."


def _fields_json(fields: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in fields]


def _member_json(kind: str, value: bytes | int) -> str:
    if isinstance(value, int):
        return str(value)
    return checksum_address(value) if kind == "address" else "0x" + value.hex()
