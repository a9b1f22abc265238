"""Structured fields (RFC 9651), read strictly through http-sf and bounded before they are read.

A member that is given twice is refused everywhere: the last one would win by the RFC, and a signature could be read in
two ways by two readers.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias, cast

import http_sf
from http_sf import DisplayString, StructuredFieldError, Token

from farthing.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "FIELD_MAX_CHARS",
    "BareItem",
    "InnerList",
    "Item",
    "Member",
    "Params",
    "SignatureInvalid",
    "Token",
    "parse_dictionary",
    "parse_item",
    "parse_list",
    "serialize",
    "serialize_inner_list",
    "serialize_member",
]

# A Signature-Input of a dozen components has 400 characters; intermediaries refuse headers over some 8 KiB anyway.
FIELD_MAX_CHARS: Final = 8_192

BareItem: TypeAlias = int | float | Decimal | str | bytes | bool | Token | datetime | DisplayString
Params: TypeAlias = dict[str, BareItem]
Item: TypeAlias = tuple[BareItem, Params]
InnerList: TypeAlias = tuple[list[Item], Params]
Member: TypeAlias = Item | InnerList


class SignatureInvalid(RemoteProtocolError):
    """A signature, or what belongs to one, that can't be read or does not say what it must."""


def parse_dictionary(value: str, *, what: str) -> dict[str, Member]:
    """Read a dictionary. Raises `SignatureInvalid` that names `what`."""
    return cast("dict[str, Member]", _parse(value, "dictionary", what))


def parse_list(value: str, *, what: str) -> list[Member]:
    """Read a list. Raises `SignatureInvalid` that names `what`."""
    return cast("list[Member]", _parse(value, "list", what))


def parse_item(value: str, *, what: str) -> Item:
    """Read an item. Raises `SignatureInvalid` that names `what`."""
    return cast("Item", _parse(value, "item", what))


def serialize(structure: object) -> str:
    """Write a dictionary, a list or an item. Raises `LocalProtocolError` for what can't be written."""
    try:
        return http_sf.ser(cast("http_sf.StructuredType", structure))
    except (ValueError, TypeError) as error:
        message = f"a structured field can't be written: {error}"
        raise LocalProtocolError(message) from None


def serialize_member(member: Member) -> str:
    """Write a member's value alone, as `;key=` covers it (RFC 9421, section 2.1.2)."""
    return serialize([member])


def serialize_inner_list(items: list[Item], params: Params) -> str:
    """Write an inner list with its parameters, as `@signature-params` is written."""
    return serialize([(items, params)])


def _parse(value: str, kind: str, what: str) -> object:
    if len(value) > FIELD_MAX_CHARS:
        message = f"{what} has {len(value)} characters; the limit is {FIELD_MAX_CHARS}"
        raise SignatureInvalid(message)

    def refuse_twice(key: str, context: str) -> None:
        message = f"{what}: the {context} {key!r} is given twice"
        raise SignatureInvalid(message)

    try:
        return http_sf.parse(value.encode("ascii"), tltype=kind, on_duplicate_key=refuse_twice)
    except UnicodeEncodeError:
        message = f"{what} holds a character that is not ASCII"
        raise SignatureInvalid(message) from None
    except StructuredFieldError as error:
        message = f"{what} is no structured {kind}: {error}"
        raise SignatureInvalid(message) from None
