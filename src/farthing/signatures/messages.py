"""HTTP messages as signatures see them, and the components that a signature may cover (RFC 9421, section 2).

Supported: every derived component of the RFC, fields with `;sf` (of a type that http-sf knows), `;key=`, `;bs` and
`;req`. Not supported: trailers (`;tr`), since no door here sees any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

import http_sf
import msgspec
from http_sf import StructuredFieldError

from farthing.signatures.fields import (
    BareItem,
    Item,
    Params,
    SignatureInvalid,
    parse_dictionary,
    parse_item,
    serialize,
    serialize_member,
)

Fields = Mapping[str, tuple[str, ...]]

# RFC 9110, section 5.2: a folded line counts as one space.
_FOLD: Final = re.compile(r"[ \t]*\r\n[ \t]+")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_FIELD_PARAMS: Final = frozenset({"sf", "key", "bs"})
# A query's parts that are looked through for one name.
_QUERY_PARTS_MAX: Final = 1_000
# RFC 9421, section 2.1.1, leaves types to their registries; http-sf knows those, and not RFC 9530's or the drafts'.
_DICTIONARIES: Final = frozenset({"content-digest", "repr-digest", "signature-agent"})


class HttpRequest(msgspec.Struct, frozen=True, gc=False):
    """A request: `path` and `query` raw as they are sent, `query` with its `?` or empty.

    `authority` as `@authority` has it (`normal_authority`); `fields` by lower-case name, each line by itself
    (`gather_fields`).
    """

    method: str
    authority: str
    path: str
    query: str = ""
    fields: Fields = msgspec.field(default_factory=dict[str, tuple[str, ...]])
    scheme: str = "https"


class HttpResponse(msgspec.Struct, frozen=True):
    """A response, with the request that it answers where `;req` components are to be found."""

    status: int
    fields: Fields
    request: HttpRequest | None = None


HttpMessage = HttpRequest | HttpResponse


class Component(msgspec.Struct, frozen=True):
    """One covered component: its name and its parameters, in their order."""

    name: str
    params: tuple[tuple[str, BareItem], ...] = ()

    @property
    def identifier(self) -> str:
        """The identifier as the signature base has it: `"signature-agent";key="sig"`."""
        return serialize((self.name, dict(self.params)))

    @property
    def identity(self) -> tuple[str, frozenset[tuple[str, BareItem]]]:
        """What makes two of them one: name and parameters in any order."""
        return self.name, frozenset(self.params)


def component(text: str) -> Component:
    """Read a component as a person writes it: `@path`, `date`, or an identifier like `"signature";req;key="sig"`."""
    return component_of(parse_item(text, what="a covered component") if text.startswith('"') else (text, {}))


def component_of(item: Item) -> Component:
    """Make a component of a structured item. Raises `SignatureInvalid` where it is none."""
    name, params = item
    if not isinstance(name, str) or not name or name != name.lower():
        message = f"a covered component is a lower-case string, not {name!r}"
        raise SignatureInvalid(message)
    return Component(name, tuple(params.items()))


def gather_fields(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Gather header lines by lower-case name, in their order. Values are text as Latin-1 decodes it."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        name = name.lower()  # noqa: PLW2901 - names have no case
        found[name] = (*found[name], value) if name in found else (value,)
    return found


def normal_authority(authority: str, scheme: str) -> str:
    """Write an authority as `@authority` has it: lower case, without the scheme's own port (section 2.2.3)."""
    authority = authority.lower()
    port = _DEFAULT_PORTS.get(scheme)
    return authority.removesuffix(port) if port is not None else authority


def field_value(fields: Fields, name: str) -> str | None:
    """A field's value: its lines without outer space, joined by a comma and a space (section 2.1); None without one."""
    lines = fields.get(name)
    if lines is None:
        return None
    return _line(lines[0]) if len(lines) == 1 else ", ".join([_line(line) for line in lines])


def component_value(message: HttpMessage, wanted: Component) -> str:
    """A component's value in this message. Raises `SignatureInvalid` where there is none."""
    params = dict(wanted.params)
    if "req" in params:
        if params.pop("req") is not True or not isinstance(message, HttpResponse) or message.request is None:
            raise _missing(wanted, "`req` is a flag, for answers to a request that is known")
        message = message.request
    derived = wanted.name.startswith("@")
    value = _derived(message, wanted, params) if derived else _field(message.fields, wanted, params)
    if not value.isascii() or "\n" in value or "\r" in value:
        raise _missing(wanted, "its value is not one line of ASCII")
    return value


def _derived(message: HttpMessage, wanted: Component, params: Params) -> str:
    if isinstance(message, HttpResponse):
        if wanted.name == "@status" and not params:
            return str(message.status)
        raise _missing(wanted, "an answer has `@status` alone of its own")
    if wanted.name == "@query-param":
        return _query_param(message, wanted, params)
    read = _DERIVED.get(wanted.name)
    if read is None or params:
        raise _missing(wanted, "there is no such component")
    return read(message)


def _target_uri(request: HttpRequest) -> str:
    # RFC 9110, section 4.2.3: of an OPTIONS request the empty path means the server as a whole.
    path = request.path if request.method == "OPTIONS" else request.path or "/"
    return f"{request.scheme}://{request.authority}{path}{request.query}"


_DERIVED: Final[dict[str, Callable[[HttpRequest], str]]] = {
    "@method": lambda request: request.method,
    "@target-uri": _target_uri,
    "@authority": lambda request: request.authority,
    "@scheme": lambda request: request.scheme,
    "@request-target": lambda request: (request.path or "/") + request.query,
    "@path": lambda request: request.path or "/",
    "@query": lambda request: request.query or "?",
}


def _query_param(request: HttpRequest, wanted: Component, params: Params) -> str:
    name = params.pop("name", None)
    if not isinstance(name, str) or params:
        raise _missing(wanted, "`@query-param` takes one string, `name`")
    try:
        pairs = parse_qsl(request.query[1:], keep_blank_values=True, max_num_fields=_QUERY_PARTS_MAX)
    except ValueError:
        raise _missing(wanted, f"the query has more than {_QUERY_PARTS_MAX} parts") from None
    # Section 2.2.8: name and value are percent-encoded again, and the name is looked for in that form.
    found = [_encoded(value) for each, value in pairs if _encoded(each) == name]
    if len(found) != 1:
        raise _missing(wanted, f"the query has it {len(found)} times")
    return found[0]


def _encoded(text: str) -> str:
    # The percent-encode set of application/x-www-form-urlencoded, with %20 for a space.
    return quote(text, safe="*").replace("~", "%7E")


def _field(fields: Fields, wanted: Component, params: Params) -> str:
    value = field_value(fields, wanted.name)
    if value is None:
        raise _missing(wanted, "the message has no such field")
    if not params:
        if wanted.name == "set-cookie" and len(fields[wanted.name]) > 1:
            raise _missing(wanted, "several cookies are covered with `bs` only")
        return value
    key, flags = params.get("key"), {name for name, each in params.items() if name != "key" and each is True}
    if set(params) - _FIELD_PARAMS or flags != set(params) - {"key"} or ("bs" in flags and len(params) > 1):
        raise _missing(wanted, "its parameters are not supported")
    if "bs" in flags:
        return serialize([_line(line).encode("latin-1") for line in fields[wanted.name]])
    if key is None:
        return _serialized(wanted, value)
    member = parse_dictionary(value, what=wanted.name).get(key) if isinstance(key, str) else None
    if member is None:
        raise _missing(wanted, "the field has no such member")
    return serialize_member(member)


def _serialized(wanted: Component, value: str) -> str:
    if wanted.name in _DICTIONARIES:
        return serialize(parse_dictionary(value, what=wanted.name))
    try:
        return serialize(http_sf.parse(value.encode("ascii"), name=wanted.name))
    except (KeyError, StructuredFieldError, UnicodeEncodeError):
        raise _missing(wanted, "it is no structured field of a known type") from None


def _line(line: str) -> str:
    return _FOLD.sub(" ", line).strip(" \t") if "\r" in line else line.strip(" \t")


def _missing(wanted: Component, why: str) -> SignatureInvalid:
    return SignatureInvalid(f"the signature covers {wanted.name!r}, and {why}")
