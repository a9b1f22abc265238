"""A clearing house that runs, as its operator's commands ask it: one door at a time, with the operator's token."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, cast
from urllib.parse import quote

import typer

from farthing.cli.terminal import plain
from farthing.errors import ConfigError

EXIT_FAILED: Final = 1
# What one answer of the service may have: a page of a list.
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_SECONDS: Final = 60.0
TOKEN_VARIABLE: Final = "FARTHING_CLEARING_TOKEN"  # noqa: S105 - the variable's name
URL_VARIABLE: Final = "FARTHING_CLEARING_URL"
HERE: Final = "http://127.0.0.1:4030"
# More digits of Unix seconds are milliseconds, or no time.
_UNIX_DIGITS_MAX: Final = 11

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="The clearing house that runs.")]
Token = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="The environment variable that holds your token.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON an entry.")]


class House:
    """A clearing house that runs."""

    def __init__(self, url: str, token_env: str) -> None:
        """Take its address and the variable with the token. Raises `ConfigError` where there is none."""
        self._url = url.rstrip("/")
        token = os.environ.get(token_env, "")
        if not token:
            raise ConfigError(f"Put your token of the clearing house into the environment variable {token_env}.")
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        from farthing.world.http import HttpClient  # noqa: PLC0415 - heavy parts only when run

        self._http = HttpClient()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Give what a door answered; ends the command where it was no success, with the house's own words."""
        from farthing.world.loop import run_blocking  # noqa: PLC0415 - likewise

        answer = run_blocking(
            self._http.request(
                method,
                self._url + path,
                headers=self._headers,
                body=b"" if body is None else json.dumps(body).encode(),
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=ANSWER_MAX_BYTES,
            )
        )
        try:
            said: Any = json.loads(answer.body)
        except ValueError:
            raise self._failed(answer.status, f"no JSON. Is there a clearing house at {self._url}?") from None
        if answer.status != 200:  # noqa: PLR2004 - RFC 9110, 15.3.1
            detail = cast("dict[str, Any]", said).get("detail", "") if isinstance(said, dict) else ""
            raise self._failed(answer.status, str(detail))
        return said

    def _failed(self, status: int, detail: str) -> typer.Exit:
        print(plain(f"farthing: the clearing house answered {status}: {detail}"), file=sys.stderr)
        return typer.Exit(EXIT_FAILED)

    def entries(self, what: str) -> list[dict[str, Any]]:
        """Give a whole list (`/lists/{what}`), page by page."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.ask("GET", f"/lists/{what}?after={quote(after)}")
            found += page["entries"]
            after = page["next"]
            if not after:
                return found


def show(
    entries: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str], *, as_json: bool, empty: str = ""
) -> None:
    """Print a line for each entry, or say that there is none."""
    count = 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 - how many there were
        print(json.dumps(entry) if as_json else plain(line(_flat(entry))))
    if not count and empty and not as_json:
        print(empty)


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Keep what others wrote (evidence, notes, resources) from beginning a line that looks like an entry."""
    return {name: value.replace("\n", " ") if isinstance(value, str) else value for name, value in entry.items()}


def money(amount: str | int, currency: str = "") -> str:
    """Write atomic units of a currency as people read them."""
    from farthing.money import show_atomic  # noqa: PLC0415 - heavy parts only when run
    from farthing.protocol.clearing import DECIMALS  # noqa: PLC0415

    return f"{show_atomic(int(amount), DECIMALS)} {currency}".rstrip()


def units(price: str, currency: str) -> str:
    """Turn a price as a person writes it into atomic units, as text. Raises `ConfigError`."""
    from farthing.errors import PriceError  # noqa: PLC0415 - heavy parts only when run
    from farthing.money import parse_price, to_atomic  # noqa: PLC0415
    from farthing.protocol.clearing import DECIMALS  # noqa: PLC0415

    try:
        read = parse_price(price)
        if read.currency not in {"", currency}:
            raise ConfigError(f"{price} is not in {currency}, the currency of the account.")
        return str(to_atomic(read.number, DECIMALS))
    except PriceError as error:
        raise ConfigError(str(error)) from None


def seconds_of(time: str) -> int:
    """Read a time as Unix seconds: a number of them, or ISO 8601 (UTC where no zone is said). Raises `ConfigError`."""
    if time.isascii() and time.isdecimal() and len(time) <= _UNIX_DIGITS_MAX:
        return int(time)
    try:
        read = datetime.fromisoformat(time)
    except ValueError:
        raise ConfigError(f"{time} is no time: write 2026-11-30T12:00:00Z, or Unix seconds.") from None
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())


def moment(seconds: int | None) -> str:
    """Write Unix seconds as a time in UTC; empty where there is none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
