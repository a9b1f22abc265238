"""A clearing network in real processes: chain, facilitator, clearing house, edges before a site, and a crawler."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.clients.httpx import PayingTransport
from farthing.signatures import SigningKey
from farthing.world.agent_keys import AgentSigner
from farthing.world.directories import Directories, DirectoryServer, directory_app

if TYPE_CHECKING:
    from tests.local_services import LocalServices

NETWORK = "clearing:test"
SECONDS = 60.0
OPERATOR = "operator-token-of-the-test"


class Process:
    """One of our commands, running."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log.open("a", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "farthing", *command, "--json"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, log.read_text("utf-8")
        self.url = str(json.loads(line)["url"])

    @property
    def died(self) -> bool:
        return self.process.poll() == -signal.SIGKILL

    def kill(self) -> None:
        """End it as power loss would."""
        self.process.kill()
        self.process.wait(SECONDS)

    def end(self) -> None:
        """End it as an operator would."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait(SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self._log.close()


class ClearingNetwork:
    """Starts it all, and knows everybody's tokens."""

    def __init__(self, local: LocalServices, folder: Path) -> None:
        self.local = local
        self.folder = folder
        self.agent_key = SigningKey(b"\x07" * 32)
        self.treasury = local.wallet()
        self.payee = local.wallet()
        self.served: list[str] = []
        # Called while the site works on a page.
        self.on_page: Callable[[str], object] = self.served.append
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.site_url = self.local.serve(lambda _url: Starlette(routes=[Route("/{path:path}", self._page)]))
        self.agent_url = self.local.serve(self._directory)
        self.start_clearing()
        self.http = self._ends.enter_context(httpx2.Client(timeout=SECONDS))
        self.operate("POST", "/payers", {"payer": self.agent_url, "creditLimit": "1000000000", "currency": "USD"})
        self.tokens: dict[str, str] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()

    def start_clearing(self, port: int = 0) -> None:
        """Start the clearing house, or start it again where it was."""
        config = self.folder / "clearing.toml"
        config.write_text(
            f"""
store = "{self.folder / "clearing.sqlite3"}"
tick_seconds = 1
[server]
port = {port}
operators = [{{ name = "anna", env = "OPERATOR_TOKEN" }}]
[statement_key]
key_env = "STATEMENT_KEY"
[rules]
network = "{NETWORK}"
payout_min = 1
[usdc]
network = "{self.local.devnet.network}"
rpc_urls = ["{self.local.devnet.url}"]
treasury = {{ key_env = "TREASURY_KEY" }}
facilitator = "{self.local.facilitator_url}"
one_to_one = true
first_block = 0
[usdc.asset]
address = "{self.local.devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
""",
            "utf-8",
        )
        environment = {"OPERATOR_TOKEN": OPERATOR, "STATEMENT_KEY": "09" * 32, "TREASURY_KEY": self.treasury.key}
        self.clearing = Process(["clearing", "--config", str(config)], environment, self.folder / "clearing.log")
        self._ends.callback(self.clearing.end)

    def operate(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the clearing house as its operator."""
        answer = self.http.request(
            method, self.clearing.url + path, json=body, headers={"Authorization": f"Bearer {OPERATOR}"}
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def start_edge(self, name: str, *, port: int = 0, crash_at: str = "") -> Process:
        """Start an edge, or start it again where it was; perhaps one that ends at a place."""
        if name not in self.tokens:
            made = self.operate("POST", "/tokens", {"name": name, "role": "edge", "subject": f"news-{name}"})
            self.tokens[name] = made["token"]
        config = self.folder / f"{name}.toml"
        config.write_text(
            f"""
name = "{name}"
base_url = ""
store = "{self.folder / name}.sqlite3"
[clearing]
url = "{self.clearing.url}"
network = "{NETWORK}"
token_env = "EDGE_TOKEN"
payee = "news-{name}"
[receipts]
key_env = "RECEIPT_KEY"
[upstream]
url = "{self.site_url}"
[[route]]
route = "GET /articles/{{number}}"
price = "$0.001"
[[route]]
route = "GET /dear/{{number}}"
price = "$0.002"
[[route]]
route = "GET /kept/{{number}}"
price = "$0.001"
payment_identifier = "required"
[server]
port = {port}
[directories]
allowed = ["{self.agent_url}"]
""",
            "utf-8",
        )
        environment = {"EDGE_TOKEN": self.tokens[name], "RECEIPT_KEY": "08" * 32}
        if crash_at:
            environment["FARTHING_CRASH_AT"] = crash_at
        edge = Process(["edge", "--config", str(config)], environment, self.folder / f"{name}.log")
        self._ends.callback(edge.end)
        # A payee bills for its own domain alone.
        account = {"payee": f"news-{name}", "domain": edge.url.removeprefix("http://"), "address": self.payee.address}
        self.operate("POST", "/payees", account)
        return edge

    def buyer(self, name: str, edges: list[str]) -> Buyer:
        """A crawler's purse."""
        made = Buyer(
            agent=AgentSigner(self.agent_url, self.agent_key),
            policy=Policy(networks=[NETWORK], per_request="$0.01", total="$10", private_hosts=["127.0.0.1"]),
            journal=self.folder / f"{name}.sqlite3",
            directories=Directories(allowed=edges),
        )
        self._ends.callback(made.close)
        return made

    def client(self, buyer: Buyer) -> httpx2.Client:
        """A crawler."""
        return self._ends.enter_context(httpx2.Client(transport=PayingTransport(buyer), timeout=SECONDS))

    def lines(self, *edges: Process) -> list[dict[str, Any]]:
        """Close the window, and give the lines of all statements that are about these edges."""
        self.operate("POST", "/window/close")
        found: list[dict[str, Any]] = []
        for statement in self.operate("GET", "/statements"):
            answer = self.http.get(
                f"{self.clearing.url}/statements/{statement['statement']}/lines",
                headers={"Authorization": f"Bearer {OPERATOR}"},
            )
            assert answer.status_code == 200, answer.text
            found += [json.loads(line) for line in answer.text.splitlines()]
        return [line for line in found if line["resource"].startswith(tuple(each.url for each in edges))]

    def wait_uploaded(self, edge: Process) -> None:
        """Wait until the clearing house has all that this edge logged."""
        self.wait(lambda: self.http.get(edge.url + "/.well-known/farthing-edge").json()["waiting"] == 0)

    def wait(self, what: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = SECONDS * 10
        while not what():
            signal.sigtimedwait([], 0.1)
            deadline -= 1
            assert deadline > 0

    async def _page(self, request: Request) -> PlainTextResponse:
        self.on_page(request.url.path)
        return PlainTextResponse(f"the text of {request.url.path}")

    def _directory(self, url: str) -> Any:
        return directory_app(DirectoryServer(url.removeprefix("http://"), [self.agent_key]))
