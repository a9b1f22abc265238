"""`joined_gas`: gas a payment of a hundred payers that are settled together, beside that of one settled alone.

On one anvil, by our facilitator in the process: its wallet's lease is held elsewhere until all payments are on record,
so that they go together. The figure follows from the contracts, not from the machine: one round is as good as ten.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.figure import Figure
from bench.purchases import OFFER, key, purchases
from bench.settle import anvil_program
from farthing.evm.signatures import PrivateKey
from farthing.facilitator.store import AcquireLease, ReleaseLease
from farthing.protocol.codec import decode_payment_json
from farthing.protocol.facilitator import Settled
from farthing.services.devnet import Devnet, start_devnet
from farthing.services.facilitator import FacilitatorService, read_config
from farthing.world.facilitator_store import FacilitatorStore
from farthing.world.performers import Performer

if TYPE_CHECKING:
    from collections.abc import Generator

    from farthing.protocol.messages import PaymentPayload, PaymentRequirements

TARGET = 0.62
PAYERS = 100
_WINDOW_SECONDS = 600
_POLL_SECONDS = 0.02
_WALLET_SECRET = b"joined".rjust(32, b"\x03")
_PAYEE = PrivateKey(b"joined".rjust(32, b"\x04")).address


class Unsettled(Exception):
    """A payment was not settled: no figure is worth that."""


def run(*, payers: int = PAYERS) -> list[Figure]:
    """Measure. Each payer, and the payee, has dollars before and after: no slot is written for the first time."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))
        devnet = stack.enter_context(start_devnet("anvil", anvil_program=anvil_program()))
        wallet = PrivateKey(_WALLET_SECRET)
        devnet.faucet(wallet.address, eth=100)
        devnet.faucet(_PAYEE, usdc=1)
        for index in range(payers + 1):
            devnet.faucet(key(index).address, usdc=1)
        offer = msgspec.structs.replace(
            OFFER, network=devnet.network, asset=devnet.usdc, pay_to=_PAYEE, max_timeout_seconds=_WINDOW_SECONDS
        )
        made = purchases(payers + 1, devnet.timestamp(), first=0, offer=offer, payers=payers + 1)
        payments = [decode_payment_json(each.payment_json) for each in made]
        alone = asyncio.run(_gas(devnet, folder, payments[:1], offer))
        joined = asyncio.run(_gas(devnet, folder, payments[1:], offer))
    return [
        Figure(
            name="joined_gas",
            ours=joined / payers,
            unit="gas/payment",
            better="lower",
            limit=float(alone),
            target=TARGET,
            notes=(f"{payers} payers in one transaction of {joined} gas; the limit is one settled alone",),
        )
    ]


async def _gas(devnet: Devnet, folder: Path, payments: list[PaymentPayload], offer: PaymentRequirements) -> int:
    """Settle them together, and give the gas of all their transactions, as the chain tells it."""
    config = read_config(_config(devnet, folder))
    environment = {"WALLET_KEY": "0x" + _WALLET_SECRET.hex()}
    with _held(devnet, folder) as store:
        async with FacilitatorService.from_config(config, environment=environment) as service:
            calls = [asyncio.create_task(service.settle(each, offer, idempotency_key="bench")) for each in payments]
            while len(service.books.payments(state="received")) < len(payments):  # noqa: ASYNC110 - the store has no event
                await asyncio.sleep(_POLL_SECONDS)
            Performer(store.handlers()).blocking(ReleaseLease(devnet.network, _wallet(), "bench"))
            outcomes = await asyncio.gather(*calls)
    hashes = {each.response.transaction for each in outcomes if isinstance(each, Settled)}
    if not all(isinstance(each, Settled) for each in outcomes):
        message = f"Of {len(payments)} payments, not all were settled."
        raise Unsettled(message)
    return sum(int(devnet.rpc("eth_getTransactionReceipt", each)["gasUsed"], 16) for each in hashes)


@contextlib.contextmanager
def _held(devnet: Devnet, folder: Path) -> Generator[FacilitatorStore]:
    store = FacilitatorStore(folder / "facilitator.sqlite3")
    try:
        lease = AcquireLease(devnet.network, _wallet(), "bench", now_seconds=0, until_seconds=2**40)
        Performer(store.handlers()).blocking(lease)
        yield store
    finally:
        store.close()


def _wallet() -> str:
    return PrivateKey(_WALLET_SECRET).address


def _config(devnet: Devnet, folder: Path) -> str:
    return f"""
store = "{folder / "facilitator.sqlite3"}"
[wallet]
key_env = "WALLET_KEY"
[fees]
max_fee_per_gas_gwei = "100"
[[network]]
id = "{devnet.network}"
rpc_urls = ["{devnet.url}"]
[[network.token]]
address = "{devnet.usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""
