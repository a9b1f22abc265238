"""`farthing crawl`: read a site's pages, pay for those that ask for it within a budget, and keep them in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from farthing.cli.agents import AgentKeyFile, AgentKeyVariable, AgentOrigin, AgentSource, DirectoryOrigins
from farthing.cli.get import (
    From,
    JournalFile,
    KeyFd,
    KeyFile,
    KeyName,
    NetworkNames,
    PassphraseFd,
    Signer,
    TokenNames,
    Verbose,
    Yes,
)
from farthing.cli.home import journal_path
from farthing.cli.signing import KeySource

# A page costs a fraction of a cent, rarely more than one.
PAGE_MAX_DEFAULT: Final = "0.01"
CONCURRENCY_DEFAULT: Final = 16
CONCURRENCY_MAX: Final = 256

_EPILOG = """\
    \b
    Examples:
      farthing crawl https://example.com/ --budget 5.00 --output pages
      farthing crawl https://a.example/ https://b.example/ --budget 2 --max 0.002 --per-host 1 --yes
      farthing crawl https://example.com/docs/ --budget 0.50 --depth 2 --pages 100 --json
      farthing crawl https://example.com/ --budget 5 --network clearing:example --agent https://crawler.example

    The last pays on credit: it promises for each page (the agent's key is in FARTHING_AGENT_KEY), and is billed once.

    \b
    Exit codes: 0 read to its end (or to --pages), 1 nothing could be read, 2 usage, 3 the budget ended it,
    130 Ctrl-C. Run again, it presents what is open and pays nothing twice; pages that were read are asked for anew.
"""


Urls = Annotated[list[str], typer.Argument(metavar="URL...", help="The pages to start from: their hosts are crawled.")]
Budget = Annotated[str, typer.Option("--budget", metavar="PRICE", help="The most that this crawl may cost.")]
PageMax = Annotated[str, typer.Option("--max", metavar="PRICE", help="The most that one page may cost.")]
PerHost = Annotated[
    str | None,
    typer.Option("--per-host", metavar="PRICE", help="The most that each host gets, ever.", show_default="any"),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", file_okay=False, help="Keep the pages here, and a list: pages.ndjson."
    ),
]
Hosts = Annotated[
    list[str] | None, typer.Option("--host", metavar="HOST", help="Follow links to this host too (repeatable).")
]
Pages = Annotated[int, typer.Option("--pages", min=0, metavar="N", help="Read no more than N pages (0: all).")]
Depth = Annotated[
    int, typer.Option("--depth", min=0, metavar="N", help="Follow links no deeper than N (0: any depth).")
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, max=CONCURRENCY_MAX, metavar="N", help="Pages under way at once.")
]
Delay = Annotated[
    float, typer.Option("--delay", min=0, metavar="SECONDS", help="Wait so long between two pages of a host.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON that tells how it ended.")]


def crawl(
    urls: Urls,
    *,
    budget: Budget,
    price_max: PageMax = PAGE_MAX_DEFAULT,
    per_host: PerHost = None,
    output: Output = None,
    host: Hosts = None,
    pages: Pages = 0,
    depth: Depth = 0,
    concurrency: Concurrency = CONCURRENCY_DEFAULT,
    delay: Delay = 0.0,
    yes: Yes = False,
    network: NetworkNames = None,
    token: TokenNames = None,
    journal: JournalFile = None,
    key: KeyName = "",
    key_file: KeyFile = "",
    key_fd: KeyFd = None,
    signer: Signer = "",
    sender: From = "",
    passphrase_fd: PassphraseFd = None,
    agent: AgentOrigin = "",
    agent_key_env: AgentKeyVariable = "",
    agent_key_file: AgentKeyFile = "",
    directory: DirectoryOrigins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Read a site's pages, and pay for those that ask for it, within a budget. Respects robots.txt."""
    from farthing.cli.crawling import CrawlOrder, run_crawl  # noqa: PLC0415 - heavy parts only when run

    order = CrawlOrder(
        urls=tuple(urls),
        budget=budget,
        price_max=price_max,
        per_host=per_host,
        output=output,
        hosts=tuple(host or ()),
        pages_max=pages,
        depth_max=depth,
        concurrency=concurrency,
        delay_seconds=delay,
        yes=yes,
        networks=tuple(network or ()),
        tokens=tuple(token or ()),
        journal=journal or journal_path(),
        key=KeySource(
            name=key,
            path=key_file,
            descriptor=key_fd,
            signer=signer,
            sender=sender,
            passphrase_descriptor=passphrase_fd,
        ),
        agent=AgentSource(
            origin=agent,
            key_variable=agent_key_env,
            key_file=agent_key_file,
            directories=tuple(directory or ()),
        ),
        as_json=as_json,
        verbose=verbose,
    )
    raise typer.Exit(run_crawl(order))


crawl.__doc__ = f"{crawl.__doc__}\n\n{_EPILOG}"
