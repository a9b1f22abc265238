"""`farthing get|post|put|delete|head`: fetch a URL, and pay for it where it asks for money, within limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from farthing.cli.home import journal_path
from farthing.cli.key import complete_names
from farthing.cli.signing import KeySource

# What one request and one day may cost that say nothing else: small money, so that a mistake is cheap.
PRICE_MAX_DEFAULT: Final = "0.10"
PER_DAY_DEFAULT: Final = "10"

Url = Annotated[str, typer.Argument(metavar="URL", help="What to fetch: http:// or https://.", show_default=False)]
PriceMax = Annotated[
    str,
    typer.Option("--max", metavar="PRICE", help="The most that this may cost, in dollars: 0.05 or $0.05."),
]
PerDay = Annotated[
    str,
    typer.Option(
        "--max-per-day",
        metavar="PRICE",
        envvar="FARTHING_MAX_PER_DAY",
        help="The most in one day (UTC), over all runs that share the journal.",
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Don't ask: pay up to --max. Needed where nobody is at a terminal."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be paid, and pay nothing.")]
NetworkNames = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="Pay on this network only, like eip155:8453 (repeatable; or FARTHING_NETWORKS).",
    ),
]
TokenNames = Annotated[
    list[str] | None,
    typer.Option(
        "--token",
        metavar="NETWORK/CONTRACT:NAME:VERSION",
        help="Know this dollar token too, like eip155:402402/0x…:USDC:2 (repeatable; or FARTHING_TOKENS); "
        ":18 behind it where it has 18 decimals instead of 6.",
    ),
]
JournalFile = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE|URL",
        envvar="FARTHING_JOURNAL",
        help="Keep the journal here.",
        show_default="in FARTHING_HOME",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Send this header (repeatable)."),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="TEXT|@FILE|@-",
        help="Send this body; JSON is sent as application/json (repeatable: joined by &).",
    ),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Wait no longer than this for the next byte."),
]
Follow = Annotated[
    bool,
    typer.Option("--location", "-L", help="Follow redirects, as long as nothing was paid."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the answer to this file, whole or not at all."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one line of JSON that tells all, with the answer's body unless -o is given."),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Tell each step on stderr: request, 402, payment, receipt."),
]
KeyName = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="NAME",
        help="A key of `farthing key list`.",
        show_default="default, or the only one",
        autocompletion=complete_names,
    ),
]
KeyFile = Annotated[
    str,
    typer.Option("--key-file", metavar="FILE", help="A file that only you can read, with the key in hexadecimal."),
]
KeyFd = Annotated[
    int | None,
    typer.Option("--key-fd", min=0, metavar="N", help="Read the key from this file descriptor."),
]
Signer = Annotated[
    str,
    typer.Option(
        "--signer",
        metavar="URL",
        help="Have it signed by this service (eth_signTypedData_v4): https, or on this machine.",
    ),
]
From = Annotated[str, typer.Option("--from", metavar="ADDRESS", help="The account that pays.")]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        min=0,
        metavar="N",
        help="Read the passphrase of the key from this file descriptor (or FARTHING_PASSPHRASE).",
    ),
]

_CODES = """\
    \b
    Exit codes: 0 paid or free, 2 usage, 3 refused by your own limits or by you, 4 refused by the seller,
    5 unknown whether it was paid (run the same again: never pays twice), 6 network.
"""
_ASKS = """\
    The price is shown and asked about on a terminal. Without a terminal nothing is paid unless --yes says so.
"""
_HELP: Final = {
    "GET": f"""Fetch a URL, and pay for it where it asks for money.

{_ASKS}
    \b
    Examples:
      farthing get https://api.example.com/report --max 0.05
      farthing get https://api.example.com/report --dry-run          what would it cost?
      farthing get https://api.example.com/report --max 0.05 --yes -o report.pdf
      farthing get URL --yes --key-fd 3 --json 3<key.txt | jq .transaction
      farthing get URL --token eip155:402402/0x…:USDC:2              on a devnet of your own

{_CODES}""",
    "POST": f"""Send a body to a URL, and pay for it where it asks for money.

{_ASKS}
    \b
    Examples:
      farthing post https://api.example.com/ask --max 0.05 -d '{{"question": "why?"}}'
      farthing post https://api.example.com/ask -d @question.json -H 'Accept: text/plain'
      generate | farthing post https://api.example.com/ask --yes -d @- -o answer.txt

{_CODES}""",
    "PUT": f"""Put a body at a URL, and pay for it where it asks for money.

{_ASKS}
    \b
    Examples:
      farthing put https://api.example.com/files/a.txt --max 0.01 -d @a.txt -H 'Content-Type: text/plain'

{_CODES}""",
    "DELETE": f"""Delete what is at a URL, and pay for it where it asks for money.

{_ASKS}
    \b
    Examples:
      farthing delete https://api.example.com/files/a.txt --max 0.01

{_CODES}""",
    "HEAD": """Show what a URL costs, or its headers. Never pays.

    \b
    Examples:
      farthing head https://api.example.com/report
      farthing head https://api.example.com/report --json | jq .offers
""",
}


def _paying(method: str) -> Callable[..., None]:
    def run(
        url: Url,
        *,
        price_max: PriceMax = PRICE_MAX_DEFAULT,
        per_day: PerDay = PER_DAY_DEFAULT,
        yes: Yes = False,
        dry_run: DryRun = False,
        network: NetworkNames = None,
        token: TokenNames = None,
        journal: JournalFile = None,
        header: Headers = None,
        data: Data = None,
        timeout: Timeout = 60.0,
        follow: Follow = False,
        output: Output = None,
        as_json: AsJson = False,
        verbose: Verbose = False,
        key: KeyName = "",
        key_file: KeyFile = "",
        key_fd: KeyFd = None,
        signer: Signer = "",
        sender: From = "",
        passphrase_fd: PassphraseFd = None,
    ) -> None:
        from farthing.cli.errand import run_errand  # noqa: PLC0415 - heavy parts only when run
        from farthing.cli.order import Order  # noqa: PLC0415

        order = Order(
            method=method,
            url=url,
            price_max=price_max,
            per_day=per_day,
            journal=journal or journal_path(),
            key=KeySource(
                name=key,
                path=key_file,
                descriptor=key_fd,
                signer=signer,
                sender=sender,
                passphrase_descriptor=passphrase_fd,
            ),
            headers=tuple(header or ()),
            data=tuple(data or ()),
            output=output,
            networks=tuple(network or ()),
            tokens=tuple(token or ()),
            timeout_seconds=timeout,
            follow=follow,
            yes=yes,
            dry_run=dry_run,
            as_json=as_json,
            verbose=verbose,
        )
        raise typer.Exit(run_errand(order))

    run.__doc__ = _HELP[method]
    return run


def head(
    url: Url,
    *,
    price_max: PriceMax = PRICE_MAX_DEFAULT,
    network: NetworkNames = None,
    token: TokenNames = None,
    header: Headers = None,
    timeout: Timeout = 60.0,
    follow: Follow = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what a URL costs, or its headers. Never pays."""
    from farthing.cli.errand import run_errand  # noqa: PLC0415 - heavy parts only when run
    from farthing.cli.order import Order  # noqa: PLC0415

    order = Order(
        method="HEAD",
        url=url,
        price_max=price_max,
        per_day=PER_DAY_DEFAULT,
        journal=journal_path(),
        key=KeySource(),
        headers=tuple(header or ()),
        networks=tuple(network or ()),
        tokens=tuple(token or ()),
        timeout_seconds=timeout,
        follow=follow,
        as_json=as_json,
        verbose=verbose,
    )
    raise typer.Exit(run_errand(order))


head.__doc__ = _HELP["HEAD"]
get, post, put, delete = (_paying(method) for method in ("GET", "POST", "PUT", "DELETE"))
