"""A site with an edge, a crawler that signs for real, and a stand-in for the clearing house that does as it is told.

The clearing house itself is tested in `tests/clearing`, and with edges before it in `test_with_clearing.py`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import httpx2
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from werkzeug.serving import make_server

from farthing.errors import FarthingError
from farthing.flow import Effect, Now, drive
from farthing.mechanisms.batch_credit import Agent, BatchCreditBuyer
from farthing.mechanisms.interface import RequestToBind
from farthing.protocol.codec import decode_payment_required, decode_settlement, encode_payment, pack_json
from farthing.protocol.messages import SettlementResponse
from farthing.protocol.payment_identifier import NAME
from farthing.seller.pricing import Terms
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.edge import Edge
from farthing.servers.seller import Seller
from farthing.servers.wsgi import PaidWSGI
from farthing.signatures import DirectoryKey, PublicKey, SignData, SigningKey
from farthing.world.directories import KnownKey

NETWORK = "clearing:demo"
PAYEE = "site.example"
PRICE = 1_000
SECONDS = 30.0
Taking: TypeAlias = Literal["", "optional", "required"]
SELLER_KEY = SigningKey(b"\x08" * 32)


class Crawler:
    """An agent: buys a URL as a buyer's face says, and keeps what it signed."""

    def __init__(self, origin: str = "https://crawler.example", seed: bytes = b"\x07") -> None:
        self.key = SigningKey(seed * 32)
        self.agent = Agent(origin, self.key.public_key.thumbprint)
        self.face = BatchCreditBuyer(self.agent)
        self.skew_seconds = 0

    @property
    def origin(self) -> str:
        return self.agent.origin

    def _perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, Now):
            return int(time.time()) + self.skew_seconds
        assert isinstance(effect, SignData)
        return self.key.sign(effect.data)

    def sign(
        self,
        url: str,
        offer_header: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        nonce: bytes | None = None,
        identifier: Any = None,
    ) -> tuple[dict[str, str], str]:
        """Sign a request: its header lines, and the commitment's id. `identifier` is its payment-identifier."""
        received = decode_payment_required(offer_header)
        offer = received.offers[0]
        nonce = os.urandom(64) if nonce is None else nonce
        prepared = drive(self.face.pay(offer.requirements, payer="", nonce=nonce), self._perform)
        named = None if identifier is None else {NAME: {"info": {"required": False, "id": identifier}}}
        header = pack_json(
            encode_payment(
                accepted=offer.raw, payload=prepared.payload, resource=received.resource_raw, extensions=named
            )
        )
        digest = hashlib.sha256(body).hexdigest() if body else ""
        bind = self.face.bind(prepared, offer.requirements, RequestToBind(method, url, digest), payment_header=header)
        bound = drive(bind, self._perform)
        return {"PAYMENT-SIGNATURE": header, **dict(bound.headers)}, bound.promise_id


class House:
    """A stand-in for the clearing house: grants, takes and remembers."""

    def __init__(self) -> None:
        self.credit: dict[str, int] = {}
        self.refusals: dict[str, str] = {}
        # Keys that were declared compromised, by payer: every lease tells.
        self.compromised: dict[str, list[str]] = {}
        self.away = False
        self.forget_uploads = 0
        self.forget_leases = 0
        # Answers to the next uploads, of which nothing is read then: status, and Retry-After.
        self.busy: list[tuple[int, str]] = []
        self.asked_as: dict[tuple[str, int, str], dict[str, Any]] = {}
        self.epochs: dict[str, int] = {}
        self.leases: dict[str, dict[str, Any]] = {}
        self.closed: dict[str, dict[str, Any]] = {}
        self.uploads: list[list[dict[str, Any]]] = []
        self.names: dict[tuple[str, int, int], bytes] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.sent: set[str] = set()
        self.keys: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.lease_seconds = 300
        self.lease_max = 10**12
        self.changed = threading.Condition()
        self._numbers = itertools.count(1)

    def wait(self, what: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with self.changed:
            assert self.changed.wait_for(what, SECONDS), (self.lines, self.uploads)

    async def handle(self, request: Request) -> Response:
        body = await request.body()
        with self.changed:
            self.asked += 1
            try:
                if self.away:
                    return PlainTextResponse("away", 503)
                return self._answer(request, body)
            finally:
                self.changed.notify_all()

    def _answer(self, request: Request, body: bytes) -> Response:
        path = request.url.path
        if path == "/healthz":
            return PlainTextResponse("ok")
        if path.endswith("/start"):
            edge = path.split("/")[2]
            self.epochs[edge] = self.epochs.get(edge, 0) + 1
            return JSONResponse({"edge": edge, "epoch": self.epochs[edge], "network": NETWORK,
                                 "leaseSecondsMax": 900, "offlineLimitSeconds": 900})  # fmt: skip
        if path == "/standing":
            return self._standing(request.query_params["payer"])
        if path == "/leases":
            return self._lease(json.loads(body))
        if path == "/leases/close":
            close = json.loads(body)
            lines = [each for each in self.lines.values() if each.get("lease") == close["lease"]]
            done = len(lines) == close["count"]
            if done:
                self.closed[close["lease"]] = close
            return JSONResponse({"lease": close["lease"], "closed": done, "missing": close["count"] - len(lines)})
        assert path == "/uploads"
        return self._upload(body)

    def _standing(self, payer: str) -> Response:
        if payer not in self.credit:
            return JSONResponse({"detail": f"{payer} has no account here."}, 404)
        sums = dict.fromkeys(("creditLimit", "prepaid", "owed", "leased", "exposure"), "0")
        return JSONResponse({"payer": payer, "state": "active", "currency": "USD", **sums})

    def _lease(self, asked: dict[str, Any]) -> Response:
        payer = asked["payer"]
        if payer in self.refusals or payer not in self.credit:
            reason = self.refusals.get(payer, "unknown_payer")
            return JSONResponse({"detail": f"{payer}: {reason}", "reason": reason}, 409)
        if self.epochs.get(asked["edge"]) != asked["epoch"]:
            return JSONResponse({"detail": "fenced", "reason": "fenced"}, 409)
        name = (asked["edge"], asked["epoch"], asked["request"])
        if name in self.asked_as:
            return self._granted(self.asked_as[name] | {"compromised": self.compromised.get(payer, [])})
        amount = min(int(asked["amount"]), self.credit[payer], self.lease_max)
        if amount <= 0:
            return JSONResponse({"detail": "no credit is left", "reason": "over_limit"}, 409)
        self.credit[payer] -= amount
        lease = {
            "lease": f"le-{next(self._numbers)}", "edge": asked["edge"], "epoch": asked["epoch"], "payer": payer,
            "amount": str(amount), "currency": "USD", "seconds": self.lease_seconds,
            "compromised": self.compromised.get(payer, []),
        }  # fmt: skip
        self.leases[lease["lease"]] = lease
        self.asked_as[name] = lease
        return self._granted(lease)

    def _granted(self, lease: dict[str, Any]) -> Response:
        if self.forget_leases:
            self.forget_leases -= 1
            return PlainTextResponse("lost", 502)
        return JSONResponse(lease)

    def _upload(self, body: bytes) -> Response:
        if self.busy:
            status, seconds = self.busy.pop(0)
            return JSONResponse({"detail": "busy", "reason": ""}, status, {"Retry-After": seconds})
        parsed = [json.loads(line) for line in gzip.decompress(body).splitlines()]
        header = parsed[0]
        name = (header["edge"], header["epoch"], header["sequence"])
        assert self.names.setdefault(name, body) == body, "an upload was changed"
        self.uploads.append(parsed)
        if self.forget_uploads:
            self.forget_uploads -= 1
            return PlainTextResponse("lost", 502)
        new = 0
        for line in parsed[1:]:
            if line["type"] == "commitment":
                new += line["id"] not in self.lines
                self.lines.setdefault(line["id"], line)
                if line.get("sent"):
                    self.sent.add(line["id"])
            elif line["type"] == "sent":
                self.sent.add(line["id"])
            else:
                self.keys[line["thumbprint"]] = line
        return JSONResponse({"edge": name[0], "epoch": name[1], "sequence": name[2], "window": "w", "accepted": new})


class Directory:
    """A stand-in for the reader of key directories, which has its own tests."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, str], PublicKey] = {}
        self.cached: dict[tuple[str, str], PublicKey] = {}
        self.fetched: list[str] = []
        self.trouble = ""

    def known(self, agent: str, key_id: str) -> PublicKey | None:
        return self.cached.get((agent, key_id))

    def is_fresh(self, origin: str, key_id: str) -> bool:
        return True

    def archived(self, origin: str, key_id: str) -> KnownKey | None:
        key = self.cached.get((origin, key_id))
        return None if key is None else KnownKey(origin, DirectoryKey(key), int(time.time()), b"{}", "", "")

    async def find(self, origin: str, key_id: str) -> PublicKey | None:
        self.fetched.append(origin)
        if self.trouble:
            raise FarthingError(self.trouble)
        key = self.published.get((origin, key_id))
        if key is not None:
            self.cached[origin, key_id] = key
        return key


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: httpx2.Headers
    body: bytes

    @property
    def settlement(self) -> SettlementResponse | None:
        header = self.headers.get("PAYMENT-RESPONSE")
        return None if header is None else decode_settlement(header)

    @property
    def commitment_id(self) -> str:
        return str(((self.settlement and self.settlement.extra) or {}).get("commitmentId", ""))


class Town:
    """Everything in one process, over real sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = House()
        self.directory = Directory()
        self.crawler = Crawler()
        self.ran: list[str] = []
        self.go_on = threading.Event()
        self.edges: list[Edge] = []
        self.sellers: list[Seller] = []
        self.price = "$0.001"
        # Slow pages go on when so many requests have come, too.
        self.enough = 1_000_000
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.house_url = self._serve(
            Starlette(routes=[Route("/{path:path}", self.house.handle, methods=["GET", "POST"])])
        )
        self.welcome(self.crawler)
        self.url = self.open_site("edge-1")
        self.client = self._ends.enter_context(httpx2.Client(timeout=SECONDS, headers={"Connection": "close"}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.go_on.set()
        self._ends.close()

    def welcome(self, crawler: Crawler, credit: int = 10**9) -> None:
        """Open an account, and publish the key."""
        self.house.credit[crawler.origin] = credit
        self.directory.published[crawler.origin, crawler.agent.key_id] = crawler.key.public_key

    def open_site(
        self, name: str, *, wsgi: bool = False, identified: bool = False, base_url: str = "", **options: Any
    ) -> str:
        """Open another site with an edge of its own; one that takes ids for repeats, or stands for another's URL."""
        place = options.pop("store", f"{name}.sqlite")
        edge = Edge(
            name, network=NETWORK, clearing_house=self.house_url, token="token-of-the-edge", signer=SELLER_KEY,
            store=place if "://" in place else self.folder / place, keys=self.directory, upload_every_seconds=0.1,
            **options,
        )  # fmt: skip
        self.edges.append(edge)
        self._ends.callback(edge.close)

        def make(url: str) -> Any:
            on_credit = Terms(scheme="batch-settlement", network=NETWORK, pay_to=PAYEE)
            seller = Seller(
                base_url=base_url or url,
                store=self.folder / f"{name}-seller.sqlite",
                accepts=[on_credit],
                edge=edge,
            )
            self._ends.callback(seller.close)
            self.sellers.append(seller)
            required: Taking = "required" if identified else ""
            optional: Taking = "optional" if identified else ""
            for path in ("page/{number}", "fails", "moved", "stream", "slow", "raises", "cookies", "large"):
                seller.price(
                    f"GET /{path}", (lambda _facts: self.price) if identified else "$0.001", payment_identifier=optional
                )
            seller.price("POST /echo", "$0.002", payment_identifier=required)
            if wsgi:
                return PaidWSGI(self._work, seller)
            return PaymentMiddleware(
                Starlette(routes=[Route("/{path:path}", self._handle, methods=["GET", "POST"])]), seller=seller
            )

        return self._serve_wsgi(make) if wsgi else self._serve(make)

    def _work(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.ran.append(environ["PATH_INFO"])
        failed = environ["PATH_INFO"] == "/fails"
        start_response("500 No" if failed else "200 OK", [("Content-Type", "text/plain")])
        return [b"the text of ", environ["PATH_INFO"].encode()]

    def _serve_wsgi(self, app: Callable[[str], Any]) -> str:
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._ends.callback(listening.close)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = make_server("127.0.0.1", 0, app(url), threaded=True, fd=listening.fileno())
        self._ends.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return url

    async def _handle(self, request: Request) -> Response:  # noqa: PLR0911 - one line a path
        path = request.url.path
        self.ran.append(path)
        match path:
            case "/fails":
                return PlainTextResponse("no", 500)
            case "/moved":
                return RedirectResponse("/page/1")
            case "/raises":
                raise RuntimeError
            case "/stream":
                return StreamingResponse(_parts())
            case "/slow":
                while not self.go_on.is_set() and len(self.ran) < self.enough:
                    import asyncio  # noqa: PLC0415

                    await asyncio.sleep(0.01)
                return PlainTextResponse("at last")
            case "/large":
                return PlainTextResponse("x" * 70_000)
            case "/echo":
                return Response(await request.body())
            case "/cookies":
                response = PlainTextResponse("c", headers={"Cache-Control": "public, s-maxage=60"})
                response.set_cookie("a", "1")
                response.set_cookie("b", "2")
                return response
        return PlainTextResponse(f"the text of {path}")

    def offer(self, path: str, *, method: str = "GET", url: str = "") -> str:
        """The PAYMENT-REQUIRED header of a page."""
        answer = self.client.request(method, (url or self.url) + path)
        assert answer.status_code == 402, answer.text
        return str(answer.headers["PAYMENT-REQUIRED"])

    def send(
        self, path: str, headers: dict[str, str], *, method: str = "GET", body: bytes = b"", url: str = ""
    ) -> Answer:
        """Send a request as it is."""
        answer = self.client.request(method, (url or self.url) + path, headers=headers, content=body)
        return Answer(answer.status_code, answer.headers, answer.content)

    def buy(
        self, path: str, *, crawler: Crawler | None = None, method: str = "GET", body: bytes = b"", url: str = "",
        nonce: bytes | None = None, identifier: Any = None,
    ) -> tuple[Answer, dict[str, str], str]:  # fmt: skip
        """Ask, sign, and send: the answer, the header lines, the commitment's id."""
        signed, commitment_id = (crawler or self.crawler).sign(
            (url or self.url) + path, self.offer(path, method=method, url=url), method=method, body=body, nonce=nonce,
            identifier=identifier,
        )  # fmt: skip
        return self.send(path, signed, method=method, body=body, url=url), signed, commitment_id

    def _serve(self, app: Any) -> str:
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._ends.callback(listening.close)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        made = app if isinstance(app, Starlette) else app(url)
        server = uvicorn.Server(uvicorn.Config(made, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        self._ends.callback(thread.join, SECONDS)
        self._ends.callback(setattr, server, "should_exit", True)  # noqa: FBT003 - the attribute's value
        return url


async def _parts() -> AsyncIterator[bytes]:
    for number in range(3):
        yield f"part {number};".encode()
