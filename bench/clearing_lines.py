"""Uploads for the benches of the clearing house: signed commitments of several crawlers for several payees."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
from collections.abc import Iterator
from typing import Final

import msgspec

from farthing.clearing.flows import Desk
from farthing.clearing.rules import Rules
from farthing.clearing.store import OpenWindow, RegisterPayee, RegisterPayer, StartEdge
from farthing.clearing.usdc import UsdcRail
from farthing.networks import KNOWN
from farthing.protocol.clearing import Commitment, KeyRecord, PublicJwk, UploadHeader
from farthing.protocol.codec import encode_json
from farthing.signatures.keys import SigningKey, encode_base64url
from farthing.signatures.messages import HttpRequest
from farthing.signatures.profile import agent_member, request_base, request_params
from farthing.world.performers import Performer

NETWORK: Final = "clearing:bench"
EDGE: Final = "edge"
PAYERS: Final = 8
PAYEES: Final = 8
# Some seconds of a busy edge.
UPLOAD_LINES: Final = 5_000
AMOUNT: Final = 1_000
NOW: Final = 1_767_614_400
_LEVEL: Final = 6


class Agent:
    """A crawler with a key."""

    def __init__(self, number: int) -> None:
        self.directory = f"https://crawler-{number}.example"
        self.key = SigningKey(hashlib.sha256(self.directory.encode()).digest())
        self.member = agent_member(self.directory)
        public = self.key.public_key
        jwk = PublicJwk("OKP", "Ed25519", encode_base64url(public.raw))
        self.record = KeyRecord(public.thumbprint, jwk, self.directory, NOW)

    def commit(self, number: int) -> Commitment:
        """Sign for one page."""
        payee = number % PAYEES
        name, domain = f"payee-{payee}", f"site-{payee}.example"
        path = f"/articles/{number // PAYEES}/an-article-with-a-name-of-usual-length"
        accepted = {
            "scheme": "batch-settlement",
            "network": NETWORK,
            "amount": str(AMOUNT),
            "asset": "USD",
            "payTo": name,
            "maxTimeoutSeconds": 60,
            "extra": {"version": "1", "decimals": 6},
        }
        resource = f"https://{domain}{path}"
        payment = {"x402Version": 2, "resource": {"url": resource}, "accepted": accepted, "payload": {}}
        nonce = base64.b64encode(hashlib.sha512(f"{self.directory} {number}".encode()).digest()).decode()
        thumbprint = self.key.public_key.thumbprint
        text = request_params(
            created=NOW, expires=NOW + 60, key_id=thumbprint, nonce=nonce, key="sig", with_digest=False
        )
        base = request_base(
            HttpRequest("GET", domain, path, "", {}),
            text,
            agent_value=self.member,
            key="sig",
            payment=base64.b64encode(msgspec.json.encode(payment)).decode(),
            digest=None,
        )
        return Commitment(
            id="sha256:" + hashlib.sha256(base).hexdigest(),
            payer=self.directory,
            payee=name,
            key=thumbprint,
            method="GET",
            resource=resource,
            amount=str(AMOUNT),
            currency="USD",
            decimals=6,
            created=NOW,
            expires=NOW + 60,
            committed=NOW,
            base=base.decode(),
            signature=base64.b64encode(self.key.sign(base)).decode(),
            sent=True,
        )


def uploads(count: int, *, payers: int = PAYERS, sequence: int = 1) -> Iterator[bytes]:
    """Make uploads of `count` commitments in all, as an edge sends them; `sequence` names the first, and its lines."""
    agents = [Agent(number) for number in range(payers)]
    lines = (agents[number % payers].commit(number // payers) for number in itertools.count(sequence - 1))
    for first in range(0, count, UPLOAD_LINES):
        records = [agent.record for agent in agents] if first == 0 else []
        header = UploadHeader(EDGE, 1, sequence + first // UPLOAD_LINES)
        chosen = itertools.islice(lines, min(UPLOAD_LINES, count - first))
        yield gzip.compress(b"".join(encode_json(each) + b"\n" for each in (header, *records, *chosen)), _LEVEL)


def open_accounts(performer: Performer, *, payers: int = PAYERS) -> tuple[Desk, SigningKey, frozenset[str]]:
    """Open the accounts that the uploads name; the desk, the key that signs statements, and the payees' names."""
    rules = Rules(network=NETWORK)
    names = [f"payee-{number}" for number in range(PAYEES)]
    for number, name in enumerate(names):
        performer.blocking(RegisterPayee(name, f"site-{number}.example", "USD", "", "challenge", NOW))
    for number in range(payers):
        performer.blocking(RegisterPayer(f"https://crawler-{number}.example", "USD", 10**12, NOW))
    performer.blocking(OpenWindow(rules, NOW))
    performer.blocking(StartEdge(EDGE, NOW))
    key = SigningKey(b"\x05" * 32)
    token = next(iter(KNOWN.tokens("eip155:84532")))
    rail = UsdcRail(clearing_network=NETWORK, token=token, treasury=token.address, networks=KNOWN)
    return Desk(rules, {"USD": rail}, key.public_key.thumbprint), key, frozenset(names)
