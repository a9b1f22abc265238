"""`farthing demo`: buyer, sellers, facilitator and a local chain, all at once, with real settlement.

`farthing demo deferred` is the same on credit: a crawl, a clearing house, one statement and one payment.
"""

from __future__ import annotations

from typing import Annotated

import typer

Node = Annotated[str, typer.Option(metavar="py-evm|anvil", help="The program that runs the chain.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a last line of JSON for programs.")]

demo = typer.Typer(name="demo", invoke_without_command=True, rich_markup_mode=None)


@demo.callback()
def at_once(context: typer.Context, *, node: Node = "py-evm", as_json: AsJson = False) -> None:
    """Buy from every kind of route on a local chain, and check the books. Needs no key, no faucet and no network.

    Starts a chain node, a facilitator, a seller and a funded buyer on free loopback ports; shows every purchase step by
    step; then compares the buyer's journal, the facilitator's ledger and the chain's Transfer logs. Exits with 0 only
    when the three agree.

    \b
    Examples:
      farthing demo                     on the built-in chain
      farthing demo --node anvil        on Foundry's anvil, from the PATH or the project's node_modules
      farthing demo --json | tail -n 1  the result for a program
      farthing demo deferred            a crawl on credit: thousands of promises, one payment
    """  # noqa: D301 - click's mark for lines that are not to be joined
    if context.invoked_subcommand is not None:
        return
    from farthing.demo.run import run_demo  # noqa: PLC0415 - heavy parts only when run

    raise typer.Exit(run_demo(node=node, as_json=as_json))


@demo.command("deferred")
def deferred(
    *,
    pages: Annotated[int, typer.Option(metavar="N", help="Articles to read, over both sites.")] = 2_000,
    node: Node = "py-evm",
    as_json: AsJson = False,
) -> None:
    """Crawl two sites on credit, and settle once. Needs no key, no faucet and no network.

    Starts a chain, a facilitator, two publishers' sites with an edge in front of each, and a clearing house, on free
    loopback ports. A Scrapy crawl reads every article and signs a promise for each; then the window closes, the payer
    audits its one statement and pays it in USDC, and the publishers are paid out. Exits with 0 only when the crawler's
    journal, the statement, the chain's Transfer logs and the publishers' balances agree.

    \b
    Examples:
      farthing demo deferred                     2,000 pages
      farthing demo deferred --pages 60          a shorter crawl
      farthing demo deferred --json | tail -n 1  the result for a program
    """  # noqa: D301 - as above
    from farthing.demo.deferred import run_deferred  # noqa: PLC0415 - heavy parts only when run

    raise typer.Exit(run_deferred(pages=pages, node=node, as_json=as_json))
