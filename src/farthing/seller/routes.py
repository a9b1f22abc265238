"""Routes: which requests have a price. No way of writing a path leads around it (SAFETY S5).

A router may read a path in several ways: with or without the mount's prefix, with slashes merged, escapes decoded once
more, dots resolved, a newline at the end passed over (`$` in Python's `re`), letters folded. The table reads it in all
of them. Where no reading has a price the request is free; where all that have one agree, that is the price; where they
disagree the request is refused, since the application might run a dear handler for a cheap price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias
from urllib.parse import unquote

import msgspec

from farthing.errors import ConfigError
from farthing.evm.signing import Signer
from farthing.seller.pricing import Way
from farthing.seller.states import PaymentFlow, Taking

# Matches nothing.
NEVER: Final = re.compile(r"(?!)")
# Methods that we know how applications treat; anything else on a priced path is refused, not passed on.
KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})
# RFC 9110, section 9.2.1: nothing is changed by repeating them.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
ANY_METHOD: Final = "*"
# Each decoding takes a `%` away at best; a router that decodes more than once more is not known.
_DECODINGS_MAX: Final = 3
# Answers that are remembered, of paths no longer than this: what is asked for is asked for again, and a stranger who
# asks for many others takes some hundred kilobytes.
_REMEMBERED_MAX: Final = 1_024
_REMEMBERED_PATH_MAX_CHARS: Final = 256
# A pattern is written by the owner; this bounds the compiled expression.
_PATTERN_MAX_CHARS: Final = 1_024

# What makes a path read differently by different routers. Nearly no path has any of it.
_ODD = re.compile(r"//|[%\\]|/\.|[\x00-\x20\x7f]|./\Z|\A(?!/)")
_NOT_PRINTED = re.compile(r"[\x00-\x20\x7f]+")
_SLASHES = re.compile(r"/{2,}")
_AUTHORITY = re.compile(r"\A[a-zA-Z][a-zA-Z0-9+.-]*://[^/]*")
# `{name}`, `{name:path}` (Starlette, Litestar), `<name>`, `<path:name>` (Flask); a bare `*` is the rest of the path.
_PARAMETER = re.compile(
    r"\{(?P<name>\w+)(?::(?P<kind>\w+))?\}|<(?:(?P<fkind>\w+)(?:\([^)]*\))?:)?(?P<fname>\w+)>|(?P<star>\*)"
)


class Route(msgspec.Struct, frozen=True, eq=False):
    """A priced route. `where` is the file and line that set the price."""

    methods: frozenset[str]
    pattern: str
    ways: tuple[Way, ...]
    where: str
    payment_flow: PaymentFlow = PaymentFlow.AUTHORIZATION
    description: str = ""
    mime_type: str = ""
    idempotent: bool | None = None
    store_response: bool = True
    shared_cache: bool = False
    payment_identifier: Taking = Taking.OFF
    # Who pays back what was settled and can't be served; None: the seller's own, if it has one.
    refund_signer: Signer | None = None
    # `regex` folds the case of letters, `exact` does not; both are of the same expression.
    regex: re.Pattern[str] = NEVER
    exact: re.Pattern[str] = NEVER
    # How specific the pattern is, greater first: literal characters before parameters before the rest of the path.
    weight: tuple[int, int, int] = (0, 0, 0)
    # What a marked handler is held to: a payment for its own mark.
    mark: object = None

    @property
    def name(self) -> str:
        """The route as it was written."""
        return f"{','.join(sorted(self.methods))} {self.pattern}"

    def takes(self, method: str) -> bool:
        """Tell whether this route prices `method` (HEAD only by its own name)."""
        return method in self.methods or (ANY_METHOD in self.methods and method != "HEAD")

    def repeats_safely(self, method: str) -> bool:
        """Tell whether the handler may be run again after a crash."""
        return method in SAFE_METHODS if self.idempotent is None else self.idempotent


class Free(msgspec.Struct, frozen=True):
    """Nothing to pay here."""


class Priced(msgspec.Struct, frozen=True):
    """`route` has the price; `params` are the values of the pattern's parameters.

    `servable` is False where the offer may be shown but nothing run: HEAD on the route of a GET.
    """

    route: Route
    params: Mapping[str, str]
    servable: bool = True


class Barred(msgspec.Struct, frozen=True):
    """A request that is neither free nor priced: it is refused with `status`, and nothing is run."""

    status: int
    title: str
    detail: str


class Preflight(msgspec.Struct, frozen=True):
    """OPTIONS on a priced path, of which the application's handlers must not hear. `allow` are the priced methods."""

    allow: tuple[str, ...]


Match: TypeAlias = Free | Priced | Barred | Preflight
FREE: Final = Free()


def parse_route(text: str) -> tuple[frozenset[str], str]:
    """Read `"GET /weather/{city}"`, `"GET,POST /x"`, `"* /x"` or `"/x"` (any method). Raises `ConfigError`."""
    methods_text, space, pattern = text.strip().partition(" ")
    if not space:
        methods_text, pattern = ANY_METHOD, methods_text
    methods = frozenset(each.strip().upper() for each in methods_text.split(",") if each.strip())
    pattern = pattern.strip()
    unknown = sorted(methods - KNOWN_METHODS - {ANY_METHOD})
    if unknown or not methods or not pattern.startswith("/") or len(pattern) > _PATTERN_MAX_CHARS:
        message = f"{text!r} is not a route; write it like 'GET /weather/{{city}}' (methods, a space, a path with '/')."
        raise ConfigError(message)
    return methods, pattern


def compile_pattern(pattern: str) -> tuple[str, tuple[int, int, int]]:
    """Turn a route's path into an expression and its weight. The slash at its end makes no difference.

    A parameter takes any text, whatever its kind: `{id:int}` of some router also takes `+5`. Raises `ConfigError`.
    """
    parts: list[str] = []
    literals, singles, rests, position = 0, 0, 0, 0
    text = pattern.rstrip("/") or "/"
    for found in _PARAMETER.finditer(text):
        literal = text[position : found.start()]
        name = found["name"] or found["fname"]
        if found["star"] is not None or "path" in (found["kind"], found["fkind"]):
            group = f"(?P<{name}>.*)" if name else ".*"
            # `/files/{rest:path}` has an empty rest too, and then perhaps no slash.
            parts.append(re.escape(literal[:-1]) + f"(?:/{group})?" if literal.endswith("/") else
                         re.escape(literal) + group)  # fmt: skip
            rests += 1
        else:
            parts.append(re.escape(literal) + f"(?P<{name}>[^/]+)")
            singles += 1
        literals += len(literal)
        position = found.end()
    tail = text[position:]
    parts.append(re.escape(tail))
    literals += len(tail)
    if "{" in tail or "}" in tail:
        message = f"{pattern!r}: a parameter is written '{{name}}' or '{{name:path}}'."
        raise ConfigError(message)
    expression = "".join(parts)
    try:
        re.compile(expression)
    except re.error as error:
        message = f"{pattern!r} is not a path that can be matched: {error}."
        raise ConfigError(message) from error
    return expression, (-rests, literals, -singles)


def readings(path: str, root_path: str = "") -> tuple[str, ...]:
    """Give the ways in which a router may read `path`, the plain one first."""
    if not root_path and _ODD.search(path) is None:
        return (path,)
    found = dict.fromkeys(_under_mount(path, root_path))
    for start in tuple(found):
        for each in _loosened(start):
            found.setdefault(each)
    return tuple(found)


def _under_mount(path: str, root_path: str) -> Iterable[str]:
    """Take the mount's prefix off, as Starlette does, as Litestar does (wherever it stands), and not at all."""
    root = root_path.rstrip("/")
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        yield path[len(root) :] or "/"
    else:
        yield path
    if root_path:
        yield path.split(root_path, maxsplit=1)[-1] or "/"
        yield path


def _loosened(path: str) -> Iterable[str]:
    decoded = path
    for _ in range(_DECODINGS_MAX):
        plain = _AUTHORITY.sub("", _NOT_PRINTED.sub("", decoded)).replace("\\", "/")
        merged = _SLASHES.sub("/", "/" + plain)
        yield merged.rstrip("/") or "/"
        yield _without_dots(merged)
        again = unquote(decoded)
        if again == decoded:
            return
        decoded = again


def _without_dots(path: str) -> str:
    """Resolve `.` and `..` (RFC 3986, section 5.2.4)."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


class RouteTable:
    """All priced routes of a seller. Adding one makes nothing slower but a match."""

    def __init__(self) -> None:
        """Start with no routes: everything is free."""
        self._routes: list[Route] = []
        self._any = NEVER
        self._remembered: dict[tuple[str, str, str], Match] = {}
        # Counts the changes: what somebody else remembers of this table was true at its version.
        self.version = 0

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes, in the order in which they were priced."""
        return tuple(self._routes)

    def add(self, route: Route) -> None:
        """Add a route. Raises `ConfigError` where another one for the same paths and a method is there already."""
        for other in self._routes:
            if _unnamed(other) == _unnamed(route) and route.methods & other.methods:
                message = (
                    f"{route.where}: {route.name} takes the same paths as {other.name}, priced at {other.where}; "
                    "give one of them its price, a callable one where it depends on the parameter."
                )
                raise ConfigError(message)
        self._routes.append(route)
        # One expression says "free" for nearly all requests to unpriced paths.
        every = "|".join(f"(?:{_unnamed(each)})" for each in self._routes)
        self._any = re.compile(every, re.IGNORECASE | re.DOTALL)
        self._remembered.clear()
        self.version += 1

    def is_free(self, path: str, root_path: str = "") -> bool:
        """Tell quickly whether no reading of `path` has a priced route, whatever the method."""
        if not root_path and _ODD.search(path) is None:
            return self._any.fullmatch(path) is None
        return not any(self._any.fullmatch(each) for each in readings(path, root_path))

    def match(self, method: str, path: str, root_path: str = "", *, override: str | None = None) -> Match:
        """Say what a request costs. `override` names the method override that the request carries, if any."""
        if override is not None or len(path) > _REMEMBERED_PATH_MAX_CHARS:
            return self._match(method, path, root_path, override)
        asked = (method, path, root_path)
        found = self._remembered.get(asked)
        if found is None:
            found = self._match(method, path, root_path, None)
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[asked] = found
        return found

    def _match(self, method: str, path: str, root_path: str, override: str | None) -> Match:
        ways = readings(path, root_path)
        at_path = tuple(route for route in self._routes if any(route.regex.fullmatch(way) for way in ways))
        if not at_path:
            return FREE
        method = method.upper()
        if override is not None:
            detail = f"{override} is not taken on a priced path; send the method itself."
            return Barred(400, "Method override on a priced path", detail)
        if method not in KNOWN_METHODS:
            return Barred(405, "Method not allowed", f"{method[:32]!r} is not a method that this path takes.")
        if method == "OPTIONS" and not any("OPTIONS" in each.methods for each in at_path):
            return Preflight(tuple(sorted({each for route in at_path for each in route.methods})))
        sought = method
        if method == "HEAD" and not any("HEAD" in each.methods for each in at_path):
            sought = "GET"
        candidates = tuple(each for each in at_path if each.takes(sought))
        return _choose(candidates, sought, ways, path if root_path else None, servable=sought == method)


def _unnamed(route: Route) -> str:
    return re.sub(r"\(\?P<\w+>", "(?:", route.regex.pattern)


def _choose(
    candidates: tuple[Route, ...], method: str, ways: tuple[str, ...], whole: str | None, *, servable: bool
) -> Match:
    """Let every reading name its route; they must agree. `whole` is the path with the mount's prefix, where one is."""
    chosen: Route | None = None
    params: dict[str, str] = {}
    for way in ways:
        for winner in _winners(candidates, method, way):
            if winner is chosen:
                continue
            if chosen is None:
                chosen = winner
                found = winner.regex.fullmatch(way)
                params = {} if found is None else {key: value or "" for key, value in found.groupdict().items()}
            elif way == whole and winner.weight < chosen.weight:
                # The mount's prefix falls under a wider pattern (`/{rest:path}`): the reading without it stands.
                continue
            else:
                detail = f"The path can be read as {chosen.pattern} and as {winner.pattern}, which have other prices."
                return Barred(400, "Ambiguous path", detail)
    if chosen is None:
        return FREE
    # Several requests share it, and an owner's callable may look at it.
    return Priced(chosen, MappingProxyType(params), servable=servable)


def _winners(candidates: tuple[Route, ...], method: str, way: str) -> Iterable[Route]:
    """Give the most specific route for one reading: by the letters as they stand, and with their case folded.

    Two routes that are equally specific both win, which makes the path ambiguous: a router would go by their order.
    """
    for exactly in (True, False):
        fitting = [each for each in candidates if (each.exact if exactly else each.regex).fullmatch(way)]
        if not fitting:
            continue
        # A route that names the method goes before one for any method, and one of this very case before its like.
        ranks = [(each.weight, each.exact.fullmatch(way) is not None, method in each.methods) for each in fitting]
        best = max(ranks)
        yield from (each for each, rank in zip(fitting, ranks, strict=True) if rank == best)
