"""An operator's look at a clearing house that runs: one question at a time, over its HTTP."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from farthing.errors import ConfigError

EXIT_FAILED = 1
# What one answer of the service may have: a page of a list.
ANSWER_MAX_BYTES = 16 * 1024 * 1024
TIMEOUT_SECONDS = 60.0
TOKEN_VARIABLE = "FARTHING_CLEARING_TOKEN"  # noqa: S105 - the variable's name
URL_VARIABLE = "FARTHING_CLEARING_URL"

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="The clearing house that runs.")]
Token = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="The environment variable that holds your token.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON an entry.")]
HERE = "http://127.0.0.1:4030"


class House:
    """A clearing house that runs, asked one thing at a time."""

    def __init__(self, url: str, token_env: str) -> None:
        self._url = url.rstrip("/")
        token = os.environ.get(token_env, "")
        if not token:
            raise ConfigError(f"Put your token of the clearing house into the environment variable {token_env}.")
        json_both_ways = {"Accept": "application/json", "Content-Type": "application/json"}
        self._headers = {"Authorization": f"Bearer {token}", **json_both_ways}

    def ask(self, method: str, path: str, said: dict[str, Any] | None = None) -> Any:
        """Ask, with `said` as JSON; prints what went wrong and exits where the house did not answer 200."""
        from farthing.world.http import HttpClient  # noqa: PLC0415
        from farthing.world.loop import run_blocking  # noqa: PLC0415

        client = HttpClient()
        answer = run_blocking(
            client.request(
                method,
                self._url + path,
                headers=self._headers,
                body=b"" if said is None else json.dumps(said).encode(),
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=ANSWER_MAX_BYTES,
            )
        )
        found: Any = json.loads(answer.body)
        if answer.status != 200:  # noqa: PLR2004 - RFC 9110, 15.3.1
            detail = found.get("detail", "")
            print(f"farthing: the clearing house answered {answer.status}: {detail}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILED)
        return found

    def pages(self, path: str) -> list[dict[str, Any]]:
        """All entries of a list."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.ask("GET", f"{path}?after={quote(after)}")
            found += page["entries"]
            after = page["next"]
            if not after:
                return found


def show(entries: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print entries, one a line."""
    for entry in entries:
        if as_json:
            print(json.dumps(entry))
        else:
            print("  ".join(f"{name}={value}" for name, value in entry.items() if value not in ("", None)))
