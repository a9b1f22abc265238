"""`farthing devnet`: a local chain with USDC on it, until Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, cast

import typer

from farthing.errors import ConfigError, NodeUnavailable

# How often the command looks whether its node still runs.
_WATCH_SECONDS = 0.5


def devnet(
    *,
    host: Annotated[str, typer.Option(help="Loopback address to listen on; others are refused.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    chain_id: Annotated[int | None, typer.Option(min=1, help="EIP-155 chain id.", show_default="402402")] = None,
    token_address: Annotated[
        str | None, typer.Option(help="Where USDC stands.", show_default="the devnet's own")
    ] = None,
    block_time: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="A block every so many seconds.", show_default="on demand"),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Keep the chain in this file.", show_default="in memory"),
    ] = None,
    node: Annotated[str, typer.Option(metavar="py-evm|anvil", help="The program that runs the chain.")] = "py-evm",
    as_json: Annotated[bool, typer.Option("--json", help="Describe the chain in one line of JSON.")] = False,
) -> None:
    """Run a local chain with USDC on it, until Ctrl-C.

    Ten accounts have a million dollars and 10,000 ether each. Their keys are public: worthless, never to be used on
    another chain.

    \b
    Examples:
      farthing devnet                                   on a free port, blocks on demand
      farthing devnet --port 8545 --block-time 2        like a public chain: a block every two seconds
      farthing devnet --port 8545 --state chain.sqlite  goes on where it was ended, also after a kill
      farthing devnet --node anvil --json               Foundry's anvil, described in one line of JSON
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.services.devnet import NodeName, start_devnet  # noqa: PLC0415 - heavy parts only when run

    if node not in {"py-evm", "anvil"}:
        raise ConfigError(f"--node {node}: there are py-evm and anvil.")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    with start_devnet(
        cast("NodeName", node),
        chain_id=chain_id,
        token_address=token_address,
        block_time_seconds=block_time,
        state=state,
        host=host,
        port=port,
    ) as running:
        description: dict[str, object] = {
            "url": running.url,
            "node": running.node,
            "chain_id": running.chain_id,
            "network": running.network,
            "usdc": running.usdc,
            "multicall3": running.multicall3,
            "accounts": [{"address": address, "private_key": key} for address, key in running.accounts],
        }
        _show(description, as_json=as_json)
        while not ended.wait(_WATCH_SECONDS):
            if not running.is_running():
                raise NodeUnavailable(f"The node, {running.node}, has ended by itself.")
    if not as_json:
        print("\nThe devnet has ended.")


def _show(description: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(description), flush=True)
        return
    accounts = cast("list[dict[str, str]]", description["accounts"])
    print(f"JSON-RPC    {description['url']}  ({description['node']})")
    print(f"Network     {description['network']}  (chain id {description['chain_id']})")
    print(f"USDC        {description['usdc']}")
    print(f"Multicall3  {description['multicall3']}")
    print("\nAccounts, each with 1,000,000 USDC and 10,000 ether. The keys are public and WORTHLESS: never use them")
    print("on another chain.\n")
    for account in accounts:
        print(f"  {account['address']}  {account['private_key']}")
    print("\nCtrl-C ends it.", flush=True)
