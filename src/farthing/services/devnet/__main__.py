"""The node's process, `python -m farthing.services.devnet`: serves until it is told to end or its parent is gone.

It writes one line of JSON, `{"port": …}`, on standard output when it is ready, and nothing else. It is started by
`start_devnet`, which is also what `farthing devnet` uses.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path

# py-evm hashes through eth-hash, whose first choice is seven times slower than safe-pysha3. Read at import.
if importlib.util.find_spec("sha3"):
    os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

from farthing.errors import ConfigError, FarthingError
from farthing.services.devnet.chain import Chain
from farthing.services.devnet.genesis import DEFAULT_CHAIN_ID, build_genesis
from farthing.services.devnet.node import Node
from farthing.services.devnet.process import EXIT_MISTAKE
from farthing.services.devnet.server import listen, serve
from farthing.services.devnet.statefile import StateFile, StoredMeta


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and serve."""
    options = _parser().parse_args(arguments)
    try:
        node = open_node(
            chain_id=options.chain_id,
            token_address=options.token_address,
            state=options.state,
            block_time_seconds=options.block_time,
        )
        listener = listen(options.host, options.port)
    except FarthingError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MISTAKE
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    port = listener.getsockname()[1]

    def ready() -> None:
        sys.stdout.write(f'{{"port": {port}}}\n')
        sys.stdout.flush()

    try:
        serve(node, listener, on_ready=ready)
    finally:
        node.chain.close()
    return 0


def open_node(
    *,
    chain_id: int | None = None,
    token_address: str | None = None,
    state: Path | None = None,
    block_time_seconds: float | None = None,
) -> Node:
    """Make a node, new or from a state file. Raises `ConfigError` where the file is of another chain."""
    file = StateFile(state) if state else None
    meta = file.read_meta() if file else None
    genesis = build_genesis(
        chain_id=chain_id or (meta.chain_id if meta else DEFAULT_CHAIN_ID),
        timestamp_seconds=meta.timestamp_seconds if meta else int(time.time()),
        token_address=token_address or (meta.token_address if meta else None),
    )
    if file and meta is None:
        file.write_meta(StoredMeta(genesis.chain_id, genesis.token_address, genesis.timestamp_seconds))
    elif meta and (meta.chain_id, meta.token_address) != (genesis.chain_id, genesis.token_address):
        raise ConfigError(
            f"The state file {state} is of chain {meta.chain_id} with USDC at {meta.token_address}, "
            f"not of chain {genesis.chain_id} with {genesis.token_address}. Use its values, or another file."
        )
    node = Node(Chain(genesis, file), genesis)
    if block_time_seconds is not None:
        node.mine_by_clock(block_time_seconds)
    return node


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m farthing.services.devnet", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chain-id", type=int)
    parser.add_argument("--token-address")
    parser.add_argument("--block-time", type=float)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--end-with-stdin", action="store_true")
    return parser


def _end_with_stdin() -> None:
    """End when the parent does, however it dies: the system then closes its end of the pipe."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
