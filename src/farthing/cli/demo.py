"""`farthing demo`: buyer, sellers, facilitator and a local chain, all at once, with real settlement."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    *,
    node: Annotated[str, typer.Option(metavar="py-evm|anvil", help="The program that runs the chain.")] = "py-evm",
    as_json: Annotated[bool, typer.Option("--json", help="Print a last line of JSON for programs.")] = False,
) -> None:
    """Buy from every kind of route on a local chain, and check the books. Needs no key, no faucet and no network.

    Starts a chain node, a facilitator, a seller and a funded buyer on free loopback ports; shows every purchase step by
    step; then compares the buyer's journal, the facilitator's ledger and the chain's Transfer logs. Exits with 0 only
    when the three agree.

    \b
    Examples:
      farthing demo                     on the built-in chain
      farthing demo --node anvil        on Foundry's anvil, from the PATH or the project's node_modules
      farthing demo --json | tail -n 1  the result for a program
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.demo.run import run_demo  # noqa: PLC0415 - heavy parts only when run

    raise typer.Exit(run_demo(node=node, as_json=as_json))
