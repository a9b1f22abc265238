"""The door for requests: an adapter that pays.

session = paying_session(buyer)
session.get("https://api.example.com/report", timeout=60)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import select_proxy

from farthing.buyer import PaidAnswer, PaidRequest, PaymentDemand, Policy, Receipt, RequestFacts, describe_request
from farthing.clients.buyer import (
    DEMAND_BODY_MAX_BYTES,
    Buyer,
    Exchange,
    demand_of,
    not_replayable,
    refuse_own_header,
    says_why_in_its_body,
    signed_lines,
    with_body,
)
from farthing.clients.guard import check_address, check_name, is_guarded
from farthing.errors import ConfigError, PolicyRefused
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED


class PaidRedirect(requests.Response):
    """A redirect that came for a payment: returned, and not followed, whatever the session says (SAFETY B5)."""

    @property
    def is_redirect(self) -> bool:
        """Keep the session from following it. Status and Location stay."""
        return False


class PayingAdapter(BaseAdapter):
    """Sends requests, and pays where a 402 asks for it and the buyer's policy allows it.

    `inner` is the adapter that it sends with (retries, pools and certificates belong there).

    Raises, besides requests' errors for the unpaid request, the errors of `farthing.errors.PaymentError`. A 402 is
    never returned.
    """

    def __init__(self, buyer: Buyer, *, inner: BaseAdapter | None = None) -> None:
        """Pay with `buyer`, send with `inner`."""
        super().__init__()
        self._buyer = buyer
        self._inner = HTTPAdapter() if inner is None else inner
        if is_guarded(buyer.policy):
            _guard(self._inner, buyer.policy)

    def send(  # noqa: PLR0917 - likewise
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - requests' own signature
        timeout: Any = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send `request`; where a 402 comes back, pay and send it again."""
        options: dict[str, Any] = {
            "stream": stream, "timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies
        }  # fmt: skip
        refuse_own_header(request.headers)
        self._check(request.url or "", proxies)
        response = None
        remembered = self._recall(request)
        if remembered is not None:
            response = self._purchase(request, options, remembered)
        if response is None:
            response = self._inner.send(request, **options)
        if response.status_code != STATUS_PAYMENT_REQUIRED:
            return response
        headers = response.headers
        demand = demand_of(headers.get(PAYMENT_REQUIRED), _read_some(response), headers.get("Content-Encoding", ""))
        bought = self._purchase(request, options, demand)
        return response if bought is None else bought

    def _recall(self, request: requests.PreparedRequest) -> ReceivedOffers | None:
        # Only a body that can be sent again is signed ahead: the seller may ask for another price.
        body: Any = request.body  # a file or a generator too, whatever the stubs say
        if self._buyer.remembered is None or not isinstance(body, (str, bytes, type(None))):
            return None
        return self._buyer.recall(request.method or "", request.url or "")

    def _purchase(
        self, request: requests.PreparedRequest, options: dict[str, Any], demand: PaymentDemand | ReceivedOffers
    ) -> requests.Response | None:
        with Exchange(self._buyer, _facts(request)) as exchange:
            paid = exchange.blocking(exchange.pay_for(demand))
            if paid is None:
                return None
            again = request.copy()
            for name, value in paid.lines:
                again.headers[name] = value
            try:
                answer = self._inner.send(again, **options)
            except Exception as error:
                exchange.blocking(exchange.lost(error))
                raise
            # The caller's own request: the payment is in no copy that is kept.
            answer.request = request
            try:
                receipt = exchange.blocking(exchange.conclude(_answer(answer, paid), streams=True))
            except BaseException as error:
                if exchange.asks_anew(error):
                    return answer
                answer.close()
                raise
            return _handed_over(answer, receipt, exchange)

    def _check(self, url: str, proxies: Mapping[str, str] | None) -> None:
        policy = self._buyer.policy
        if not is_guarded(policy):
            return
        if select_proxy(url, dict(proxies or {})):
            message = "Policy(private_hosts=…) can't see what a proxy connects to: send without one (trust_env=False)."
            raise ConfigError(message)
        check_name(policy, urlsplit(url).hostname or "")

    def close(self) -> None:
        """Close the adapter that it sends with."""
        self._inner.close()


def paying_session(buyer: Buyer, *, session: requests.Session | None = None) -> requests.Session:
    """Give a session that pays, or make `session` pay."""
    session = requests.Session() if session is None else session
    adapter = PayingAdapter(buyer)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def receipt_of(response: requests.Response) -> Receipt | None:
    """What was paid for this response, or None where nothing was."""
    return getattr(response, "farthing_receipt", None)


def _guard(adapter: BaseAdapter, policy: Policy) -> None:
    """Have an adapter judge each connection that it makes, before it sends (SAFETY B6)."""
    manager: Any = getattr(adapter, "poolmanager", None)
    if manager is None:
        message = f"Policy(private_hosts=…) judges the connections of requests' HTTPAdapter, not of {type(adapter)}."
        raise ConfigError(message)

    def guarded(connection: Any) -> Any:
        class Guarded(connection):  # type: ignore[misc]
            def _new_conn(self) -> socket.socket:
                parent: Any = super()
                made: socket.socket = parent._new_conn()  # noqa: SLF001 - urllib3 gives no other place
                try:
                    check_address(policy, self.host, made.getpeername()[0])
                except PolicyRefused:
                    made.close()
                    raise
                return made

        return Guarded

    manager.pool_classes_by_scheme = {
        scheme: type("GuardedPool", (pool,), {"ConnectionCls": guarded(pool.ConnectionCls)})
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _handed_over(answer: requests.Response, receipt: Receipt, exchange: Exchange) -> requests.Response:
    if answer.is_redirect:
        held = PaidRedirect()
        held.__dict__.update(answer.__dict__)
        answer = held
    raw: Any = answer.raw
    if hasattr(raw, "stream"):
        raw.stream = partial(_watched_stream, raw.stream, exchange)
    if hasattr(raw, "release_conn"):
        raw.release_conn = partial(_released, raw.release_conn, exchange)
    if not hasattr(raw, "stream"):
        exchange.delivered()  # of an adapter of the user's own: nothing tells of the end
    answer.__dict__["farthing_receipt"] = receipt
    return answer


def _watched_stream(
    stream: Callable[..., Iterator[bytes]], exchange: Exchange, *args: Any, **more: Any
) -> Iterator[bytes]:
    # A body that was cut is no delivery: it is asked for with the same payment.
    try:
        yield from stream(*args, **more)
    except GeneratorExit:
        raise  # the caller has read as much as it wants
    except BaseException:
        exchange.undelivered()
        raise
    exchange.delivered()


def _released(release: Callable[[], object], exchange: Exchange) -> None:
    # Closed or read to its end, however that was done.
    release()
    exchange.delivered()


def _facts(request: requests.PreparedRequest) -> RequestFacts:
    body = request.body
    if isinstance(body, str):
        body = body.encode()
    # A file or a generator too, whatever the stubs say.
    if body is not None and not isinstance(body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise not_replayable(type(body).__name__)
    return describe_request(request.method or "", request.url or "", body or b"")


def _answer(response: requests.Response, paid: PaidRequest) -> PaidAnswer:
    headers = response.headers
    answer = PaidAnswer(
        response.status_code,
        headers.get(paid.wire.response_header),
        headers.get(PAYMENT_REQUIRED),
        lines=signed_lines(paid, headers.items()),
    )
    if says_why_in_its_body(answer):
        return with_body(answer, _read_some(response), headers.get("Content-Encoding", ""))
    return answer


def _read_some(response: requests.Response) -> bytes:
    # Read to its end, within bounds, so that the connection serves the paid request too.
    try:
        seen: bytes = response.raw.read(DEMAND_BODY_MAX_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        seen = b""
    finally:
        response.close()
    return seen
