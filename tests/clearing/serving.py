"""A clearing house that is served, with a real facilitator, a real chain, and everybody's tokens."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
from town import DOLLAR, Crawler, pack

from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.protocol.codec import encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import StatementPayment, StatementStatus
from farthing.services.clearing import ClearingService, read_config
from farthing.services.clearing.app import make_app
from farthing.services.clearing.callers import Operators
from farthing.services.devnet import Devnet
from farthing.services.facilitator import FacilitatorService
from farthing.services.facilitator import read_config as read_facilitator_config

OPERATOR = "operator-token-of-the-test"
DEADLINE_SECONDS = 30.0
PROOF = "/.well-known/farthing-clearing"


class Town:
    """Keys and configurations for one devnet."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.folder = folder
        self.secrets = {
            name: secrets.token_bytes(32) for name in ("treasury", "payer", "payee", "wallet", "statements")
        }
        self.crawler = Crawler()
        devnet.faucet(self.address("payer"), usdc=100)
        devnet.faucet(self.address("wallet"), eth=10)

    def address(self, name: str) -> str:
        return PrivateKey(self.secrets[name]).address

    @property
    def environment(self) -> dict[str, str]:
        keys = {f"{name.upper()}_KEY": secret.hex() for name, secret in self.secrets.items()}
        return {**keys, "OPERATOR_TOKEN": OPERATOR}

    def asset(self, table: str) -> str:
        return f"""
[{table}]
address = "{self.devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""

    def config(
        self, *, store: str = "", facilitator: str = "http://127.0.0.1:1", private: str = "", rules: str = ""
    ) -> str:
        return f"""
store = "{store or self.folder / "clearing.sqlite3"}"
tick_seconds = 3600
private_domains = [{f'"{private}"' if private else ""}]
[server]
operators = [{{ name = "anna", env = "OPERATOR_TOKEN" }}]
[statement_key]
key_env = "STATEMENTS_KEY"
[rules]
network = "clearing:test"
payout_min = 1
{rules}
[usdc]
network = "{self.devnet.network}"
rpc_urls = ["{self.devnet.url}"]
treasury = {{ key_env = "TREASURY_KEY" }}
facilitator = "{facilitator}"
one_to_one = true
first_block = 0
{self.asset("usdc.asset")}
"""

    def facilitator(self) -> FacilitatorService:
        text = f"""
store = "{self.folder / "facilitator.sqlite3"}"
[wallet]
key_env = "WALLET_KEY"
[fees]
max_fee_per_gas_gwei = "100"
[[network]]
id = "{self.devnet.network}"
rpc_urls = ["{self.devnet.url}"]
{self.asset("network.token").replace("[network.token]", "[[network.token]]")}
"""
        return FacilitatorService.from_config(read_facilitator_config(text), environment=self.environment)

    def pay(self, status: StatementStatus, terms: Any, **changes: Any) -> StatementPayment:
        """Sign a statement's payment as its payer."""
        message = {
            "from_": parse_address(self.address("payer")),
            "to": parse_address(terms.pay_to),
            "value": int(status.payable),
            "valid_after": 0,
            "valid_before": terms.valid_before,
            "nonce": bytes.fromhex(terms.reference[2:]),
            **changes,
        }
        authorization = TransferWithAuthorization(**message)
        token = parse_address(terms.asset)
        digest = authorization.digest(Domain("USDC", "2", self.devnet.chain_id, token))
        detail = ExactDetail(
            self.devnet.chain_id, token, authorization, PrivateKey(self.secrets["payer"]).sign_digest(digest)
        )
        accepted = PaymentRequirements(
            scheme="exact",
            network=terms.network,
            amount=str(message["value"]),
            asset=terms.asset,
            pay_to=checksum_address(authorization.to),
            max_timeout_seconds=3_600,
            extra={"name": "USDC", "version": "2"},
        )
        return StatementPayment(PaymentPayload(accepted, msgspec.Raw(encode_json(write_payload(detail)))))


class Client:
    """Somebody with a token."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self.http = http
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        content = body if isinstance(body, bytes) or body is None else encode_json(body)
        answer = await self.http.request(method, path, content=content, headers=self.headers)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if answer.headers["content-type"].endswith(("/json", "+json")) else answer

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        return await self.ask("POST", path, body, status=status)

    async def get(self, path: str, *, status: int = 200) -> Any:
        return await self.ask("GET", path, status=status)


class Served:
    """A clearing house over HTTP."""

    def __init__(self, service: ClearingService, http: httpx.AsyncClient) -> None:
        self.service = service
        self.http = http
        self.operator = Client(http, OPERATOR)

    async def client(self, name: str, role: str, subject: str) -> Client:
        made = await self.operator.post("/tokens", {"name": name, "role": role, "subject": subject})
        return Client(self.http, made["token"])


class Parties:
    """Everybody's clients, and accounts that are open."""

    def __init__(self, town: Town, served: Served, authority: str) -> None:
        self.town, self.served, self.authority = town, served, authority
        self.edge: Client
        self.payer: Client

    async def open(self, texts: dict[str, str]) -> Parties:
        operator, crawler = self.served.operator, self.town.crawler
        await operator.post("/payers", {"payer": crawler.directory, "creditLimit": str(50 * DOLLAR)})
        payee = {"payee": "news", "domain": self.authority, "address": self.town.address("payee")}
        made = await operator.post("/payees", payee)
        texts[PROOF] = made["challenge"]
        assert (await operator.post("/payees/news/prove"))["proved"] is True
        self.edge = await self.served.client("edge-1", "edge", "news")
        self.payer = await self.served.client("crawler", "payer", crawler.directory)
        return self

    async def read_pages(self, count: int, *, sequence: int = 1) -> list[Any]:
        """Lease, commit, upload, close the lease."""
        crawler = self.town.crawler
        epoch = (await self.edge.post("/edges/edge-1/start"))["epoch"]
        asked = {"edge": "edge-1", "epoch": epoch, "request": "r1", "payer": crawler.directory, "currency": "USD"}
        lease = await self.edge.post("/leases", asked | {"amount": str(5 * DOLLAR), "seconds": 60})
        now = int(time.time())
        lines = [
            crawler.commit(f"/{sequence}/{n}", at=now, domain=self.authority, lease=lease["lease"])
            for n in range(count)
        ]
        body = pack([crawler.record, *lines], epoch=epoch, sequence=sequence)
        assert (await self.edge.post("/uploads", body))["accepted"] == count
        close = {"lease": lease["lease"], "sequence": sequence, "count": count, "total": str(10_000 * count)}
        assert (await self.edge.post("/leases/close", close))["closed"] is True
        return lines

    async def statement(self) -> tuple[Any, StatementStatus]:
        """The newest statement and where it stands."""
        listed = await self.payer.get("/statements")
        answer = await self.payer.get(f"/statements/{listed[-1]['statement']}")
        return open_statement(answer["jws"])[0], msgspec.convert(answer["status"], StatementStatus)


@asynccontextmanager
async def serving(town: Town, facilitator: FacilitatorService, **config: str) -> AsyncIterator[Served]:
    loaded = read_config(town.config(**config))
    service = ClearingService.from_config(loaded, environment=town.environment, facilitator=facilitator)
    async with service:
        app = make_app(service, Operators(loaded.server, town.environment))
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://house", timeout=30) as http:
            yield Served(service, http)


@contextmanager
def website(texts: dict[str, str]) -> Iterator[str]:
    """A site on loopback that shows texts by path; its authority."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.get(self.path)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def until(condition: Callable[[], Awaitable[Any]], *, what: str) -> Any:
    """Poll a real condition until it holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.02)
    return found
