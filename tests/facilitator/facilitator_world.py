"""Wallets with ether, payers with dollars, payments, and services on a devnet: what the facilitator's tests share."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from farthing.evm.addresses import parse_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.facilitator.desk import Limits
from farthing.facilitator.store import AcquireLease, ReleaseLease
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.protocol.codec import decode_payment_json, encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements, VerifyRequest
from farthing.services.devnet import Devnet
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.lane import Pace
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.performers import Performer

AMOUNT = 12_345
# Real conditions are polled for this long before a test gives up; a busy machine is no bug.
DEADLINE_SECONDS = 20.0


class Party(NamedTuple):
    key: PrivateKey
    secret: str

    @property
    def address(self) -> str:
        return self.key.address


def make_party() -> Party:
    secret = secrets.token_bytes(32)
    return Party(PrivateKey(secret), "0x" + secret.hex())


class Payment(NamedTuple):
    payload: PaymentPayload
    requirements: PaymentRequirements

    @property
    def body(self) -> bytes:
        return encode_json(VerifyRequest(self.payload, self.requirements))

    @property
    def payment_id(self) -> str:
        return ExactEvmFacilitator().read(self.payload).payment_id


class World:
    """A devnet with a payer, a payee, and a hot wallet of this test alone."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.folder = folder
        self.store = str(folder / "facilitator.sqlite3")
        # Keys of more wallets, by the environment variable that has them.
        self.secrets: dict[str, str] = {}
        self.payer, self.payee, self.wallet = make_party(), make_party(), make_party()
        devnet.faucet(self.payer.address, usdc=100)
        devnet.faucet(self.wallet.address, eth=10)

    @property
    def config_text(self) -> str:
        return f"""
store = "{self.store}"
[wallet]
key_env = "WALLET_KEY"
[fees]
max_fee_per_gas_gwei = "100"
[[network]]
id = "{self.devnet.network}"
rpc_urls = ["{self.devnet.url}"]
[[network.token]]
address = "{self.devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "WALLET_KEY": self.wallet.secret, **self.secrets}

    def service(self, *, config: str = "", pace: Pace | None = None, **limits: Any) -> FacilitatorService:
        loaded = read_config(config or self.config_text)
        loaded = msgspec.structs.replace(loaded, limits=Limits(**{"settle_timeout_seconds": 20, **limits}))
        return FacilitatorService.from_config(loaded, environment=self.environment, pace=pace)

    def requirements(self, **changes: Any) -> PaymentRequirements:
        offer = PaymentRequirements(
            scheme="exact",
            network=self.devnet.network,
            amount=str(AMOUNT),
            asset=self.devnet.usdc,
            pay_to=self.payee.address,
            max_timeout_seconds=300,
            extra={"name": "USDC", "version": "2"},
        )
        return msgspec.structs.replace(offer, **changes)

    def payment(
        self,
        *,
        payer: Party | None = None,
        nonce: bytes | None = None,
        window_seconds: int = 300,
        valid_after: int = 0,
        requirements: PaymentRequirements | None = None,
        **signed: Any,
    ) -> Payment:
        offer = requirements or self.requirements()
        payer = payer or self.payer
        fields = {
            "from_": parse_address(payer.address),
            "to": parse_address(offer.pay_to),
            "value": offer.atomic,
            "valid_after": valid_after,
            "valid_before": int(time.time()) + window_seconds,
            "nonce": nonce or secrets.token_bytes(32),
            **signed,
        }
        message = TransferWithAuthorization(**fields)
        token = parse_address(offer.asset)
        domain = Domain("USDC", "2", self.devnet.chain_id, token)
        signature = payer.key.sign_digest(message.digest(domain))
        raw = msgspec.Raw(encode_json(write_payload(ExactDetail(self.devnet.chain_id, token, message, signature))))
        payload = decode_payment_json(encode_json(PaymentPayload(accepted=offer, payload=raw)))
        return Payment(payload, offer)

    def balance(self, party: Party) -> int:
        return self.devnet.usdc_balance(party.address)


async def until(condition: Callable[[], Any], *, what: str = "the condition") -> Any:
    """Poll a real condition until it holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come about in {DEADLINE_SECONDS} s"
        await asyncio.sleep(0.01)


@contextmanager
def hold_wallet(world: World) -> Iterator[Callable[[], None]]:
    """Hold the wallet's lease, so that payments wait until what is given is called; then all of them go together."""
    store = FacilitatorStore(world.store)
    perform = Performer(store.handlers()).blocking
    place = (world.devnet.network, world.wallet.address)
    try:
        assert perform(AcquireLease(*place, "test", now_seconds=0, until_seconds=2**40)).held
        yield lambda: perform(ReleaseLease(*place, "test"))
    finally:
        store.close()
