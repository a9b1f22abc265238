"""A town on loopback: a chain, a real facilitator, real shops, buyers with money. What the stand-ins stand before.

with start_devnet() as devnet, Town(devnet) as town:
shop = town.shop("$0.01")
with HostileSeller(shop.url, SellerMode.CUT_AFTER_SETTLING) as hostile, town.buyer() as buyer:
...
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import uvicorn

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.evm.signatures import PrivateKey
from farthing.networks import KNOWN, Networks, Token
from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.services.devnet import Devnet
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.auth import Tokens
from farthing.services.facilitator.server import serve
from farthing.testing.clock import VirtualClock
from farthing.world.facilitator_client import RemoteFacilitator
from farthing.world.keys import LocalSigner

# Imports and the first block, on a machine that does other things too.
START_MAX_SECONDS: Final = 60.0
GOODS: Final = b'{"sky": "clear", "wind": "west"}'
PATH: Final = "/weather"

_CONFIG: Final = """
store = "{store}"
[wallet]
key_env = "KEY"
[[network]]
id = "{network}"
rpc_urls = ["{url}"]
[[network.token]]
address = "{usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Account(msgspec.Struct, frozen=True):
    """An account of the devnet and its private key (hex); the key is worth nothing anywhere else."""

    address: str
    key: str

    def __repr__(self) -> str:
        return f"Account({self.address!r})"


class Shop:
    """A real seller on a socket: `url` and `path` to ask, `payee` to be paid, `served` how often its work was done."""

    def __init__(self, payee: str) -> None:
        """Open for `payee`; `Town.shop` gives it a door."""
        self.payee = payee
        self.url = ""
        self.path = PATH
        self.served = 0
        self.seller: Seller | None = None

    @property
    def price_url(self) -> str:
        """What has a price."""
        return self.url + self.path

    async def work(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve the goods, as an ASGI application behind the door."""
        if scope["type"] != "http":
            return
        self.served += 1
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": GOODS})


class Town:
    """What is started here ends with it, in the reverse order; its files lie in a folder of its own."""

    def __init__(self, devnet: Devnet, *, clock: VirtualClock | None = None) -> None:
        """Stand on `devnet`; `clock` is the time of everybody here (by default the wall clock's)."""
        self.devnet = devnet
        self.clock = clock or VirtualClock(devnet)
        self._ends = contextlib.ExitStack()
        self._folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="farthing-town-")))
        self._facilitator_url = ""
        # All are told to end before one is waited for.
        self._stops: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for stop in self._stops:
            stop()
        self._ends.close()

    @property
    def networks(self) -> Networks:
        """The known networks, and the devnet's dollar."""
        network, usdc = self.devnet.network, self.devnet.usdc
        token = Token(network=network, address=usdc, symbol="USDC", decimals=6, eip712_name="USDC", eip712_version="2")
        return KNOWN.with_token(token)

    @property
    def facilitator_url(self) -> str:
        """A real facilitator on a socket, started when first asked for."""
        if not self._facilitator_url:
            self._facilitator_url = self._start_facilitator()
        return self._facilitator_url

    def account(self, *, usdc: str | int = 0, eth: str | int = 0) -> Account:
        """Make a fresh account with this much money, in whole units."""
        key = secrets.token_bytes(32)
        account = Account(PrivateKey(key).address, "0x" + key.hex())
        if usdc or eth:
            self.devnet.faucet(account.address, usdc=usdc, eth=eth)
        return account

    def buyer(self, account: Account | None = None, **policy: Any) -> Buyer:
        """Make a buyer with a journal of its own; `policy` goes to `Policy` (by default $1 a request, $100 in all)."""
        payer = account or self.account(usdc=100)
        limits: dict[str, Any] = {"networks": [self.devnet.network], "per_request": "$1", "total": "$100"}
        buyer = Buyer(
            signer=LocalSigner(bytes.fromhex(payer.key[2:])),
            policy=Policy(**limits | policy),
            journal=self._path("journal.sqlite"),
            networks=self.networks,
        )
        self._ends.callback(buyer.close)
        self.clock.attach(buyer)
        return buyer

    def shop(
        self,
        price: str = "$0.01",
        *,
        facilitator_url: str = "",
        payment_flow: Literal["authorization", "upfront"] = "authorization",
        verify_timeout_seconds: float = 10.0,
        settle_timeout_seconds: float = 30.0,
    ) -> Shop:
        """Open a shop that sells `GET /weather` and settles through `facilitator_url` (by default the town's)."""
        shop = Shop(self.account().address)
        facilitator = RemoteFacilitator(
            facilitator_url or self.facilitator_url,
            verify_timeout_seconds=verify_timeout_seconds,
            settle_timeout_seconds=settle_timeout_seconds,
        )
        server = _Server(uvicorn.Config(_placeholder, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
        listening = server.config.bind_socket()
        self._ends.callback(listening.close)
        shop.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        seller = shop.seller = Seller(
            pay_to=shop.payee,
            network=self.devnet.network,
            facilitator=facilitator,
            base_url=shop.url,
            store=self._path("seller.sqlite"),
            networks=self.networks,
        )
        self._ends.callback(seller.close)
        self.clock.attach(seller)
        seller.price(f"GET {PATH}", price, description="The weather now", payment_flow=payment_flow)
        server.config.app = PaymentMiddleware(shop.work, seller=seller)

        async def run() -> None:
            try:
                await server.serve([listening])
            finally:
                await facilitator.aclose()

        self._run("shop", run, server.ready)
        self._stops.append(server.end)
        return shop

    def _path(self, name: str) -> Path:
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        return folder / name

    def _start_facilitator(self) -> str:
        facts = {"store": self._path("facilitator.sqlite"), "network": self.devnet.network, "usdc": self.devnet.usdc}
        config = read_config(_CONFIG.format(**facts, url=self.devnet.url))
        service = FacilitatorService.from_config(config, environment={"KEY": self.account(eth=10).key})
        service.clock = self.clock.handlers()
        url: list[str] = []
        ready = threading.Event()
        loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

        def told(found: str) -> None:
            url.append(found)
            ready.set()

        async def run() -> None:
            task = asyncio.current_task()
            if task is not None:
                loops.append((asyncio.get_running_loop(), task))
            with contextlib.suppress(asyncio.CancelledError):
                await serve(service, tokens=Tokens({}), host="127.0.0.1", port=0, ready=told, signals=False)

        def end() -> None:
            for loop, task in loops:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(task.cancel)

        self._run("facilitator", run, ready)
        self._stops.append(end)
        return url[0]

    def _run(self, name: str, run: Callable[[], Awaitable[None]], ready: threading.Event) -> None:
        failed: list[BaseException] = []

        async def main() -> None:
            await run()

        def body() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:  # noqa: BLE001 - told by the thread that waits
                failed.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=body, name=f"town-{name}", daemon=True)
        self._ends.callback(thread.join, START_MAX_SECONDS)
        thread.start()
        if not ready.wait(START_MAX_SECONDS) or failed:
            message = f"The town's {name} did not start in {START_MAX_SECONDS:g} s: {failed or 'it says nothing'}."
            raise RuntimeError(message)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    def end(self) -> None:
        self.should_exit = True


async def _placeholder(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand in until the shop's address, which its offers name, is known."""
