"""Starts a node as a child process, py-evm's or anvil's, and ends it again."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from farthing.errors import ConfigError, NodeUnavailable
from farthing.services.devnet.genesis import Genesis, genesis_json

NodeName = Literal["py-evm", "anvil"]

# py-evm takes some two seconds to import and start; a loaded machine with two cores may take ten times as long.
START_SECONDS: Final = 60
# A node that was asked to end and hasn't after this is killed.
END_SECONDS: Final = 5
_POLL_SECONDS: Final = 0.01
# The status of a node's process that was started with a mistake, which its standard error explains.
EXIT_MISTAKE: Final = 2
# Of what a failed node wrote, the end is shown.
_SHOWN_CHARACTERS: Final = 2_000
# Where npm puts programs, seen from here upwards.
_ANVIL_PLACES: Final = ("node_modules", "tests/node/node_modules")
_ANVIL_LISTENS: Final = re.compile(r"Listening on \S+:(\d+)")


class NodeProcess:
    """A node that runs. `close` ends it; so does the end of this process, however it comes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.port = port
        self._process = process
        self._folder = folder

    @property
    def pid(self) -> int:
        """The process id of the child (for anvil: of its guard)."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the child still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the child; a second call does nothing."""
        _end(self._process)
        self._folder.cleanup()


class NodeOptions(msgspec.Struct, frozen=True):
    """How a node is started; None leaves a choice to the node (a state file knows its chain)."""

    genesis: Genesis
    host: str = "127.0.0.1"
    port: int = 0
    chain_id: int | None = None
    token_address: str | None = None
    block_time_seconds: float | None = None
    state: Path | None = None
    anvil_program: str | None = None


def start_node(name: NodeName, options: NodeOptions) -> NodeProcess:
    """Start a node and wait until it listens.

    Raises `ConfigError` where it can't be started as asked, `NodeUnavailable` where it doesn't come up.
    """
    require_loopback(options.host)
    folder = tempfile.TemporaryDirectory(prefix="farthing-devnet-")
    try:
        if name == "py-evm":
            return _start_py_evm(options, folder)
        if name == "anvil":
            return _start_anvil(options, folder)
    except BaseException:
        folder.cleanup()
        raise
    raise ConfigError(f"There is no node called {name!r}: py-evm or anvil.")


def is_loopback(host: str) -> bool:
    """Tell whether a host is the machine itself: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> None:
    """Raise `ConfigError` for an address that others can reach."""
    if not is_loopback(host):
        raise ConfigError(
            f"The devnet listens on loopback only, not on {host!r}: its keys are public, and its methods rewrite "
            "history. Use 127.0.0.1, or ::1."
        )


def find_anvil() -> str | None:
    """Find anvil: on the PATH, or where npm's @foundry-rs/anvil puts it, in this folder or one above it."""
    found = shutil.which("anvil")
    if found:
        # npm's launcher is a script for Node.js; the program itself lies in a package beside it.
        return _beside_launcher(Path(found)) or found
    here = Path.cwd()
    for folder in (here, *here.parents):
        for place in _ANVIL_PLACES:
            for program in sorted((folder / place).glob("@foundry-rs/anvil-*/bin/anvil*")):
                if os.access(program, os.X_OK):
                    return str(program)
    return None


def _beside_launcher(launcher: Path) -> str | None:
    real = launcher.resolve()
    if real.suffix not in {".mjs", ".js", ".cjs"}:
        return None
    programs = sorted(real.parent.parent.glob("anvil-*/bin/anvil*"))
    return str(programs[0]) if programs else None


def _start_py_evm(options: NodeOptions, folder: tempfile.TemporaryDirectory[str]) -> NodeProcess:
    command = [sys.executable, "-m", "farthing.services.devnet", "--end-with-stdin"]
    command += ["--host", options.host, "--port", str(options.port)]
    if options.chain_id is not None:
        command += ["--chain-id", str(options.chain_id)]
    if options.token_address is not None:
        command += ["--token-address", options.token_address]
    if options.block_time_seconds is not None:
        command += ["--block-time", str(options.block_time_seconds)]
    if options.state is not None:
        command += ["--state", str(options.state)]
    output, errors = Path(folder.name, "stdout"), Path(folder.name, "stderr")
    process = _spawn(command, output, errors)

    def port_of(text: str) -> int | None:
        return int(json.loads(text)["port"]) if text.endswith("\n") else None

    return NodeProcess(process, _wait_for_port(process, "py-evm", output, errors, port_of), folder)


def _start_anvil(options: NodeOptions, folder: tempfile.TemporaryDirectory[str]) -> NodeProcess:
    program = options.anvil_program or find_anvil()
    if program is None:
        raise ConfigError(
            "There is no anvil on the PATH or in node_modules. Install it with `npm install @foundry-rs/anvil`, "
            "or use the other node, py-evm."
        )
    genesis = Path(folder.name, "genesis.json")
    genesis.write_text(json.dumps(genesis_json(options.genesis)))
    command = [sys.executable, "-m", "farthing.services.devnet.guard", program]
    command += ["--init", str(genesis), "--host", options.host, "--port", str(options.port)]
    # The rules that the other node has; no accounts of anvil's own; finality as near as there.
    command += ["--chain-id", str(options.genesis.chain_id), "--hardfork", "prague"]
    command += ["--accounts", "0", "--slots-in-an-epoch", "1"]
    if options.block_time_seconds is not None:
        command += ["--block-time", str(options.block_time_seconds)]
    if options.state is not None:
        command += ["--state", str(options.state)]
    output, errors = Path(folder.name, "stdout"), Path(folder.name, "stderr")
    process = _spawn(command, output, errors)

    def port_of(text: str) -> int | None:
        match = _ANVIL_LISTENS.search(text)
        return int(match.group(1)) if match else None

    return NodeProcess(process, _wait_for_port(process, "anvil", output, errors, port_of), folder)


def _spawn(command: list[str], output: Path, errors: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as out, errors.open("wb") as err:
        return subprocess.Popen(  # noqa: S603 - the command is built above
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            # A Ctrl-C at the terminal reaches this process only, which then ends the child in its turn.
            start_new_session=True,
        )


def _wait_for_port(
    process: subprocess.Popen[bytes], name: str, output: Path, errors: Path, port_of: Callable[[str], int | None]
) -> int:
    """Wait until the node says where it listens; one that doesn't is ended."""
    try:
        return _watch(process, name, output, errors, port_of)
    except BaseException:
        _end(process)
        raise


def _watch(
    process: subprocess.Popen[bytes], name: str, output: Path, errors: Path, port_of: Callable[[str], int | None]
) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        port = port_of(output.read_text(errors="replace"))
        if port is not None:
            return port
        if process.poll() is not None:
            told = (errors.read_text(errors="replace") or output.read_text(errors="replace"))[-_SHOWN_CHARACTERS:]
            if process.returncode == EXIT_MISTAKE:
                raise ConfigError(told.strip())
            raise NodeUnavailable(f"{name} ended with status {process.returncode}: {told.strip()}")
        time.sleep(_POLL_SECONDS)
    raise NodeUnavailable(f"{name} did not start within {START_SECONDS} seconds.")


def _end(process: subprocess.Popen[bytes]) -> None:
    stdin: IO[bytes] | None = process.stdin
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if stdin is not None:
        stdin.close()
