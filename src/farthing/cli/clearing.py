"""`farthing clearing`: the clearing house as a service until Ctrl-C, and an operator's look at one that runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from farthing.cli.house import HERE, TOKEN_VARIABLE, AsJson, House, Token, Url, show
from farthing.cli.reserve import guarantee, reserve
from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.services.clearing import ClearingConfig

Config = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", dir_okay=False, help="The configuration, in TOML.")
]

clearing = typer.Typer(
    name="clearing",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@clearing.callback()
def run(
    context: typer.Context,
    *,
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the configuration says.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, instead of the configuration's; 0 takes a free one.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Path or URL of the store, instead of the configuration's.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration, then exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say that it is ready in one line of JSON.")] = False,
    log_level: Annotated[str, typer.Option(metavar="debug|info|warning|error", help="What is logged.")] = "info",
) -> None:
    """Run the clearing house until Ctrl-C, or look at one that runs.

    \b
    Examples:
      farthing clearing --config clearing.toml --check     is all as it should be?
      farthing clearing --config clearing.toml             on 127.0.0.1:4030
      farthing clearing accounts                           payers and payees of the house that runs there
      farthing clearing window --close                     close the open window now
      farthing clearing statements                         what was issued, and where it stands
      farthing clearing proof STATEMENT LINE               prove one line of a statement
      farthing clearing reserve                            money that stands ready for payers that default
    """  # noqa: D301 - click's mark for lines that are not to be joined
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise ConfigError("farthing clearing needs --config FILE to run, or one of its subcommands: see --help.")
    from farthing.services.clearing import ClearingService, load_config  # noqa: PLC0415 - heavy only when run
    from farthing.services.facilitator.logs import command_log  # noqa: PLC0415

    if log_level not in {"debug", "info", "warning", "error"}:
        raise ConfigError(f"--log-level {log_level}: there are debug, info, warning and error.")
    loaded = load_config(config)
    server = loaded.server
    server = msgspec.structs.replace(
        server, host=server.host if host is None else host, port=server.port if port is None else port
    )
    loaded = msgspec.structs.replace(loaded, server=server, store=loaded.store if store is None else store)
    service = ClearingService.from_config(loaded, log=command_log(log_level))
    if check:
        print(f"configuration   in order; treasury {service.rail.treasury} on {service.rail.token.network}")
        raise typer.Exit
    _serve(service, loaded, as_json=as_json)


def _serve(service: Any, config: ClearingConfig, *, as_json: bool) -> None:
    from farthing.services.clearing.callers import Operators  # noqa: PLC0415
    from farthing.services.clearing.server import serve  # noqa: PLC0415

    operators = Operators(config.server, os.environ)

    def ready(url: str) -> None:
        network = service.desk.rules.network
        if as_json:
            said = {"ready": True, "url": url, "network": network, "treasury": service.rail.treasury}
            print(json.dumps(said), flush=True)
        else:
            print(
                f"Clearing house of {network} at {url}, treasury {service.rail.treasury}. Ctrl-C ends it.", flush=True
            )

    running = serve(service, operators=operators, host=config.server.host, port=config.server.port, ready=ready)
    if sys.platform == "win32":
        asyncio.run(running)
        return
    import uvloop  # noqa: PLC0415

    uvloop.run(running)


@clearing.command("accounts")
def accounts(*, url: Url = HERE, token_env: Token = TOKEN_VARIABLE, as_json: AsJson = False) -> None:
    """List payers, with what they owe and may, payees, with their domains, and how the reserve stands.

    \b
    Examples:
      farthing clearing accounts
      farthing clearing accounts --url https://clearing.example --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    house = House(url, token_env)
    for what in ("payers", "payees"):
        show(house.pages(f"/lists/{what}"), as_json=as_json)
    show(house.ask("GET", "/reserve"), as_json=as_json)


@clearing.command("window")
def window(
    *,
    close: Annotated[
        bool, typer.Option("--close", help="Close the open window now, and issue its statements.")
    ] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List the clearing windows, or close the one that is open.

    \b
    Examples:
      farthing clearing window            which are open, closed, issued
      farthing clearing window --close    close the open one now, and issue its statements
    """  # noqa: D301 - click's mark for lines that are not to be joined
    house = House(url, token_env)
    if close:
        show([house.ask("POST", "/window/close")], as_json=as_json)
    show(house.pages("/lists/windows"), as_json=as_json)


@clearing.command("statements")
def statements(
    *,
    state: Annotated[str, typer.Option(help="Only those that are issued, accepted, instructed or settled.")] = "",
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List statements and where they stand.

    \b
    Examples:
      farthing clearing statements
      farthing clearing statements --state issued --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    house = House(url, token_env)
    after = ""
    while page := house.ask("GET", f"/statements?state={quote(state)}&after={quote(after)}"):
        show(page, as_json=as_json)
        after = page[-1]["statement"]


@clearing.command("payouts")
def payouts(*, url: Url = HERE, token_env: Token = TOKEN_VARIABLE, as_json: AsJson = False) -> None:
    """List payouts to payees.

    \b
    Examples:
      farthing clearing payouts
      farthing clearing payouts --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    show(House(url, token_env).pages("/lists/payouts"), as_json=as_json)


@clearing.command("proof")
def proof(
    statement: Annotated[str, typer.Argument(help="The statement's id.")],
    line: Annotated[str, typer.Argument(help="The line's id: sha256:… or adjustment:….")],
    *,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
) -> None:
    """Prove that a line is in a statement, with the payer's own signature: one JSON object, for any verifier.

    \b
    Examples:
      farthing clearing proof STATEMENT LINE    names as `farthing clearing statements` and its lines give them
    """  # noqa: D301 - click's mark for lines that are not to be joined
    found = House(url, token_env).ask("GET", f"/statements/{quote(statement)}/proofs/{quote(line)}")
    print(json.dumps(found, indent=2))


clearing.command("reserve")(reserve)
clearing.command("guarantee")(guarantee)
