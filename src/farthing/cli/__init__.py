"""The command `farthing`: each subcommand is one module beside this one, and imports its heavy parts only when run."""

from __future__ import annotations

import sys

import typer

from farthing import __version__
from farthing.cli.clearing import clearing
from farthing.cli.crawl import crawl
from farthing.cli.demo import demo
from farthing.cli.devnet import devnet
from farthing.cli.edge import edge
from farthing.cli.explain import explain
from farthing.cli.facilitator import facilitator
from farthing.cli.facilitator_reconcile import reconcile as facilitator_reconcile
from farthing.cli.get import delete, get, head, post, put
from farthing.cli.inspect import inspect
from farthing.cli.key import key
from farthing.cli.payments import payments
from farthing.cli.reconcile import reconcile
from farthing.cli.statements import statements
from farthing.cli.store import store
from farthing.errors import FarthingError

# As shells and `sysexits` have it: 2 for a mistake in how the command was called or configured, 130 for Ctrl-C.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="farthing",
    help="Payments for machines over HTTP 402.",
    epilog="Start with: farthing demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    # A traceback is Python's own: one with local variables would show keys (SAFETY B7).
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(demo)
app.command("devnet")(devnet)
app.command("edge")(edge)
facilitating = typer.Typer(name="facilitator", invoke_without_command=True, rich_markup_mode=None)
facilitating.callback()(facilitator)
facilitating.command("reconcile")(facilitator_reconcile)
app.add_typer(facilitating)
app.add_typer(clearing)
app.command("get")(get)
app.command("post")(post)
app.command("put")(put)
app.command("delete")(delete)
app.command("head")(head)
app.command("crawl")(crawl)
payments.command("reconcile")(reconcile)
app.add_typer(payments)
app.add_typer(statements)
app.command("inspect")(inspect)
app.command("explain")(explain)
app.add_typer(store)
app.add_typer(key)

# Which extra brings a module that a command may miss.
_EXTRA_OF_MODULE = {
    "Crypto": "keys",
    "aiohttp": "seller",
    "alembic": "store",
    "eth": "devnet",
    "eth_account": "devnet",
    "fastapi": "demo",
    "flask": "demo",
    "httpx2": "httpx",
    "nacl": "credit",
    "prometheus_client": "facilitator",
    "psycopg": "postgres",
    "requests": "requests",
    "rich": "demo",
    "scrapy": "scrapy",
    "sqlalchemy": "store",
    "starlette": "facilitator",
    "structlog": "facilitator",
    "uvicorn": "facilitator",
}


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"farthing {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: bool = typer.Option(
        False,  # noqa: FBT003 - typer's form
        "--version",
        help="Print the version and exit.",
        callback=_show_version,
        is_eager=True,
    ),
) -> None:
    """Payments for machines over HTTP 402: buy, sell, verify and settle, on a real chain or on one of your own."""


def main() -> None:
    """Run the command; a mistake is one clear line on stderr, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except FarthingError as error:
        print(f"farthing: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(
            f"farthing: this command needs {error.name}; install it with: pip install 'farthing[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
