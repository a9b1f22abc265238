"""The node as a process: it is found or refused clearly, it ends with its parent, and its file survives a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from farthing.errors import ConfigError, NodeUnavailable
from farthing.services.devnet import DEFAULT_TOKEN_ADDRESS, NodeName, start_devnet
from farthing.services.devnet.__main__ import open_node
from farthing.services.devnet.process import find_anvil, is_loopback
from farthing.services.devnet.rpc import call_method
from farthing.services.devnet.server import listen

BASE_SEPOLIA_USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PAYEE = "0x" + "1f" * 20
_PATIENCE_SECONDS = 20


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # A child that nobody waits for stays in the table, dead.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_chain_id_and_token_address_are_the_callers() -> None:
    with start_devnet(chain_id=84532, token_address=BASE_SEPOLIA_USDC) as devnet:
        assert (devnet.network, devnet.usdc) == ("eip155:84532", BASE_SEPOLIA_USDC)
        assert devnet.rpc("eth_chainId") == hex(84532)
        devnet.faucet(PAYEE, usdc=4)
        assert devnet.usdc_balance(PAYEE) == 4_000_000
        assert devnet.rpc("eth_getCode", DEFAULT_TOKEN_ADDRESS, "latest") == "0x"
        with pytest.raises(ConfigError, match=str(devnet.port)), start_devnet(port=devnet.port):
            pass
    with pytest.raises(NodeUnavailable):
        devnet.rpc("eth_chainId")


# The file


class Reader:
    """A node on a state file, in this process, asked as its server asks it."""

    def __init__(self, file: Path, **options: Any) -> None:
        self.node = open_node(state=file, **options)

    def rpc(self, method: str, *params: Any) -> Any:
        return call_method(self.node, method, list(params))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.node.chain.close()


def test_a_file_keeps_the_chain_through_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "chain.sqlite"
    whole = True
    with start_devnet(state=file, chain_id=777) as devnet:
        devnet.faucet(PAYEE, usdc=3, eth=2)
        devnet.rpc("anvil_setNonce", PAYEE, "0x5")
        devnet.mine(2)
        devnet.reorganise(1)
        blocks = [devnet.rpc("eth_getBlockByNumber", hex(number), whole) for number in range(4)]
        receipts = devnet.rpc("eth_getBlockReceipts", "0x1")
        calldata = {"to": devnet.usdc, "data": "0x70a08231" + PAYEE[2:].rjust(64, "0")}
        os.kill(devnet.pid, signal.SIGKILL)
        assert until(lambda: not devnet.is_running())
    for _ in range(2):
        with Reader(file) as reader:  # the file knows the chain id
            assert reader.rpc("eth_chainId") == hex(777)
            assert [reader.rpc("eth_getBlockByNumber", hex(number), whole) for number in range(4)] == blocks
            assert reader.rpc("eth_getBlockReceipts", "0x1") == receipts
            assert int(reader.rpc("eth_call", calldata), 16) == 3_000_000
            assert reader.rpc("eth_getBalance", PAYEE) == hex(2 * 10**18)
            assert reader.rpc("eth_getTransactionCount", PAYEE) == "0x5"
            reader.rpc("devnet_faucet", PAYEE, hex(1_000_000))
            assert int(reader.rpc("eth_call", calldata), 16) == 4_000_000
            reader.node.chain.truncate(3)
    with pytest.raises(ConfigError, match="chain 777"):
        Reader(file, chain_id=778)


def test_a_file_serves_one_node_and_no_stranger(tmp_path: Path) -> None:
    file = tmp_path / "chain.sqlite"
    with Reader(file), pytest.raises(ConfigError, match="another devnet"):
        Reader(file)
    with Reader(file):
        pass
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir, " * 1000)
    with pytest.raises(ConfigError, match=r"letter\.txt"):
        Reader(letter)
    assert letter.read_text() == "Dear Sir, " * 1000
    database = tmp_path / "other.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE recipe (name TEXT)")
    with pytest.raises(ConfigError, match="no state file"):
        Reader(database)


# The process


@pytest.mark.parametrize("node", ["py-evm", "anvil"])
def test_the_node_dies_with_its_parent(request: pytest.FixtureRequest, node: NodeName) -> None:
    program = request.getfixturevalue("anvil_program") if node == "anvil" else None
    script = (
        "import sys, time\n"
        "from farthing.services.devnet import start_devnet\n"
        f"with start_devnet({node!r}, anvil_program={program!r}) as devnet:\n"
        "    print(devnet.pid, devnet.port, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid, port = (int(word) for word in parent.stdout.readline().split())
    children = [pid, *_children(pid)]
    assert len(children) == (2 if node == "anvil" else 1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not any(is_alive(each) for each in children))
    # The port is free again.
    assert until(lambda: _can_bind(port))


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _can_bind(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except ConfigError:
        return False
    return True


def test_a_killed_guard_takes_anvil_with_it(anvil_program: str) -> None:
    with start_devnet("anvil", anvil_program=anvil_program) as devnet:
        [anvil] = _children(devnet.pid)
        os.kill(devnet.pid, signal.SIGKILL)
        assert until(lambda: not is_alive(anvil))


def test_only_loopback_is_served() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.1", "example.com", ""))  # noqa: S104
    with pytest.raises(ConfigError, match="loopback only"), start_devnet("anvil", host="0.0.0.0"):  # noqa: S104
        pass


def test_no_anvil_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert find_anvil() is None
    with pytest.raises(ConfigError, match="npm install @foundry-rs/anvil"), start_devnet("anvil"):
        pass


def test_a_wrong_token_address_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="0x12"), start_devnet(token_address="0x12"):
        pass


@pytest.mark.parametrize("node", ["py-evm", "anvil"])
def test_the_command_runs_until_ctrl_c(request: pytest.FixtureRequest, node: NodeName) -> None:
    as_json = node == "py-evm"
    if node == "anvil":
        request.getfixturevalue("anvil_program")
    script = "from farthing.cli import main; main()"
    command = [sys.executable, "-c", script, "devnet", "--chain-id", "31337", "--node", node]
    command += ["--json"] if as_json else []
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    lines = [process.stdout.readline()]
    while not as_json and lines[-1] and "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
    if as_json:
        told = json.loads(lines[0])
        assert (told["chain_id"], told["network"], told["usdc"]) == (31337, "eip155:31337", DEFAULT_TOKEN_ADDRESS)
        assert len(told["accounts"]) == 10
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (process.returncode, errors) == (0, "")
    if not as_json:
        text = "".join(lines)
        assert "http://127.0.0.1:" in lines[0]
        assert DEFAULT_TOKEN_ADDRESS in text
        assert "WORTHLESS" in text
        assert "The devnet has ended." in rest
