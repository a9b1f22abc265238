"""`farthing statements`: what a clearing house bills, fetched, compared with the journal, and paid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from farthing.cli.clearing_house import TOKEN_VARIABLE, URL_VARIABLE
from farthing.cli.get import From, JournalFile, KeyFd, KeyFile, KeyName, PassphraseFd, Signer, TokenNames, Yes
from farthing.cli.home import journal_path
from farthing.cli.signing import KeySource

NETWORK_VARIABLE: Final = "FARTHING_CLEARING_NETWORK"
PER_STATEMENT_DEFAULT: Final = "10"
PER_DAY_DEFAULT: Final = "10"
EVERY_DEFAULT_SECONDS: Final = 300.0

Url = Annotated[
    str, typer.Option("--url", envvar=URL_VARIABLE, metavar="URL", help="The clearing house.", show_default=False)
]
Network = Annotated[
    str,
    typer.Option(
        "--network",
        envvar=NETWORK_VARIABLE,
        metavar="NAME",
        help="The clearing network, like clearing:example.",
        show_default=False,
    ),
]
Agent = Annotated[
    str,
    typer.Option(
        "--agent",
        envvar="FARTHING_AGENT",
        metavar="ORIGIN",
        help="Whose statements: the origin of the agent's key directory.",
        show_default=False,
    ),
]
TokenEnv = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="The environment variable with the payer's token there.")
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[STATEMENT]...", help="Which ones; none: all, in order.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        file_okay=False,
        help="Keep statements and lines here.",
        show_default="in FARTHING_HOME",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")]
PriceMax = Annotated[str, typer.Option("--max", metavar="PRICE", help="The most that one statement may cost.")]
PerDay = Annotated[
    str, typer.Option("--max-per-day", metavar="PRICE", help="The most for all statements that are signed in a day.")
]
Treasury = Annotated[
    str,
    typer.Option(
        "--treasury",
        metavar="ADDRESS",
        help="Pay to this address alone.",
        show_default="the one that was paid before",
    ),
]
HouseKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--house-key",
        metavar="THUMBPRINT",
        help="Take statements under this key alone (repeatable).",
        show_default="the key that was seen first",
    ),
]
Rails = Annotated[
    list[str] | None,
    typer.Option("--rail", metavar="NETWORK", help="Pay on this chain alone, like eip155:8453 (repeatable)."),
]

statements = typer.Typer(name="statements", rich_markup_mode=None, invoke_without_command=True)


@statements.callback()
def listed(
    context: typer.Context,
    *,
    url: Url = "",
    network: Network = "",
    agent: Agent = "",
    token_env: TokenEnv = TOKEN_VARIABLE,
    journal: JournalFile = None,
    as_json: AsJson = False,
) -> None:
    """List what a clearing house bills an agent, and where each statement stands.

    \b
    Examples:
      farthing statements
      farthing statements audit                  compare them with the journal, line by line
      farthing statements pay --max 20           dispute what is wrong, and pay the rest
    The house, its network, the agent and the token stand in FARTHING_CLEARING_URL, FARTHING_CLEARING_NETWORK,
    FARTHING_AGENT and FARTHING_CLEARING_TOKEN, or are given by options.
    """  # noqa: D301 - click's mark for lines that are not to be joined
    if context.invoked_subcommand is not None:
        return
    from farthing.cli.auditing import Errand, Source  # noqa: PLC0415 - heavy parts only when run

    source = Source(
        url=url, network=network, agent=agent, token_env=token_env, journal=journal or journal_path(), as_json=as_json
    )
    raise typer.Exit(Errand(source).run_list())


@statements.command("fetch")
def fetch(
    ids: Ids = None,
    *,
    url: Url = "",
    network: Network = "",
    agent: Agent = "",
    token_env: TokenEnv = TOKEN_VARIABLE,
    journal: JournalFile = None,
    output: Folder = None,
    page: Annotated[bool, typer.Option("--page", help="Write a page for people of each, too (ID.html).")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep statements as the house signed them (ID.jws) and their lines (ID.ndjson).

    \b
    Examples:
      farthing statements fetch --output statements --page
      farthing statements fetch st-000012-0f3a5c7e9b1d2f44
    """  # noqa: D301 - likewise
    from farthing.cli.auditing import Errand, Source  # noqa: PLC0415 - likewise

    source = Source(
        url=url,
        network=network,
        agent=agent,
        token_env=token_env,
        journal=journal or journal_path(),
        folder=output,
        as_json=as_json,
    )
    raise typer.Exit(Errand(source).run_fetch(tuple(ids or ()), pages=page))


@statements.command("audit")
def audit(
    ids: Ids = None,
    *,
    url: Url = "",
    network: Network = "",
    agent: Agent = "",
    token_env: TokenEnv = TOKEN_VARIABLE,
    journal: JournalFile = None,
    token: TokenNames = None,
    treasury: Treasury = "",
    house_key: HouseKeys = None,
    rail: Rails = None,
    as_json: AsJson = False,
) -> None:
    """Compare statements with the journal, line by line. Nothing is disputed, and nothing is paid.

    \b
    Examples:
      farthing statements audit
      farthing statements audit st-000012-0f3a5c7e9b1d2f44 --json | jq .disputes
    \b
    Exit codes: 0 all in order, 1 some lines are wrong, 2 usage, 4 a statement is refused whole, 6 network.
    """  # noqa: D301 - likewise
    from farthing.cli.auditing import Errand, Source  # noqa: PLC0415 - likewise

    source = Source(
        url=url,
        network=network,
        agent=agent,
        token_env=token_env,
        journal=journal or journal_path(),
        tokens=tuple(token or ()),
        treasury=treasury,
        house_keys=tuple(house_key or ()),
        rails=tuple(rail or ()),
        as_json=as_json,
    )
    raise typer.Exit(Errand(source).run_audit(tuple(ids or ())))


@statements.command("pay")
def pay(
    ids: Ids = None,
    *,
    price_max: PriceMax = PER_STATEMENT_DEFAULT,
    per_day: PerDay = PER_DAY_DEFAULT,
    yes: Yes = False,
    accept_decisions: Annotated[
        bool,
        typer.Option("--accept-decisions", help="Pay also what the house decided against the journal."),
    ] = False,
    url: Url = "",
    network: Network = "",
    agent: Agent = "",
    token_env: TokenEnv = TOKEN_VARIABLE,
    journal: JournalFile = None,
    token: TokenNames = None,
    treasury: Treasury = "",
    house_key: HouseKeys = None,
    rail: Rails = None,
    key: KeyName = "",
    key_file: KeyFile = "",
    key_fd: KeyFd = None,
    signer: Signer = "",
    sender: From = "",
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Audit statements, dispute what is wrong in them, and pay the rest: each at most once, whatever is cut.

    \b
    Examples:
      farthing statements pay                       asks before it disputes and pays
      farthing statements pay --max 20 --yes --treasury 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
      farthing statements pay st-000012-0f3a5c7e9b1d2f44
      farthing statements pay st-000013-0f3a5c7e9b1d2f44 --accept-decisions    the house rejected my dispute: so be it
    \b
    Exit codes: 0 all paid or nothing to pay, 2 usage, 3 refused by your own limits or by you, 4 a statement is held
    or refused, 5 unknown whether a payment arrived (run the same again: never pays twice), 6 network.
    """  # noqa: D301 - likewise
    from farthing.cli.auditing import Errand, Source  # noqa: PLC0415 - likewise

    source = Source(
        url=url,
        network=network,
        agent=agent,
        token_env=token_env,
        journal=journal or journal_path(),
        tokens=tuple(token or ()),
        treasury=treasury,
        house_keys=tuple(house_key or ()),
        rails=tuple(rail or ()),
        price_max=price_max,
        per_day=per_day,
        accept_decisions=accept_decisions,
        key=_key(key, key_file, key_fd, signer, sender, passphrase_fd),
        as_json=as_json,
    )
    raise typer.Exit(Errand(source).run_pay(tuple(ids or ()), yes=yes))


@statements.command("watch")
def watch(
    *,
    every: Annotated[
        float, typer.Option("--every", min=1, metavar="SECONDS", help="Look for statements so often.")
    ] = EVERY_DEFAULT_SECONDS,
    price_max: PriceMax = PER_STATEMENT_DEFAULT,
    per_day: PerDay = PER_DAY_DEFAULT,
    url: Url = "",
    network: Network = "",
    agent: Agent = "",
    token_env: TokenEnv = TOKEN_VARIABLE,
    journal: JournalFile = None,
    token: TokenNames = None,
    treasury: Treasury = "",
    house_key: HouseKeys = None,
    rail: Rails = None,
    key: KeyName = "",
    key_file: KeyFile = "",
    key_fd: KeyFd = None,
    signer: Signer = "",
    sender: From = "",
    passphrase_fd: PassphraseFd = None,
    as_json: AsJson = False,
) -> None:
    """Audit, dispute and pay whatever comes, unattended and within limits, until Ctrl-C.

    \b
    Examples:
      farthing statements watch --max 20 --max-per-day 25 --treasury 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
      farthing payments stop "statements look odd"      the kill switch: nothing more is signed or sent
    A statement that is wrong, or over a limit, is told and left to a person.
    """  # noqa: D301 - likewise
    from farthing.cli.auditing import Errand, Source  # noqa: PLC0415 - likewise

    source = Source(
        url=url,
        network=network,
        agent=agent,
        token_env=token_env,
        journal=journal or journal_path(),
        tokens=tuple(token or ()),
        treasury=treasury,
        house_keys=tuple(house_key or ()),
        rails=tuple(rail or ()),
        price_max=price_max,
        per_day=per_day,
        key=_key(key, key_file, key_fd, signer, sender, passphrase_fd),
        as_json=as_json,
    )
    raise typer.Exit(Errand(source).run_watch(every))


def _key(  # noqa: PLR0917 - as the options stand
    name: str, path: str, descriptor: int | None, signer: str, sender: str, passphrase_descriptor: int | None
) -> KeySource:
    return KeySource(
        name=name,
        path=path,
        descriptor=descriptor,
        signer=signer,
        sender=sender,
        passphrase_descriptor=passphrase_descriptor,
    )
