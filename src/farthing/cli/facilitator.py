"""`farthing facilitator`: the facilitator as a service, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.services.facilitator import Config, FacilitatorService

EXIT_FAILED = 1


def facilitator(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", dir_okay=False, help="The configuration, in TOML.", show_default=False
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the configuration says.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, instead of the configuration's; 0 takes a free one.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="FILE|URL",
            envvar="FARTHING_STORE",
            help="Keep everything here instead of where the configuration says: a file, or postgresql://user@host/name.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration and whether each node answers, then exit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say that it is ready in one line of JSON.")] = False,
    log_level: Annotated[str, typer.Option(metavar="debug|info|warning|error", help="What is logged.")] = "info",
) -> None:
    """Verify and settle payments for sellers, until Ctrl-C. The log goes to stderr, a line of JSON an event.

    \b
    Examples:
      farthing facilitator --config farthing.toml --check   is all as it should be?
      farthing facilitator --config farthing.toml           on 127.0.0.1:4020
      farthing facilitator -c farthing.toml --port 0 --json on a free port, named in one line of JSON

    \b
    A configuration for the local chain (farthing devnet --port 8545 --json names the token):
      [wallet]
      key_env = "FACILITATOR_KEY"
      [[network]]
      id = "eip155:402402"
      rpc_urls = ["http://127.0.0.1:8545"]
      [[network.token]]
      address = "0x…"
      symbol = "USDC"
      decimals = 6
      eip712_name = "USDC"
      eip712_version = "2"
    """  # noqa: D301 - click's mark for lines that are not to be joined
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise ConfigError("--config FILE: a facilitator needs a configuration; see `farthing facilitator --help`.")
    from farthing.services.facilitator import FacilitatorService, load_config  # noqa: PLC0415 - heavy only when run
    from farthing.services.facilitator.logs import command_log  # noqa: PLC0415

    if log_level not in {"debug", "info", "warning", "error"}:
        raise ConfigError(f"--log-level {log_level}: there are debug, info, warning and error.")
    loaded = load_config(config)
    loaded = _override(loaded, host=host, port=port, store=store)
    service = FacilitatorService.from_config(loaded, log=command_log(log_level))
    if check:
        raise typer.Exit(_check(service, loaded))
    _run(service, loaded, as_json=as_json)


def _override(config: Config, *, host: str | None, port: int | None, store: str | None) -> Config:
    server = config.server
    server = msgspec.structs.replace(
        server, host=server.host if host is None else host, port=server.port if port is None else port
    )
    return msgspec.structs.replace(config, server=server, store=store or config.store)


def _check(service: FacilitatorService, config: Config) -> int:
    from farthing.services.facilitator.auth import check_binding, tokens_of  # noqa: PLC0415

    check_binding(config.server.host, tokens_of(config.server, os.environ))
    print(f"configuration   in order; wallet {service.desk.signers['eip155:*'][0]}")
    failed = False
    for network, trouble in asyncio.run(service.check_nodes()).items():
        print(f"{network:<15} {trouble or 'answers'}")
        failed = failed or bool(trouble)
    return EXIT_FAILED if failed else 0


def _run(service: FacilitatorService, config: Config, *, as_json: bool) -> None:
    from farthing.services.facilitator.auth import tokens_of  # noqa: PLC0415
    from farthing.services.facilitator.server import serve  # noqa: PLC0415

    tokens = tokens_of(config.server, os.environ)

    def ready(url: str) -> None:
        wallet = service.desk.signers["eip155:*"][0]
        networks = list(service.desk.networks)
        if as_json:
            print(json.dumps({"ready": True, "url": url, "wallet": wallet, "networks": networks}), flush=True)
        else:
            settling = ", ".join(networks)
            print(f"Facilitator at {url}, wallet {wallet}, settling on {settling}. Ctrl-C ends it.", flush=True)

    running = serve(service, tokens=tokens, host=config.server.host, port=config.server.port, ready=ready)
    if sys.platform == "win32":
        asyncio.run(running)
        return
    import uvloop  # noqa: PLC0415

    uvloop.run(running)
