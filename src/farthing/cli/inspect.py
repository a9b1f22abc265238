"""`farthing inspect`: what a header of the protocol says, for people and as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from farthing.cli.tokens import known_networks
from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.cli.reading import Reading

# A dump of a whole exchange (`curl -i`) holds a few headers of 16 kB each.
STDIN_MAX_BYTES: Final = 262_144


def inspect(
    what: Annotated[
        str, typer.Argument(metavar="HEADER|URL|-", help="A header's value, a URL that asks for money, or - for stdin.")
    ],
    *,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token", metavar="NETWORK/CONTRACT:NAME:VERSION", help="Know this token too (or FARTHING_TOKENS)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON: kind, message, and facts.")] = False,
) -> None:
    """Decode PAYMENT-REQUIRED, PAYMENT-SIGNATURE or PAYMENT-RESPONSE, whichever it is, and an older version's of them.

    Prints a summary and the JSON. Of a payment it recovers who signed it; a URL is asked once, and never paid. A dump
    of headers on standard input is searched for all three.

    \b
    Examples:
      farthing inspect eyJ4NDAyVmVyc2lvbiI6Mi…            a value
      farthing inspect 'PAYMENT-RESPONSE: eyJzdWNjZX…'    as it stands in a dump
      farthing inspect https://api.example.com/report     what does it offer?
      curl -si https://api.example.com/report | farthing inspect -
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.cli.reading import Unreadable, find_headers, read_header  # noqa: PLC0415 - heavy parts only when run

    if what.startswith(("http://", "https://")):
        from farthing.cli.looking import demand_at  # noqa: PLC0415 - likewise

        texts = [demand_at(what)]
    elif what == "-":
        data = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
        if len(data) > STDIN_MAX_BYTES:
            raise ConfigError(f"Standard input has more than {STDIN_MAX_BYTES} bytes; headers are shorter.")
        texts = find_headers(data.decode("utf-8", "replace"))
    else:
        texts = find_headers(what)
    table = known_networks(token or ())
    failed = False
    for number, text in enumerate(texts):
        try:
            reading = read_header(text, table)
        except Unreadable as error:
            failed = True
            if as_json:
                print(json.dumps({"kind": error.kind, "error": str(error), "path": error.path}))
            print(f"farthing: {error}", file=sys.stderr)
        else:
            _show(reading, as_json=as_json, first=number == 0)
    if failed:
        raise typer.Exit(2)


def _show(reading: Reading, *, as_json: bool, first: bool) -> None:
    if as_json:
        said: dict[str, Any] = {"kind": reading.kind, "version": reading.version, "message": reading.message}
        print(json.dumps(said | {"facts": dict(reading.facts)}))
        return
    print(f"{'' if first else chr(10)}{reading.kind}, version {reading.version}")
    for name, value in reading.facts:
        print(f"  {name:<13}{value}")
    print(json.dumps(reading.message, indent=2, ensure_ascii=True))
