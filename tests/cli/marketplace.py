"""What the tests of the command share: a seller on a real chain, and a user who runs real processes, some on a pty."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from typer.testing import CliRunner

from farthing.buyer import NoAnswer, PaymentDemand, Policy, describe_request
from farthing.cli import app
from farthing.clients import Buyer
from farthing.clients.buyer import Exchange
from farthing.errors import FarthingError, PaymentUnknown
from farthing.flow import Now
from farthing.protocol.codec import pack_header
from farthing.protocol.messages import PaymentRequired, PaymentRequirements, ResourceInfo
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.world.facilitator_client import RemoteFacilitator
from farthing.world.journal import Journal
from farthing.world.keys import LocalSigner

if TYPE_CHECKING:
    from tests.local_services import LocalServices, Wallet

# A Python with its imports takes a second, on a busy machine ten.
PROCESS_SECONDS = 60.0
BIG_SIZE_BYTES = 300_000

# Run a program with a terminal of its own, and standard output where it was.
_ON_A_TERMINAL = """
import os, sys
tty, out = int(sys.argv[1]), os.dup(1)
os.login_tty(tty)
if sys.argv[2] == "apart":
    os.dup2(out, 1)
os.close(out)
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class Done(msgspec.Struct, frozen=True):
    """How a process ended. `screen` is what a terminal showed."""

    code: int
    stdout: bytes = b""
    stderr: str = ""
    screen: str = ""

    @property
    def json(self) -> Any:
        """The one line of standard output."""
        line, _, rest = self.stdout.partition(b"\n")
        assert not rest, self.stdout
        return json.loads(line)


class Market:
    """A seller whose handlers count, and the chain behind it."""

    def __init__(self, local: LocalServices) -> None:
        self.local = local
        self.payee = local.wallet().address
        self.served: list[str] = []
        self.unpaid: list[str] = []
        self.url = ""
        # Handlers that hang wait for it, and say that they do.
        self.go_on = threading.Event()
        self.hanging = threading.Event()

    @property
    def token(self) -> str:
        """The devnet's dollar as an option."""
        return f"{self.local.devnet.network}/{self.local.devnet.usdc}:USDC:2"

    @property
    def earned(self) -> int:
        """What the payee has, by the chain."""
        return int(self.local.devnet.usdc_balance(self.payee))

    def user(self, folder: Path, *, usdc: str = "10") -> User:
        """A user with this much money."""
        return User(self, folder, self.local.wallet(usdc=usdc))

    async def handle(self, request: Request) -> Response:  # noqa: C901, PLR0911 - one line a path
        """Serve one of the paths."""
        self.served.append(f"{request.method} {request.url.path}")
        match request.url.path:
            case "/hangs":
                self.hanging.set()
                while not self.go_on.is_set():
                    await _pause()
                return PlainTextResponse("at last\n")
            case "/big":
                return PlainTextResponse("x" * BIG_SIZE_BYTES)
            case "/odd":
                header = request.query_params.get("header")
                headers = {} if header is None else {"PAYMENT-REQUIRED": header}
                return PlainTextResponse(request.query_params.get("body", ""), 402, headers)
            case "/stalls":
                return StreamingResponse(self._stall())
            case "/binary":
                return Response(bytes(range(256)), media_type="application/octet-stream")
            case "/moved" | "/free-moved":
                return RedirectResponse("/free")
            case "/echo":
                body = await request.body()
                return JSONResponse({"type": request.headers.get("content-type"), "body": body.decode()})
            case "/cut" | "/paid-cut":
                return StreamingResponse(_cut(), headers={"Content-Length": "1000"})
            case "/gone-for-free":
                return PlainTextResponse("it was here yesterday\n", 410)
        return PlainTextResponse("the goods\n")

    async def _stall(self) -> AsyncIterator[bytes]:
        yield b"the beginning"
        self.hanging.set()
        while not self.go_on.is_set():
            await _pause()


async def _pause() -> None:
    import asyncio  # noqa: PLC0415

    await asyncio.sleep(0.02)


async def _cut() -> AsyncIterator[bytes]:
    yield b"the beginning"
    raise ConnectionError


@contextlib.contextmanager
def open_market(local: LocalServices) -> Iterator[Market]:
    """Sell."""
    market = Market(local)
    facilitator = RemoteFacilitator(local.facilitator_url)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    def make(url: str) -> Any:
        seller = Seller(
            pay_to=market.payee,
            network=local.devnet.network,
            facilitator=facilitator,
            base_url=url,
            store=local.path("seller.sqlite3"),
            networks=local.networks,
        )
        local.at_end(seller.close)
        for path in ("/report", "/hangs", "/big", "/binary", "/moved"):
            seller.price(f"GET {path}", "$0.01", description="A \x1b[31mreport")
        seller.price("GET /dear", "$5")
        for path in ("/paid-cut", "/stalls"):
            seller.price(f"GET {path}", "$0.01", payment_flow="upfront")
        for method in ("POST", "PUT", "DELETE"):
            seller.price(f"{method} /echo", "$0.02")
        methods = ["GET", "POST", "PUT", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", market.handle, methods=methods)], lifespan=lifespan)
        return PaymentMiddleware(app, seller=seller)

    market.url = local.serve(make)
    try:
        yield market
    finally:
        market.go_on.set()


class User:
    """Runs the command in processes of its own."""

    def __init__(self, market: Market, folder: Path, wallet: Wallet) -> None:
        self.market = market
        self.wallet = wallet
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FARTHING_")},
            "FARTHING_HOME": str(self.home),
            "FARTHING_TOKENS": market.token,
            "FARTHING_KEY": wallet.key,
            "NO_PROXY": "*",
        }

    def with_env(self, **changes: str | None) -> Self:
        """Change the environment; None takes a variable away."""
        for name, value in changes.items():
            self.environment.pop(name, None)
            if value is not None:
                self.environment[name] = value
        return self

    def url(self, path: str) -> str:
        """A URL of the market."""
        return self.market.url + path

    def run(self, *arguments: str, stdin: bytes = b"", fds: tuple[int, ...] = ()) -> Done:
        """Run the command without a terminal."""
        process = self.start(*arguments, fds=fds)
        out, err = process.communicate(stdin, timeout=PROCESS_SECONDS)
        return Done(process.returncode, out, err.decode())

    def call(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run the command in this process, without a terminal: a tenth of the time (a test compares)."""
        with mock.patch.dict(os.environ, self.environment, clear=True), contextlib.chdir(self.folder):
            result = CliRunner().invoke(app, arguments, input=stdin)
        code, error = result.exit_code, result.stderr
        if isinstance(result.exception, FarthingError):
            code, error = 2, f"{error}farthing: {result.exception}\n"
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(code, result.stdout_bytes, error)

    def start(self, *arguments: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own, so that no terminal is at hand."""
        return subprocess.Popen(
            [sys.executable, "-m", "farthing", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=fds,
        )

    def on_terminal(
        self, *arguments: str, keys: dict[str, str], apart: bool = True, program: tuple[str, ...] = ("-m", "farthing")
    ) -> Done:
        """Run it on a terminal, where `keys` says what is typed when which prompt has appeared, in their order."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_A_TERMINAL, str(slave), "apart" if apart else "together", *program,
             *arguments],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, pass_fds=(slave,), start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        held: list[bytes] = []
        assert process.stdout is not None
        stdout = process.stdout
        reader = threading.Thread(target=lambda: held.append(stdout.read()), daemon=True)
        reader.start()
        screen = _converse(master, dict(keys))
        code = process.wait(PROCESS_SECONDS)
        reader.join(PROCESS_SECONDS)
        os.close(master)
        stdout.close()
        return Done(code, b"".join(held), screen=screen)

    def journal(self) -> list[Any]:
        """What the journal holds."""
        journal = Journal(self.home / "journal.sqlite")
        try:
            return journal.purchases()
        finally:
            journal.close()

    @property
    def spent(self) -> int:
        """What the account has less than ten dollars, by the chain."""
        return 10_000_000 - int(self.market.local.devnet.usdc_balance(self.wallet.address))


def _converse(master: int, keys: dict[str, str]) -> str:
    screen = b""
    said = 0
    deadline = time.monotonic() + PROCESS_SECONDS
    # poll, since a long session has descriptors of higher numbers than select takes.
    waiting = select.poll()
    waiting.register(master, select.POLLIN)
    while time.monotonic() < deadline:
        if not waiting.poll(500):
            continue
        try:
            part = os.read(master, 65_536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        screen += part
        for prompt in list(keys)[:1]:
            at = screen.find(prompt.encode(), said)
            if at >= 0:
                said = at + len(prompt)
                os.write(master, keys.pop(prompt).encode())
    return screen.decode("utf-8", "replace")


def interrupt(process: subprocess.Popen[bytes]) -> Done:
    """Press Ctrl-C, and wait for the end."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PROCESS_SECONDS)
    return Done(process.returncode, out, err.decode())


def leave_open(market: Market, user: User, *, seconds_ago: int) -> str:
    """Leave a payment in the user's journal that nobody answered for."""
    devnet = market.local.devnet
    terms = PaymentRequirements(
        scheme="exact", network=devnet.network, amount="10000", pay_to=market.payee, max_timeout_seconds=60,
        **market.local.asset,
    )  # fmt: skip
    demand = PaymentDemand(pack_header(PaymentRequired(ResourceInfo("https://a.example/"), (terms,))))
    policy = Policy(networks=[devnet.network])
    journal = user.home / "journal.sqlite"
    signer = LocalSigner.from_hex(user.wallet.key)
    with Buyer(signer=signer, policy=policy, journal=journal, networks=market.local.networks) as buyer:
        at = devnet.timestamp() - seconds_ago
        buyer.performer = buyer.performer.with_({Now: lambda _effect: at})
        with Exchange(buyer, describe_request("GET", f"https://a.example/{seconds_ago}", b"")) as exchange:
            paid = exchange.blocking(exchange.pay(demand))
            with pytest.raises(PaymentUnknown):
                exchange.blocking(exchange.conclude(NoAnswer("ReadTimeout")))
            return paid.payment_id
