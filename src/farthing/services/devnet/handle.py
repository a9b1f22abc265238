"""What a program holds of a running devnet: its address, its accounts, and the means to move its time and money."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from farthing.errors import ConfigError, NodeRefused, NodeUnavailable
from farthing.evm.abi import pack_address, pack_uint, read_uint, selector
from farthing.evm.addresses import parse_address
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import Transaction
from farthing.services.devnet.genesis import (
    DEFAULT_CHAIN_ID,
    MULTICALL3_ADDRESS,
    Account,
    Genesis,
    build_genesis,
    faucet_account,
    funded_accounts,
)
from farthing.services.devnet.process import NodeName, NodeOptions, NodeProcess, start_node

# A call takes milliseconds; a batch of a thousand, or ten thousand blocks at once, some seconds.
_CALL_SECONDS: Final = 60
# How long a faucet on a node that mines by the clock waits for its block.
_RECEIPT_SECONDS: Final = 60
_RECEIPT_POLL_SECONDS: Final = 0.02
_USDC_DECIMALS: Final = 6
_WEI_DECIMALS: Final = 18
_FAUCET_GAS: Final = 200_000
_FAUCET_FEE: Final = 10**13


class Devnet:
    """A devnet that runs. Safe to use from several threads."""

    def __init__(self, process: NodeProcess, node: NodeName, genesis: Genesis, host: str) -> None:
        self.node: NodeName = node
        self.host = host
        self.port = process.port
        self.chain_id = genesis.chain_id
        self.usdc = genesis.token_address
        self.multicall3 = MULTICALL3_ADDRESS
        self.accounts: tuple[tuple[str, str], ...] = tuple(
            (each.address, each.private_key) for each in funded_accounts()
        )
        self._process = process
        self._ids = itertools.count(1)
        self._faucet: Account = faucet_account()
        self._faucet_lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the node answers JSON-RPC: `http://127.0.0.1:PORT`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def network(self) -> str:
        """The network's CAIP-2 name: `eip155:402402`."""
        return f"eip155:{self.chain_id}"

    @property
    def owner(self) -> tuple[str, str]:
        """Address and key of the token's owner, who may mint, pause and block; it is the faucet's account too."""
        return self._faucet.address, self._faucet.private_key

    @property
    def pid(self) -> int:
        """The node's process id (for anvil: its guard's)."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the node's process runs."""
        return self._process.is_running()

    def close(self) -> None:
        """End the node."""
        self._process.close()

    # JSON-RPC

    def rpc(self, method: str, *params: Any) -> Any:
        """Call a method.

        Raises `NodeRefused` (with code, message and data) for an error of the node's, `NodeUnavailable` for no answer.
        """
        call = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        answer = self.post(msgspec.json.encode(call))
        if "error" in answer:
            error = answer["error"]
            raise NodeRefused(error["message"], code=error["code"], data=error.get("data"))
        return answer["result"]

    def post(self, body: bytes) -> Any:
        """Send a JSON-RPC body, single or batch, and give what was answered, decoded."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_CALL_SECONDS)
        try:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            return msgspec.json.decode(connection.getresponse().read())
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise NodeUnavailable(f"The devnet at {self.url} did not answer: {error!r}") from error
        finally:
            connection.close()

    # Money

    def faucet(self, address: str, *, usdc: Decimal | int | str = 0, eth: Decimal | int | str = 0) -> None:
        """Give an account dollars and ether (both in whole units: `usdc="0.50"`), in blocks of their own.

        Where a node mines by the clock or only when asked: py-evm makes the blocks at once, for anvil the waiting block
        is mined too. Raises `ConfigError` for an amount that is none.
        """
        atomic, wei = _units(usdc, _USDC_DECIMALS), _units(eth, _WEI_DECIMALS)
        if self.node == "py-evm":
            self.rpc("devnet_faucet", address, hex(atomic), hex(wei))
            return
        mint = selector("mint(address,uint256)") + pack_address(parse_address(address)) + pack_uint(atomic)
        with self._faucet_lock:
            if atomic:
                self._send_from_faucet(parse_address(self.usdc), 0, mint)
            if wei:
                self._send_from_faucet(parse_address(address), wei, b"")

    def usdc_balance(self, address: str, block: str = "latest") -> int:
        """The account's USDC in atomic units."""
        calldata = selector("balanceOf(address)") + pack_address(parse_address(address))
        answer = self.rpc("eth_call", {"to": self.usdc, "data": "0x" + calldata.hex()}, block)
        return read_uint(bytes.fromhex(answer[2:]))

    def eth_balance(self, address: str, block: str = "latest") -> int:
        """The account's ether in wei."""
        return int(self.rpc("eth_getBalance", address, block), 16)

    def _send_from_faucet(self, to: bytes, value: int, data: bytes) -> None:
        key = PrivateKey.from_hex(self._faucet.private_key)
        nonce = int(self.rpc("eth_getTransactionCount", key.address, "pending"), 16)
        transaction = Transaction(
            chain_id=self.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas=10**9,
            max_fee_per_gas=_FAUCET_FEE,
            gas_limit=_FAUCET_GAS,
            to=to,
            value=value,
            data=data,
        )
        signed = transaction.sign(key)
        sent = self.rpc("eth_sendRawTransaction", "0x" + signed.raw.hex())
        if not self.rpc("anvil_getAutomine"):
            self.mine()
        receipt = self.wait_for_receipt(sent)
        if receipt["status"] != "0x1":
            raise ConfigError("The faucet's transaction failed: is the token paused, or the account blocked?")

    def wait_for_receipt(self, transaction_hash: str) -> dict[str, Any]:
        """Wait until a transaction is in a block. Raises `NodeUnavailable` after a minute."""
        deadline = time.monotonic() + _RECEIPT_SECONDS
        while time.monotonic() < deadline:
            receipt: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", transaction_hash)
            if receipt is not None:
                return receipt
            time.sleep(_RECEIPT_POLL_SECONDS)
        raise NodeUnavailable(f"{transaction_hash} was in no block after {_RECEIPT_SECONDS} seconds.")

    # Time and blocks

    def block_number(self) -> int:
        """The newest block's height."""
        return int(self.rpc("eth_blockNumber"), 16)

    def timestamp(self) -> int:
        """The newest block's time in unix seconds."""
        whole_transactions = False
        return int(self.rpc("eth_getBlockByNumber", "latest", whole_transactions)["timestamp"], 16)

    def mine(self, blocks: int = 1) -> None:
        """Make blocks of what waits."""
        self.rpc("anvil_mine", hex(blocks))

    def set_automine(self, *, enabled: bool) -> None:
        """Make a block for each transaction that arrives (as at the start), or only when asked."""
        self.rpc("evm_setAutomine", enabled)

    def increase_time(self, seconds: int) -> None:
        """Move the clock forward; the next block shows it."""
        self.rpc("evm_increaseTime", seconds)

    def set_next_timestamp(self, timestamp_seconds: int) -> None:
        """Fix the next block's time."""
        self.rpc("evm_setNextBlockTimestamp", timestamp_seconds)

    def snapshot(self) -> str:
        """Remember this moment; the answer names it for `revert`."""
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot, which is used up. Raises `ConfigError` where there is none of that name."""
        if not self.rpc("evm_revert", snapshot):
            raise ConfigError(f"There is no snapshot {snapshot} to go back to.")

    @contextmanager
    def rewound(self) -> Generator[None]:
        """Run a block of code and take back all that it did to the chain."""
        snapshot = self.snapshot()
        try:
            yield
        finally:
            self.revert(snapshot)

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by empty ones, on both nodes; what they held is gone."""
        self.rpc("anvil_reorg", depth, [])


@contextmanager
def start_devnet(
    node: NodeName = "py-evm",
    *,
    chain_id: int | None = None,
    token_address: str | None = None,
    block_time_seconds: float | None = None,
    state: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    anvil_program: str | None = None,
) -> Generator[Devnet]:
    """Run a devnet as a child process as long as the `with` lasts.

        with start_devnet() as devnet:
            devnet.faucet("0x…", usdc=5)
            print(devnet.url, devnet.usdc)

    `chain_id` and `token_address` are 402402 and the devnet's own unless given. Blocks come for each transaction, or
    every `block_time_seconds`. `state` names a file that keeps the chain (each node has a format of its own).
    `anvil_program` says where anvil is if `find_anvil` can't know. The node
    ends with the block of code, and with this process however that ends. Raises `ConfigError` and `NodeUnavailable`.
    """
    path = Path(state).absolute() if state is not None else None
    genesis = build_genesis(
        chain_id=chain_id if chain_id is not None else DEFAULT_CHAIN_ID,
        timestamp_seconds=int(time.time()),
        token_address=token_address,
    )
    options = NodeOptions(genesis, host, port, chain_id, token_address, block_time_seconds, path, anvil_program)
    process = start_node(node, options)
    try:
        devnet = Devnet(process, node, genesis, host)
        if node == "py-evm":  # a state file may know another chain id and token than the defaults
            info = devnet.rpc("devnet_info")
            devnet.chain_id, devnet.usdc = info["chainId"], info["usdc"]
        else:
            devnet.rpc("eth_chainId")
        yield devnet
    finally:
        process.close()


def _units(amount: Decimal | int | str, decimals: int) -> int:
    scaled = Decimal(amount).scaleb(decimals)
    if scaled < 0 or scaled != scaled.to_integral_value():
        raise ConfigError(f"{amount} can't be given: at most {decimals} decimals, and not negative.")
    return int(scaled)
