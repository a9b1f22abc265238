"""What the clearing house's tests share: crawlers that sign, edges that upload, a house over a store of its own."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from farthing.clearing.flows import Desk
from farthing.clearing.intake import read_upload
from farthing.clearing.rules import Rules
from farthing.clearing.statements import leaves_of
from farthing.clearing.store import (
    Balances,
    FindPayer,
    FindRun,
    GrantLease,
    OpenWindow,
    Payer,
    RegisterPayee,
    RegisterPayer,
    StartEdge,
    TakeUpload,
)
from farthing.clearing.usdc import UsdcRail
from farthing.evm.signatures import PrivateKey
from farthing.flow import Effect, Flow, Now, RandomBytes, drive
from farthing.networks import KNOWN, Token
from farthing.protocol.clearing import (
    Commitment,
    KeyRecord,
    LeaseRequest,
    PublicJwk,
    Sent,
    UploadAnswer,
    UploadHeader,
)
from farthing.protocol.codec import encode_json
from farthing.signatures.keys import SignData, SigningKey, encode_base64url
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import agent_member, request_base, request_params
from farthing.world.clearing_store import ClearingStore
from farthing.world.keys import LocalSigner, signer_handlers
from farthing.world.performers import Performer

NETWORK = "clearing:test"
PAYEE = "news"
DOMAIN = "news.example"
# 2026-01-05, a Monday, at noon.
NOON = 1_767_614_400
DOLLAR = 1_000_000


class Crawler:
    """An agent with one key."""

    def __init__(self, directory: str = "https://crawler.example", seed: bytes = b"\x07" * 32) -> None:
        self.directory = directory
        self.key = SigningKey(seed)
        self._made = 0

    @property
    def record(self) -> KeyRecord:
        public = self.key.public_key
        jwk = PublicJwk("OKP", "Ed25519", encode_base64url(public.raw))
        return KeyRecord(public.thumbprint, jwk, self.directory, NOON)

    def commit(
        self,
        resource: str = "/a",
        *,
        at: int = NOON,
        amount: int = 10_000,
        payee: str = PAYEE,
        domain: str = DOMAIN,
        lease: str = "",
        sent: bool = True,
        network: str = NETWORK,
        **changes: Any,
    ) -> Commitment:
        self._made += 1
        path, mark, query = resource.partition("?")
        offer: dict[str, Any] = {
            "scheme": "batch-settlement",
            "network": network,
            "amount": str(amount),
            "asset": "USD",
        }
        offer |= {"payTo": payee, "maxTimeoutSeconds": 60}
        payment = {"x402Version": 2, "accepted": offer | {"extra": {"decimals": 6}}, "payload": {}}
        nonce = base64.b64encode(hashlib.sha512(f"{self.directory} {self._made} {resource}".encode()).digest()).decode()
        thumbprint = self.key.public_key.thumbprint
        times: dict[str, Any] = {"created": at, "expires": at + 60}
        text = request_params(**times, key_id=thumbprint, nonce=nonce, key="sig", with_digest=False)
        base = request_base(
            HttpRequest("GET", domain, path, mark + query, {}),
            text,
            agent_value=agent_member(self.directory),
            key="sig",
            payment=base64.b64encode(msgspec.json.encode(payment)).decode(),
            digest=None,
        )
        made = Commitment(
            id="sha256:" + hashlib.sha256(base).hexdigest(),
            payer=self.directory,
            payee=payee,
            key=thumbprint,
            method="GET",
            resource=f"https://{domain}{resource}",
            amount=str(amount),
            currency="USD",
            decimals=6,
            **times,
            committed=at,
            base=base.decode(),
            signature=base64.b64encode(self.key.sign(base)).decode(),
            lease=lease,
            sent=sent,
        )
        return msgspec.structs.replace(made, **changes)


def pack(
    lines: Iterable[Commitment | KeyRecord | Sent], *, edge: str = "edge-1", epoch: int = 1, sequence: int = 1
) -> bytes:
    """Write an upload."""
    header = UploadHeader(edge, epoch, sequence)
    return gzip.compress(b"".join(encode_json(each) + b"\n" for each in (header, *lines)), 1, mtime=0)


TREASURY = PrivateKey(b"\x01" * 32)


class House:
    """A clearing house over one store, driven step by step; the clock is the test's."""

    def __init__(self, store: str | Path, *, rules: Rules | None = None, token: Token | None = None) -> None:
        self.rules = rules or Rules(network=NETWORK)
        self.now = NOON
        self.signing = SigningKey(b"\x09" * 32)
        self.store = ClearingStore(store)
        token = token or next(iter(KNOWN.tokens("eip155:84532")))
        rail = UsdcRail(clearing_network=NETWORK, token=token, treasury=TREASURY.address, networks=KNOWN)
        self.desk = Desk(self.rules, {"USD": rail}, self.signing.public_key.thumbprint)
        self.performer = Performer(
            {
                **self.store.handlers(),
                **signer_handlers(LocalSigner(b"\x01" * 32)),
                Now: lambda _: self.now,
                RandomBytes: lambda effect: bytes(range(256)) * (effect.size_bytes // 256 + 1),
                SignData: lambda effect: self.signing.sign(effect.data),
            }
        )

    def ask(self, effect: Effect[Any]) -> Any:
        return self.performer.blocking(effect)

    def run(self, flow: Flow[Any]) -> Any:
        return drive(flow, self.performer.blocking)

    def open(self, *crawlers: Crawler, credit: int = 100 * DOLLAR, payees: dict[str, str] | None = None) -> House:
        """Open accounts, a window, and start an edge."""
        for name, domain in (payees or {PAYEE: DOMAIN}).items():
            self.ask(RegisterPayee(name, domain, "USD", PrivateKey(b"\x02" * 32).address, "challenge", self.now))
        for crawler in crawlers:
            self.ask(RegisterPayer(crawler.directory, "USD", credit, self.now))
        self.ask(OpenWindow(self.rules, self.now))
        self.ask(StartEdge("edge-1", self.now))
        return self

    def upload(self, body: bytes, payees: frozenset[str] = frozenset({PAYEE})) -> UploadAnswer:
        answer = self.ask(TakeUpload(read_upload(body, NETWORK), payees, (), self.rules, self.now))
        assert isinstance(answer, UploadAnswer)
        return answer

    def lease(
        self,
        crawler: Crawler,
        amount: int,
        *,
        edge: str = "edge-1",
        epoch: int = 1,
        request: str = "r1",
        seconds: int = 60,
    ) -> Any:
        asked = LeaseRequest(edge, epoch, request, crawler.directory, str(amount), "USD", seconds)
        return self.ask(GrantLease(asked, f"lease-{edge}-{request}", self.rules, self.now))

    def payer(self, crawler: Crawler) -> Payer:
        found = self.ask(FindPayer(crawler.directory))
        assert isinstance(found, Payer)
        return found

    def balances(self, *, pending: bool = False) -> dict[str, int]:
        """Balances by kind and owner."""
        found: dict[str, int] = self.ask(Balances(pending=pending))
        return {name: amount for name, amount in found.items() if amount}

    def total(self, kind: str) -> int:
        return sum(amount for name, amount in self.balances().items() if name.startswith(kind + "/"))

    def close(self) -> None:
        self.store.close()


def leaves(house: House, statement: str) -> list[bytes]:
    """All lines of a statement, as they are served."""
    found: list[bytes] = []
    number = 0
    while (body := house.ask(FindRun(statement, number))) is not None:
        found += leaves_of(body)
        number += 1
    return found
