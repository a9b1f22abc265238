"""`farthing clearing`: the clearing house as a service until Ctrl-C, and an operator's commands for one that runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from farthing.cli.clearing_accounts import accounts, payee, payer, token
from farthing.cli.clearing_desk import audit, books, disputes, payouts, proof, statements, suspense, window
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
    """Run the clearing house until Ctrl-C, or tend one that runs.

    \b
    Examples:
      farthing clearing --config clearing.toml --check     is all as it should be?
      farthing clearing --config clearing.toml             on 127.0.0.1:4030
      farthing clearing payer https://crawler.example --limit 100
      farthing clearing accounts                           payers and payees of the house that runs there
      farthing clearing window --close                     close the open window now
      farthing clearing statements                         what was issued, and where it stands
      farthing clearing disputes                           what waits for a decision
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


_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    *(accounts, payer, payee, token),
    *(window, statements, disputes, payouts, suspense, books, audit, proof),
    *(reserve, guarantee),
)
for _command in _COMMANDS:
    clearing.command(_command.__name__)(_command)
