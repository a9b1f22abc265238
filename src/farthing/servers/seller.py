"""The seller, wired: prices, mechanisms, facilitator and store behind the two flows. The doors take it from here.

seller = Seller(
pay_to="0x…",
network="eip155:8453",
facilitator=RemoteFacilitator("https://…"),
base_url="https://api.example.com",
store="farthing-seller.sqlite",
)
seller.price("GET /weather/{city}", "$0.01")
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import unquote_plus

import msgspec

from farthing.errors import ConfigError, FarthingError
from farthing.evm.signing import Signer
from farthing.flow import Flow
from farthing.mechanisms.batch_credit.seller import BatchCreditSeller
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmSeller
from farthing.mechanisms.interface import SellerMechanism
from farthing.mechanisms.registry import Registry
from farthing.networks import KNOWN, Networks
from farthing.protocol.codec import OFFER_HEADER_MAX_BYTES, pack_payment_required
from farthing.protocol.facilitator import Facilitator
from farthing.protocol.messages import PaymentRequired, ResourceInfo
from farthing.protocol.versions import CURRENT
from farthing.protocol.wire import Wire
from farthing.seller.admit import admit
from farthing.seller.answers import Answer, problem
from farthing.seller.identified import takes
from farthing.seller.offers import extensions_of
from farthing.seller.pricing import PriceLike, Terms, Way, at, make_way
from farthing.seller.refunding import RefundDesk
from farthing.seller.request import URL_MAX_CHARS, Request, check_base_url, offered_url
from farthing.seller.routes import (
    ANY_METHOD,
    KNOWN_METHODS,
    Free,
    Match,
    Priced,
    Route,
    RouteTable,
    compile_pattern,
    parse_route,
)
from farthing.seller.states import PaymentFlow
from farthing.seller.ticket import Verdict
from farthing.servers.caretaking import Caretaker, Refunding
from farthing.servers.edge import CREDIT_PREFIX, Edge
from farthing.servers.looking import Looking
from farthing.servers.marks import AppRoute, Mark, app_routes, paid_mark
from farthing.servers.refunds import RefundSigners, checked
from farthing.servers.verifying import NoFacilitator, Verifying
from farthing.world.performers import Performer, system_handlers
from farthing.world.seller_store import SellerStore

F = TypeVar("F", bound=Callable[..., object])

# What a request's body may have on a priced route: it is read whole before the claim, since the claim is held to it.
REQUEST_BODY_MAX_BYTES: Final = 1024 * 1024
# Time that a buyer has from the offer to the settlement; the protocol's examples use it, and clients accept it.
TIMEOUT_SECONDS: Final = 60
# Headers by which a client or a proxy asks for another method than the one it sends.
OVERRIDE_HEADERS: Final = ("x-http-method-override", "x-http-method", "x-method-override")
_OVERRIDES: Final = frozenset(OVERRIDE_HEADERS)
_SEPARATORS = re.compile(r"[&;]")

log = logging.getLogger("farthing.seller")


class OfferTooLarge(UserWarning):
    """A route's offer may not fit in a header that every intermediary lets pass."""


class Seller:
    """A seller for any number of doors: one in each worker process, all of them on one store.

    `store` is the path of a SQLite file, or the URL of a database (`postgresql://user@host/name`), by default
    $FARTHING_STORE; large answers are spooled in `spool_folder` (`SellerStore`). `accepts` names several ways to be
    paid at once (`Terms`); `networks` is the table of networks and tokens; `edge` takes commitments, for routes with
    terms on its clearing network; `nodes` gives by network the URLs of its nodes, which are asked about payments whose
    facilitator does not tell. `refund_signer` (a signer as `Buyer` takes it) pays back what was settled and can't be
    served. Raises `ConfigError` for what can't work, where it is written.
    """

    def __init__(
        self,
        *,
        base_url: str,
        store: str | Path | None = None,
        facilitator: Facilitator | None = None,
        pay_to: str = "",
        network: str = "",
        accepts: Iterable[Terms] = (),
        networks: Networks = KNOWN,
        mechanisms: Iterable[SellerMechanism] | None = None,
        edge: Edge | None = None,
        request_body_max_bytes: int = REQUEST_BODY_MAX_BYTES,
        spool_folder: str | Path | None = None,
        nodes: Mapping[str, Sequence[str]] | None = None,
        refund_signer: Signer | None = None,
    ) -> None:
        """Check what can be checked without asking anybody, and open the store."""
        self.base_url = check_base_url(base_url)
        self.edge = edge
        self.networks = networks if edge is None else edge.with_currency(networks)
        self.request_body_max_bytes = request_body_max_bytes
        self.routes = RouteTable()
        self._pay_to, self._network = pay_to, network
        self._accepts = tuple(accepts)
        self._mechanisms: Registry[SellerMechanism] = Registry(
            _usual_mechanisms(networks, edge) if mechanisms is None else mechanisms
        )
        self._marks: list[Mark] = []
        self._learnt: set[tuple[str, str, int]] = set()
        self._lock = threading.Lock()
        self.store = SellerStore(_place_of(store), spool_folder=spool_folder)
        self._settles = facilitator is not None
        self.facilitator: Facilitator = NoFacilitator() if facilitator is None else facilitator
        verifying = Verifying(self.facilitator, self._kinds, self.store.name)
        on_credit = {} if edge is None else edge.handlers()
        signers = RefundSigners(self.base_url, self.routes, refund_signer)
        asking = {**verifying.handlers(), **Looking(nodes or {}).handlers(), **signers.handlers()}
        self.performer = Performer({**system_handlers(), **self.store.handlers(), **asking, **on_credit})
        exact = RefundDesk(ExactEvmBuyer(networks), ExactEvmSeller(networks))
        self._caretaker = Caretaker(self.store, self.performer, Refunding(exact, signers))

    def close(self) -> None:
        """Close the store. Facilitator and edge are their maker's to close."""
        self._caretaker.close()
        self.store.close()

    def care(self) -> int:
        """Care now for payments that nobody asks for, as each process does by itself; gives how many were touched.

        Payments whose owner crashed go where they belong, unknown ones are looked up, refunds that are due and have a
        signer are paid, and what is over is archived.
        """
        return self._caretaker.round()

    def price(
        self,
        route: str,
        price: PriceLike | None = None,
        *,
        accepts: Iterable[Terms] = (),
        payment_flow: Literal["authorization", "upfront"] = "authorization",
        description: str = "",
        mime_type: str = "",
        max_timeout_seconds: int = TIMEOUT_SECONDS,
        idempotent: bool | None = None,
        store_response: bool = True,
        shared_cache: bool = False,
        payment_identifier: Literal["", "off", "optional", "required"] = "",
        refund_signer: Signer | None = None,
    ) -> Route:
        """Price the requests of `route`, written `"GET /weather/{city}"` (`"GET,POST /x"`; `"/x"` for any method).

        `price` is `"$0.01"`, a `Decimal`, an `Amount`, or a callable of `Facts`; `accepts` gives several ways to be
        paid, each with a price of its own or this one. `payment_flow="upfront"` settles before the work, and lets the
        answer stream. `idempotent` says that the handler may be run again after a crash (safe methods may);
        `store_response=False` saves a commit, and ends in a refund where the process dies before the answer is out;
        `shared_cache=True` lets the handler's own caching headers stand. `payment_identifier` says whether clients' ids
        are taken, under which a repeat gets the earlier answer: by default wherever the route keeps its answer, which a
        route paid on credit alone does not. `refund_signer` pays back what was settled and can't be served, instead of
        the seller's own. Raises `ConfigError` with file and line.
        """
        mark = Mark(
            price=price,
            where=_caller(),
            accepts=tuple(accepts),
            payment_flow=payment_flow,
            description=description,
            mime_type=mime_type,
            max_timeout_seconds=max_timeout_seconds,
            idempotent=idempotent,
            store_response=store_response,
            shared_cache=shared_cache,
            payment_identifier=payment_identifier,
            refund_signer=refund_signer,
        )
        try:
            methods, pattern = parse_route(route)
        except FarthingError as error:
            raise at(mark.where, route, error) from error
        return self._add(methods, pattern, mark)

    def paid(
        self,
        price: PriceLike | None = None,
        *,
        accepts: Iterable[Terms] = (),
        payment_flow: Literal["authorization", "upfront"] = "authorization",
        description: str = "",
        mime_type: str = "",
        max_timeout_seconds: int = TIMEOUT_SECONDS,
        idempotent: bool | None = None,
        store_response: bool = True,
        shared_cache: bool = False,
        payment_identifier: Literal["", "off", "optional", "required"] = "",
        refund_signer: Signer | None = None,
    ) -> Callable[[F], F]:
        """Mark a handler as paid; its routes are found in the application. Takes what `price` takes.

        Stands under the framework's own decorator. A marked handler that is reached without a payment for it does not
        run: it raises, whatever the path was.
        """
        mark = Mark(
            price=price,
            where=_caller(),
            accepts=tuple(accepts),
            payment_flow=payment_flow,
            description=description,
            mime_type=mime_type,
            max_timeout_seconds=max_timeout_seconds,
            idempotent=idempotent,
            store_response=store_response,
            shared_cache=shared_cache,
            payment_identifier=payment_identifier,
            refund_signer=refund_signer,
        )
        self._ways(mark, "a marked handler")
        self._marks.append(mark)
        return paid_mark(mark)

    def learn(self, app: object) -> None:
        """Find the routes of marked handlers in a Starlette, FastAPI, Litestar or Flask application.

        The doors do this by themselves when the application starts; call it after adding routes later.
        """
        self._caretaker.start()
        with self._lock:
            routes = tuple(app_routes(app))
            for found in routes:
                key = (",".join(sorted(found.methods)), found.pattern, id(found.mark))
                if found.mark is not None and found.mark in self._marks and key not in self._learnt:
                    self._learnt.add(key)
                    self._add(found.methods, found.pattern, found.mark)
            missing = [mark.where for mark in self._marks if not any(key[2] == id(mark) for key in self._learnt)]
            half = [(found.pattern, free) for found in routes if (free := self._free_methods(found))]
        for pattern, free in half:
            log.warning(
                "%s has a price for some methods, and its handler runs free for %s: name them all, or '*'",
                pattern,
                free,
            )
        for where in missing:
            log.error("%s: this handler is marked as paid and has no route here; it refuses to run", where)

    def _free_methods(self, route: AppRoute) -> str:
        """Name the methods of one handler that have no price while others of the same handler have."""
        methods = route.methods if ANY_METHOD not in route.methods else KNOWN_METHODS - {"HEAD", "OPTIONS"}
        free = [each for each in sorted(methods) if isinstance(self.routes.match(each, route.pattern), Free)]
        return ", ".join(free) if len(free) < len(methods) else ""

    def match(self, method: str, path: str, root_path: str, query: str, headers: Mapping[str, str]) -> Match:
        """Say what a request costs, before anything of it is read."""
        override = None
        if not _OVERRIDES.isdisjoint(headers):
            override = next(name for name in OVERRIDE_HEADERS if name in headers)
        elif query and any(_names_method(each) for each in _SEPARATORS.split(query)):
            override = "_method in the query"
        return self.routes.match(method, path, root_path, override=override)

    def request(
        self,
        priced: Priced,
        *,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payments: tuple[str, ...],
        wire: Wire = CURRENT,
        body: bytes = b"",
    ) -> Request | Answer:
        """Make the flows' view of a request; or the answer to one whose address is too long to be offered."""
        url = offered_url(self.base_url, path, query)
        if len(url) > URL_MAX_CHARS:
            detail = f"The address has {len(url)} characters; the limit on a priced route is {URL_MAX_CHARS}."
            return problem(414, "url-too-long", "The address is too long", detail)
        return Request(
            method=method,
            path=path,
            query=query,
            url=url,
            route=priced.route,
            params=priced.params,
            headers=headers,
            payments=payments,
            body_digest=hashlib.sha256(body).hexdigest() if body else "",
            wire=wire,
        )

    def admit(self, request: Request, *, servable: bool) -> Flow[Verdict]:
        """The flow before the work."""
        return admit(request, networks=self.networks, servable=servable)

    def _add(self, methods: frozenset[str], pattern: str, mark: Mark) -> Route:
        name = f"{','.join(sorted(methods))} {pattern}"
        ways = self._ways(mark, name)
        try:
            expression, weight = compile_pattern(pattern)
            if mark.refund_signer is not None:
                checked(mark.refund_signer)
            taking = takes(
                mark.payment_identifier,
                PaymentFlow(mark.payment_flow),
                stores_response=mark.store_response,
                on_credit=all(way.terms.network.startswith(CREDIT_PREFIX) for way in ways),
            )
        except FarthingError as error:
            raise at(mark.where, name, error) from error
        route = Route(
            methods=methods,
            pattern=pattern,
            ways=ways,
            where=mark.where,
            payment_flow=PaymentFlow(mark.payment_flow),
            description=mark.description,
            mime_type=mark.mime_type,
            idempotent=mark.idempotent,
            store_response=mark.store_response,
            shared_cache=mark.shared_cache,
            payment_identifier=taking,
            refund_signer=mark.refund_signer,
            regex=re.compile(expression, re.IGNORECASE | re.DOTALL),
            exact=re.compile(expression, re.DOTALL),
            weight=weight,
            mark=mark,
        )
        self.routes.add(route)
        self._warn_of_size(route)
        return route

    def _ways(self, mark: Mark, name: str) -> tuple[Way, ...]:
        terms = mark.accepts or self._accepts or (Terms(),)
        try:
            flow = PaymentFlow(mark.payment_flow)
        except ValueError:
            message = f"payment_flow is {mark.payment_flow!r}; it is 'authorization' or 'upfront'."
            raise at(mark.where, name, ConfigError(message)) from None
        ways: list[Way] = []
        for each in terms:
            full = msgspec.structs.replace(
                each,
                network=each.network or self._network,
                pay_to=each.pay_to or self._pay_to,
                price=mark.price if each.price is None else each.price,
            )
            try:
                if not full.network or not full.pay_to:
                    message = "network and pay_to are missing; give them to Seller or to each of accepts."
                    raise ConfigError(message)
                if not self._settles and not full.network.startswith(CREDIT_PREFIX):
                    message = f"payments on {full.network} are settled by a facilitator; give one to Seller."
                    raise ConfigError(message)
                ways.append(
                    make_way(
                        full,
                        mechanisms=self._mechanisms,
                        networks=self.networks,
                        max_timeout_seconds=mark.max_timeout_seconds,
                        payment_flow=flow,
                    )
                )
            except FarthingError as error:
                raise at(mark.where, name, error) from error
        return tuple(ways)

    def _warn_of_size(self, route: Route) -> None:
        """Warn at start-up where a route's offer may grow over what intermediaries let pass (S11)."""
        fixed = tuple(way.fixed or way.sample for way in route.ways)
        known = tuple(each for each in fixed if each is not None)
        resource = ResourceInfo("u" * URL_MAX_CHARS, route.description, route.mime_type)
        size = len(
            pack_payment_required(PaymentRequired(resource, known, error="e" * 64, extensions=extensions_of(route)))
        )
        if size > OFFER_HEADER_MAX_BYTES:
            message = (
                f"{route.where}: the offer of {route.name} may take {size} bytes of header with a long address; over "
                f"{OFFER_HEADER_MAX_BYTES} some intermediaries refuse it. Offer fewer ways, or describe it shorter."
            )
            warnings.warn(message, OfferTooLarge, stacklevel=4)

    def _kinds(self) -> set[tuple[str, str]]:
        return {(way.terms.scheme, way.terms.network) for route in self.routes.routes for way in route.ways}


def _usual_mechanisms(networks: Networks, edge: Edge | None) -> tuple[SellerMechanism, ...]:
    exact = ExactEvmSeller(networks)
    return (exact,) if edge is None else (exact, BatchCreditSeller(clearing_house=edge.clearing_house))


def _names_method(member: str) -> bool:
    """Tell the query's `_method=`, in whatever way it is escaped."""
    name, equals, _ = member.partition("=")
    return bool(equals) and unquote_plus(name).strip().lower() == "_method"


def _caller() -> str:
    """Say where the owner wrote the price: the nearest frame outside of this file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    if frame is None:
        return "somewhere"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _place_of(store: str | Path | None) -> str | Path:
    place = store or os.environ.get("FARTHING_STORE")
    if not place:
        raise ConfigError("A seller keeps a store: give `store`, a file or postgresql://…, or set FARTHING_STORE.")
    return place
