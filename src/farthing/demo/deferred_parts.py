"""The processes of `farthing demo deferred`: sites, clearing house, edges, crawler; each the command that anybody runs.

Origins on loopback are no public ones, and every guard refuses them; what is written here allows the demo's own, each
by name.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from farthing.clients.crawl import MANIFEST
from farthing.demo.deferred_sites import AGENT_KEY_VARIABLE, PROOF_FILE, SitesOpened
from farthing.demo.parts import Child, PartFailed
from farthing.services.devnet import Devnet

NETWORK: Final = "clearing:demo"
PRICE: Final = "$0.001"
_HOST: Final = "127.0.0.1"
_TIMEOUT_SECONDS: Final = 60.0
# How often the crawler's list is looked at for the progress display.
_LOOK_SECONDS: Final = 0.2
_OK_BELOW: Final = 300
# Where the crawler keeps its pages, in the demo's folder.
_PAGES: Final = "pages"
# Who operates the demo's clearing house, and what its token is read from.
_OPERATOR_VARIABLE: Final = "FARTHING_DEMO_OPERATOR"


def clearing_config(*, folder: Path, devnet: Devnet, facilitator: str, domains: tuple[str, ...]) -> str:
    """Write the clearing house's configuration. `domains` are the publishers', which are this machine's own."""
    return f"""\
store = {json.dumps(str(folder / "clearing.sqlite"))}
tick_seconds = 1
private_domains = {json.dumps(domains)}

[server]
port = 0
operators = [{{ name = "demo", env = "{_OPERATOR_VARIABLE}" }}]

[statement_key]
key_env = "FARTHING_DEMO_STATEMENT_KEY"

[rules]
network = "{NETWORK}"
payout_min = 1

[usdc]
network = {json.dumps(devnet.network)}
rpc_urls = [{json.dumps(devnet.url)}]
treasury = {{ key_env = "FARTHING_DEMO_TREASURY_KEY" }}
facilitator = {json.dumps(facilitator)}
one_to_one = true
first_block = 0

[usdc.asset]
address = {json.dumps(devnet.usdc)}
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""


def edge_config(*, name: str, folder: Path, port: int, site: str, payee: str, clearing: str, agent: str) -> str:
    """Write an edge's configuration. `agent` is the origin of the crawler's key directory."""
    return f"""\
name = {json.dumps(name)}
base_url = ""
store = {json.dumps(str(folder / f"{name}.sqlite"))}

[clearing]
url = {json.dumps(clearing)}
network = "{NETWORK}"
token_env = "FARTHING_DEMO_EDGE_TOKEN"
payee = {json.dumps(payee)}

[receipts]
key_env = "FARTHING_DEMO_RECEIPT_KEY"

[upstream]
url = {json.dumps(site)}

[[route]]
route = "GET /articles/{{number}}"
price = "{PRICE}"

[server]
port = {port}
reuse_port = {json.dumps(hasattr(socket, "SO_REUSEPORT"))}

[directories]
allowed = [{json.dumps(agent)}]
"""


class House:
    """The clearing house that runs, asked as its operator."""

    def __init__(self, url: str, treasury: str, token: str) -> None:
        """Ask at `url`."""
        self.url = url
        self.treasury = treasury
        self._http = httpx2.Client(
            base_url=url, timeout=_TIMEOUT_SECONDS, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for JSON. Raises `PartFailed` for a refusal."""
        answer = self._http.request(method, path, json=body)
        if answer.status_code >= _OK_BELOW:
            message = f"The clearing house refused {method} {path}: {answer.status_code} {answer.text[:500]}"
            raise PartFailed(message)
        return answer.json()

    def lines(self, statement: str) -> list[dict[str, str]]:
        """Give all lines of a statement."""
        answer = self._http.get(f"/statements/{statement}/lines")
        return [json.loads(line) for line in answer.raise_for_status().text.splitlines()]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


@contextlib.contextmanager
def sites(
    folder: Path, articles: tuple[int, ...], agent_key: bytes, environment: Mapping[str, str]
) -> Generator[Callable[[], SitesOpened]]:
    """Start the publishers' sites and the agent's directory; the callable waits for them."""
    child = Child(
        "sites",
        "farthing.demo.deferred_sites",
        *(str(folder), *map(str, articles)),
        environment={**environment, AGENT_KEY_VARIABLE: agent_key.hex()},
        stderr=None,
    )
    try:
        yield lambda: msgspec.json.decode(child.ready(), type=SitesOpened)
    finally:
        child.end()


@contextlib.contextmanager
def clearing(
    *, folder: Path, devnet: Devnet, facilitator: str, domains: tuple[str, ...], environment: Mapping[str, str]
) -> Generator[House]:
    """Start `farthing clearing`, and wait for it."""
    config = folder / "clearing.toml"
    config.write_text(
        clearing_config(folder=folder, devnet=devnet, facilitator=facilitator, domains=domains), encoding="utf-8"
    )
    operator = secrets.token_urlsafe(32)
    own = {
        _OPERATOR_VARIABLE: operator,
        "FARTHING_DEMO_STATEMENT_KEY": secrets.token_hex(32),
        "FARTHING_DEMO_TREASURY_KEY": secrets.token_hex(32),
    }
    child = Child(
        "clearing house",
        "farthing.demo.child",
        *("clearing", "--config", str(config), "--json", "--log-level", "error"),
        environment={**environment, **own},
        stderr=None,
    )
    try:
        said = json.loads(child.ready())
        house = House(said["url"], said["treasury"], operator)
        try:
            yield house
        finally:
            house.close()
    finally:
        child.end()


@contextlib.contextmanager
def edge(
    config: str, *, name: str, folder: Path, token: str, environment: Mapping[str, str]
) -> Generator[Callable[[], str]]:
    """Start `farthing edge`; the callable waits for it and gives its URL."""
    path = folder / f"{name}.toml"
    path.write_text(config, encoding="utf-8")
    log = (folder / f"{name}.log").open("wb")
    own = {"FARTHING_DEMO_EDGE_TOKEN": token, "FARTHING_DEMO_RECEIPT_KEY": secrets.token_hex(32)}
    child = Child(
        f"edge {name}",
        "farthing.demo.child",
        *("edge", "--config", str(path), "--json"),
        environment={**environment, **own},
        stderr=log,
    )

    def ready() -> str:
        try:
            return str(json.loads(child.ready())["url"])
        except PartFailed:
            sys.stderr.write(path.with_suffix(".log").read_text("utf-8", "replace"))
            raise

    try:
        yield ready
    finally:
        child.end()
        log.close()


class Crawled(msgspec.Struct, frozen=True):
    """How the crawl ended, by the crawler's own account, and the list of what it keeps."""

    said: dict[str, Any]
    pages: list[dict[str, Any]]

    @property
    def bought(self) -> int:
        """Pages on the list that were paid for."""
        return sum(1 for page in self.pages if page.get("payment_id"))


def crawl_command(urls: tuple[str, ...], *, folder: Path, agent: str, budget: str) -> tuple[str, ...]:
    """Write the crawler's command line, without its key. The sites' key directories are allowed by name."""
    allowed = (word for url in urls for word in ("--directory", url))
    places = ("--journal", str(journal_path(folder)), "--output", str(folder / _PAGES))
    starts = (f"{url}/" for url in urls)
    return (
        *("crawl", *starts, "--network", NETWORK, "--agent", agent, *allowed),
        *("--budget", budget, *places, "--yes", "--json"),
    )


def crawl(
    urls: tuple[str, ...],
    *,
    folder: Path,
    agent: str,
    agent_key: bytes,
    budget: str,
    environment: Mapping[str, str],
    watch: Callable[[int], object],
) -> Crawled:
    """Run `farthing crawl` to its end; `watch` is told how many pages are kept. Raises `PartFailed`."""
    output = folder / _PAGES
    child = Child(
        "crawler",
        "farthing.demo.child",
        *crawl_command(urls, folder=folder, agent=agent, budget=budget),
        environment={**environment, AGENT_KEY_VARIABLE: agent_key.hex()},
        stderr=None,
    )
    try:
        _follow(child.process, output / MANIFEST, watch)
        told = child.process.stdout.read() if child.process.stdout is not None else b""
    finally:
        child.end()
    if child.process.returncode:
        message = f"The crawler ended with exit status {child.process.returncode}; what it said stands above."
        raise PartFailed(message)
    listed = (output / MANIFEST).read_text("utf-8").splitlines()
    return Crawled(json.loads(told), [json.loads(line) for line in listed])


def _follow(process: subprocess.Popen[bytes], listed: Path, watch: Callable[[int], object]) -> None:
    pages, offset = 0, 0
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
        if listed.exists():
            with listed.open("rb") as file:
                file.seek(offset)
                new = file.read()
            pages, offset = pages + new.count(b"\n"), offset + len(new)
            watch(pages)


def journal_path(folder: Path) -> Path:
    """Where the crawler's journal is."""
    return folder / "journal.sqlite"


def show_proof(folder: Path, number: int, challenge: str) -> None:
    """Put the clearing house's challenge on a publisher's site."""
    (folder / PROOF_FILE.format(number=number)).write_text(challenge + "\n", encoding="utf-8")


@contextlib.contextmanager
def reserved_ports(count: int) -> Generator[tuple[int, ...]]:
    """Take free ports for processes that are still to start, since the clearing house knows publishers by them."""
    with contextlib.ExitStack() as stack:
        held: list[socket.socket] = []
        for _ in range(count):
            each = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # Bound and never listened on: it keeps the port from others, and no connection comes to it.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind((_HOST, 0))
            held.append(each)
        ports = tuple(each.getsockname()[1] for each in held)
        if not hasattr(socket, "SO_REUSEPORT"):
            stack.close()
        yield ports


def health(url: str) -> dict[str, int]:
    """Ask an edge how it is."""
    answer = httpx2.get(f"{url}/.well-known/farthing-edge", timeout=_TIMEOUT_SECONDS, trust_env=False)
    found: dict[str, int] = answer.raise_for_status().json()
    return found
