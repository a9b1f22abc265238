"""Marks on handlers: `@seller.paid("$0.01")`, how their routes are found, and the guard that keeps them shut.

A marked handler runs only while a payment for its own mark is current: should a request ever reach it another way, it
raises. The door sets what is current; no header can.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast

import msgspec

from farthing.errors import FarthingError
from farthing.evm.signing import Signer
from farthing.seller.payment import Payment
from farthing.seller.pricing import PriceLike, Terms
from farthing.seller.routes import ANY_METHOD

F = TypeVar("F", bound=Callable[..., object])

_ATTRIBUTE: Final = "__farthing_paid__"
# Mounts in mounts; deeper applications are no applications.
_DEPTH_MAX: Final = 16


class Unpaid(FarthingError):
    """A marked handler was reached without a payment for it. It did not run."""


class Mark(msgspec.Struct, frozen=True, eq=False):
    """What `price` and `paid` were told, and where."""

    price: PriceLike | None
    where: str
    accepts: tuple[Terms, ...]
    payment_flow: str
    description: str
    mime_type: str
    max_timeout_seconds: int
    idempotent: bool | None
    store_response: bool
    shared_cache: bool
    payment_identifier: str = ""
    refund_signer: Signer | None = None


class Passed(msgspec.Struct, frozen=True):
    """The payment that is current, and the mark of the route that it was made for."""

    payment: Payment
    mark: object


class AppRoute(msgspec.Struct, frozen=True):
    """A route of an application; `mark` is its handler's, if it has one. `*` stands for any method."""

    methods: frozenset[str]
    pattern: str
    mark: Mark | None


current: ContextVar[Passed | None] = ContextVar("farthing_payment", default=None)


def current_payment() -> Payment | None:
    """Give the payment of the request that is being served, in a handler or below it; None where there is none."""
    passed = current.get()
    return None if passed is None else passed.payment


def paid_mark(mark: Mark) -> Callable[[F], F]:
    """Make the decorator that marks a handler and guards it."""

    def decorate(handler: F) -> F:
        function = cast("Callable[..., Any]", handler)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                _check(mark, function)
                return await function(*args, **kwargs)

            guarded: Callable[..., Any] = awaited

        else:

            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> Any:
                _check(mark, function)
                return function(*args, **kwargs)

            guarded = called

        # On both, so that the mark is found even where the framework's decorator stands under this one.
        setattr(function, _ATTRIBUTE, mark)
        setattr(guarded, _ATTRIBUTE, mark)
        return cast("F", guarded)

    return decorate


def _check(mark: Mark, function: Callable[..., Any]) -> None:
    passed = current.get()
    if passed is None or passed.mark is not mark:
        message = (
            f"{getattr(function, '__qualname__', function)} is marked as paid ({mark.where}) and was reached without a "
            "payment for it. Put the seller's door around the application."
        )
        raise Unpaid(message)


def app_routes(app: object) -> Iterator[AppRoute]:
    """Find the routes of an application, by what applications of the known frameworks show of themselves."""
    url_map = getattr(app, "url_map", None)
    if url_map is not None:
        yield from _flask_routes(app, url_map)
        return
    # Middleware keeps what it wraps in `app`; the application itself has the routes.
    for _ in range(_DEPTH_MAX):
        if getattr(app, "routes", None) is not None or getattr(app, "app", None) is None:
            break
        app = cast("Any", app).app
    yield from _walk(getattr(app, "routes", None) or (), "", 0)


def _walk(routes: Iterable[Any], prefix: str, depth: int) -> Iterator[AppRoute]:
    if depth > _DEPTH_MAX:
        return
    for route in _flat(routes):
        path = prefix + str(getattr(route, "path", "") or "")
        handlers = getattr(route, "route_handlers", None)
        if handlers is not None:  # Litestar
            for handler in handlers:
                yield AppRoute(
                    _methods(getattr(handler, "http_methods", None)), path, _mark_of(getattr(handler, "fn", None))
                )
            continue
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None:
            yield AppRoute(_methods(getattr(route, "methods", None)), path, _mark_of(endpoint))
        inner = getattr(getattr(route, "route", route), "routes", None)
        if inner:
            yield from _walk(inner, path.rstrip("/"), depth + 1)


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    """Have FastAPI say what its included routers come to; newer versions keep them as they are included."""
    expand = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    return routes if expand is None else cast("Iterable[Any]", expand(tuple(routes)))


def _flask_routes(app: object, url_map: Any) -> Iterator[AppRoute]:
    views = cast("dict[str, Any]", getattr(app, "view_functions", {}))
    for rule in url_map.iter_rules():
        yield AppRoute(_methods(rule.methods), str(rule.rule), _mark_of(views.get(rule.endpoint)))


def _mark_of(handler: object) -> Mark | None:
    mark = getattr(handler, _ATTRIBUTE, None)
    return mark if isinstance(mark, Mark) else None


def _methods(methods: Iterable[object] | None) -> frozenset[str]:
    """Take HEAD and OPTIONS away, which frameworks add: the door answers them itself."""
    if methods is None:
        return frozenset({ANY_METHOD})
    names = frozenset(str(getattr(each, "value", each)).upper() for each in methods)
    return names - {"HEAD", "OPTIONS"} or names
