"""`settle`: payments settled a second on one anvil: 200 `POST /settle` at once, every transfer checked on the chain.

The official facilitator gets its payments one by one, over the same HTTP and on the same chain: used in parallel it
loses payments. Both have a hot wallet of their own; all payments are signed before the clock starts.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.figure import Figure
from bench.harness import ROUNDS_MIN
from bench.http_rounds import fsync_microseconds
from bench.load import post_bytes, send_all
from bench.purchases import OFFER, key, purchases
from bench.serving import Server, cores, on_core
from bench.settling import KEY, NETWORK, URL, USDC
from farthing.evm.signatures import PrivateKey
from farthing.protocol.codec import encode_json
from farthing.services.devnet import Devnet, find_anvil, start_devnet

if TYPE_CHECKING:
    from farthing.protocol.messages import PaymentRequirements

TARGET = 8.0
AT_ONCE = 200
# One by one takes its time; its figure needs no more.
ONE_BY_ONE = 60
# A window that is open for longer than all rounds of a slow machine.
_WINDOW_SECONDS = 600
_ANVIL_PLACE = Path("tests/node")
# keccak256("Transfer(address,address,uint256)"), as EIP-20 has it.
_TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


class Lost(Exception):
    """A payment was answered and is not on the chain: no figure is worth that."""


class Bench:
    """The chain, its rich payers, and who settles."""

    def __init__(self, devnet: Devnet) -> None:
        """Make the payers rich."""
        self._devnet = devnet
        self._made = 0
        for index in range(AT_ONCE):
            devnet.faucet(key(index).address, usdc=1_000)

    def environment(self, wallet: PrivateKey, secret: bytes) -> dict[str, str]:
        """Fund a hot wallet, and name chain and key to a server."""
        self._devnet.faucet(wallet.address, eth=100)
        return {
            URL: self._devnet.url,
            NETWORK: self._devnet.network,
            USDC: self._devnet.usdc,
            KEY: "0x" + secret.hex(),
        }

    def once(self, server: Server, count: int, connections: int, payee: str) -> tuple[float, float]:
        """Settle `count` new payments, and check each on the chain; payments a second, and CPU µs a payment."""
        offer = msgspec.structs.replace(
            OFFER,
            network=self._devnet.network,
            asset=self._devnet.usdc,
            pay_to=payee,
            max_timeout_seconds=_WINDOW_SECONDS,
        )
        block = self._devnet.block_number()
        made = purchases(count, self._devnet.timestamp(), first=self._made, offer=offer, payers=AT_ONCE)
        self._made += AT_ONCE
        requests = [post_bytes("/settle", _body(each.payment_json, offer)) for each in made]
        used = server.cpu_seconds()
        seconds = send_all(server.port, requests, status=200, connections=connections)
        used = server.cpu_seconds() - used
        self._check(block, payee, count)
        return count / seconds, used / count * 1e6

    def _check(self, block: int, payee: str, count: int) -> None:
        topics = [_TRANSFER, None, "0x" + payee[2:].lower().rjust(64, "0")]
        query: dict[str, Any] = {"address": self._devnet.usdc, "fromBlock": hex(block + 1), "topics": topics}
        logs = self._devnet.rpc("eth_getLogs", query)
        payers = {log["topics"][1] for log in logs}
        paid = {int(log["data"], 16) for log in logs}
        if len(logs) != count or len(payers) != count or paid != {int(OFFER.amount)}:
            message = f"{count} payments were settled, {len(logs)} transfers by {len(payers)} payers are on the chain."
            raise Lost(message)


def _body(payment_json: bytes, offer: PaymentRequirements) -> bytes:
    parts = (b'{"x402Version":2,"paymentPayload":', payment_json, b',"paymentRequirements":', encode_json(offer), b"}")
    return b"".join(parts)


def run(*, rounds: int = ROUNDS_MIN, at_once: int = AT_ONCE, one_by_one: int = ONE_BY_ONE) -> list[Figure]:
    """Measure; nothing where there is no anvil."""
    program = anvil_program()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-bench-")))
        with on_core(cores()[1]):
            devnet = stack.enter_context(start_devnet("anvil", anvil_program=program))
        bench = Bench(devnet)
        servers: dict[str, Server] = {}
        for name in ("ours", "official"):
            secret = name.encode().rjust(32, b"\x01")
            environment = bench.environment(PrivateKey(secret), secret)
            servers[name] = stack.enter_context(Server("bench.settling", name, folder / name, environment))
        payees = {name: PrivateKey(name.encode().rjust(32, b"\x02")).address for name in servers}
        ways = {"ours": (at_once, at_once), "official": (one_by_one, 1)}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for round_ in range(rounds + 1):
            for name, (count, connections) in ways.items():
                with on_core(cores()[1]):
                    speed = bench.once(servers[name], count, connections, payees[name])
                if round_:  # the first one warms up
                    found[name].append(speed)
    per_second = {name: statistics.median(speed for speed, _ in seen) for name, seen in found.items()}
    cpu = {name: statistics.median(used for _, used in seen) for name, seen in found.items()}
    checked = rounds * (at_once + one_by_one)
    return [
        Figure(
            name="settle",
            ours=per_second["ours"],
            unit="payments/s",
            better="higher",
            official=per_second["official"],
            target=TARGET,
            target_is="ratio to official",
            notes=(
                f"{at_once} at once against one by one; {checked} transfers checked on the chain, none lost",
                f"CPU of a payment in the facilitator: ours {cpu['ours']:.0f} µs, official {cpu['official']:.0f} µs",
                f"fsync p50 {fsync_microseconds():.0f} µs",
            ),
        )
    ]


def anvil_program() -> str:
    """Find anvil, on the PATH or among the packages of the tests. Raises `FileNotFoundError`."""
    program = find_anvil()
    if program is None:
        found = sorted((Path(__file__).parent.parent / _ANVIL_PLACE).glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))
        program = str(found[0]) if found else None
    if program is None:
        message = "There is no anvil: put it on the PATH, or run the tests once, which install it in tests/node."
        raise FileNotFoundError(message)
    return program
