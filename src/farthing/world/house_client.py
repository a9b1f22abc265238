"""A payer's calls to its clearing house over HTTP: statements, lines, disputes, payments.

Lines are kept in a folder, one file a statement, since there may be a million; a file is whole or not there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from farthing.buyer.audit import is_statement_id
from farthing.buyer.audit_house import (
    LEAVES_AT_ONCE,
    FetchKeys,
    FetchLines,
    FetchStatement,
    HouseAway,
    HouseRefused,
    LeafPage,
    ListStatuses,
    ReadLeaves,
    SendDisputes,
    SendStatementPayment,
)
from farthing.errors import ConfigError, StoreError
from farthing.flow import Effect
from farthing.protocol.clearing import LINE_MAX_BYTES
from farthing.protocol.codec import encode_json
from farthing.protocol.statements import Dispute, DisputeRequest, Problem, StatementAnswer, StatementStatus
from farthing.signatures.directory import read_directory
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import PublicKey
from farthing.world.http import HttpAnswer, HttpClient, HttpTrouble
from farthing.world.urls import check_url

# A house checks a payment's signature and asks nobody; a thousand disputes are booked in a second.
ASK_TIMEOUT_SECONDS: Final = 30.0
# A gigabyte over a slow line.
LINES_TIMEOUT_SECONDS: Final = 1_800.0
# A page of a hundred statements, or the disputes of a thousand lines with their notes.
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
KEYS_PATH: Final = "/.well-known/farthing-clearing-keys"
_OK: Final = range(200, 300)
_BUSY: Final = frozenset({408, 425, 429})
_TROUBLE_STATUS: Final = 500

T = TypeVar("T")


class HouseClient:
    """Asks one clearing house for one payer, with the payer's bearer token."""

    def __init__(self, url: str, token: str, *, folder: Path, http: HttpClient | None = None) -> None:
        """Ask the house at `url`; keep lines in `folder`, which is made. Raises `ConfigError`."""
        self.url = check_url(url, "the clearing house").rstrip("/")
        if not token:
            message = "The clearing house is asked with the payer's token; there is none."
            raise ConfigError(message)
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"}
        self._folder = folder
        self._http = http or HttpClient()

    def __repr__(self) -> str:
        """Name the house; the token stays unseen."""
        return f"HouseClient({self.url!r})"

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """The handlers of the effects of `farthing.buyer.audit_house`."""
        return {
            FetchKeys: self._keys,
            ListStatuses: self._list,
            FetchStatement: self._statement,
            FetchLines: self._lines,
            ReadLeaves: self._leaves,
            SendDisputes: self._dispute,
            SendStatementPayment: self._pay,
        }

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._http.aclose()

    def lines_file(self, statement: str) -> Path:
        """Where the lines of a statement are kept, as NDJSON."""
        if not is_statement_id(statement):
            message = f"{statement[:64]!r} is no id of a statement."
            raise ConfigError(message)
        return self._folder / f"{statement}.ndjson"

    async def _keys(self, _effect: FetchKeys) -> tuple[PublicKey, ...]:
        answer = await self._send("GET", KEYS_PATH, headers={})
        try:
            return tuple(each.key for each in read_directory(self._good(answer)))
        except SignatureInvalid as error:
            raise HouseAway(f"The clearing house's keys can't be read: {error}.") from None

    async def _list(self, effect: ListStatuses) -> tuple[StatementStatus, ...]:
        answer = await self._send("GET", f"/statements?after={quote(effect.after, safe='')}")
        return self._read(answer, tuple[StatementStatus, ...])

    async def _statement(self, effect: FetchStatement) -> StatementAnswer:
        return self._read(await self._send("GET", self._path(effect.statement)), StatementAnswer)

    async def _dispute(self, effect: SendDisputes) -> tuple[Dispute, ...]:
        body = encode_json(DisputeRequest(effect.lines))
        return self._read(
            await self._send("POST", self._path(effect.statement, "/disputes"), body), tuple[Dispute, ...]
        )

    async def _pay(self, effect: SendStatementPayment) -> StatementStatus:
        body = encode_json(effect.payment)
        return self._read(await self._send("POST", self._path(effect.statement, "/payment"), body), StatementStatus)

    async def _lines(self, effect: FetchLines) -> None:
        path = self.lines_file(effect.statement)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with part.open("wb") as file:
                answer = await self._http.request(
                    "GET",
                    self.url + self._path(effect.statement, "/lines"),
                    headers=self._headers,
                    timeout_seconds=LINES_TIMEOUT_SECONDS,
                    max_bytes=effect.max_bytes,
                    sink=file.write,
                )
            self._good(answer)
            part.replace(path)
        except HttpTrouble as error:
            raise HouseAway(f"The clearing house can't be asked: {error}") from None
        except OSError as error:
            raise StoreError(f"The lines can't be kept at {path}: {error.strerror}.") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _leaves(self, effect: ReadLeaves) -> LeafPage:
        path = self.lines_file(effect.statement)
        leaves: list[bytes] = []
        try:
            with path.open("rb") as file:
                file.seek(effect.offset)
                while len(leaves) < LEAVES_AT_ONCE and (line := file.readline(LINE_MAX_BYTES + 1)):
                    # A longer one is cut here, so that it is no canonical line of any statement.
                    leaves.append(line.removesuffix(b"\n"))
                next_offset = file.tell()
        except OSError as error:
            raise StoreError(f"The lines at {path} can't be read: {error.strerror}.") from None
        return LeafPage(tuple(leaves), next_offset if leaves else None)

    def _path(self, statement: str, rest: str = "") -> str:
        return f"/statements/{quote(statement, safe='')}{rest}"

    async def _send(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        sent = dict(self._headers if headers is None else headers)
        if body:
            sent["Content-Type"] = "application/json"
        try:
            return await self._http.request(
                method,
                self.url + path,
                headers=sent,
                body=body,
                timeout_seconds=ASK_TIMEOUT_SECONDS,
                max_bytes=ANSWER_MAX_BYTES,
            )
        except HttpTrouble as error:
            raise HouseAway(f"The clearing house can't be asked: {error}") from None

    def _read(self, answer: HttpAnswer, kind: type[T]) -> T:
        body = self._good(answer)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HouseAway(f"The clearing house's answer can't be read: {error}.") from None

    def _good(self, answer: HttpAnswer) -> bytes:
        if answer.status in _OK:
            return answer.body
        problem: Problem | None = None
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = msgspec.json.decode(answer.body, type=Problem)
        detail = f"status {answer.status}" if problem is None else problem.detail
        if problem is None or answer.status >= _TROUBLE_STATUS or answer.status in _BUSY:
            raise HouseAway(f"The clearing house is in trouble: {detail}")
        reason = problem.reason or problem.type.rpartition(":")[2]
        raise HouseRefused(f"The clearing house said no: {detail}", reason=reason, status=answer.status)
