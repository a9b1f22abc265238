"""An edge's calls to its clearing house over HTTP: a new life, credit, uploads.

Whatever is no clear answer is `ClearingAway`: the edge serves on within what it holds, and asks again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from farthing.errors import ConfigError, FarthingError
from farthing.protocol.clearing import EdgeStarted, Lease, LeaseClose, LeaseClosed, LeaseRequest, Standing, UploadAnswer
from farthing.protocol.codec import encode_json
from farthing.world.http import HttpAnswer, HttpClient, HttpTrouble
from farthing.world.urls import check_url

# An answer about credit is waited for by a buyer; an upload of ten thousand lines is read and booked in some seconds.
ASK_TIMEOUT_SECONDS: Final = 5.0
UPLOAD_TIMEOUT_SECONDS: Final = 60.0
# An upload's answer names each refused line.
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_OK: Final = range(200, 300)
_NOT_FOUND: Final = 404
_FORBIDDEN: Final = (401, 403)
# RFC 9110, 10.2.3, of which only seconds are read.
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)

T = TypeVar("T")


class ClearingAway(FarthingError):
    """The clearing house gave no clear answer: it is away, busy, or in trouble.

    `retry_after_seconds` is what it asked for, 0 where it named nothing.
    """

    def __init__(self, message: str, *, retry_after_seconds: int = 0) -> None:
        """Hold when to ask again."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ClearingRefused(FarthingError):
    """The clearing house said no. `reason` is its code: `unknown_payer`, `over_limit`, `fenced` and others."""

    def __init__(self, message: str, *, reason: str, status: int) -> None:
        """Hold the code and the status."""
        super().__init__(message)
        self.reason = reason
        self.status = status


class _Problem(msgspec.Struct):
    detail: str = ""
    reason: str = ""


class ClearingClient:
    """Asks one clearing house for one edge."""

    def __init__(self, url: str, token: str, *, http: HttpClient | None = None) -> None:
        """Ask the clearing house at `url` with the edge's bearer token. Raises `ConfigError`."""
        self.url = check_url(url, "the clearing house").rstrip("/")
        if not token:
            message = "The clearing house is asked with the edge's token; there is none."
            raise ConfigError(message)
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"}
        self._http = http or HttpClient()

    def __repr__(self) -> str:
        """Name the clearing house; the token stays unseen."""
        return f"ClearingClient({self.url!r})"

    async def start(self, edge: str) -> EdgeStarted:
        """Begin a new life of the edge."""
        return await self._ask(f"/edges/{edge}/start", b"", EdgeStarted)

    async def has_account(self, payer: str) -> bool:
        """Tell whether a payer has an account, by the origin of its directory."""
        try:
            answer = await self._http.request(
                "GET",
                f"{self.url}/standing?payer={quote(payer, safe='')}",
                headers=self._headers,
                timeout_seconds=ASK_TIMEOUT_SECONDS,
                max_bytes=ANSWER_MAX_BYTES,
            )
        except HttpTrouble as error:
            raise ClearingAway(f"The clearing house can't be asked: {error}") from None
        if answer.status == _NOT_FOUND:
            return False
        return bool(self._read(answer, Standing).payer)

    async def lease(self, request: LeaseRequest) -> Lease:
        """Ask for credit. Raises `ClearingRefused` with the reason, and `ClearingAway`."""
        return await self._ask("/leases", encode_json(request), Lease)

    async def close_lease(self, close: LeaseClose) -> LeaseClosed:
        """Give a lease back."""
        return await self._ask("/leases/close", encode_json(close), LeaseClosed)

    async def upload(self, body: bytes) -> tuple[UploadAnswer, bytes]:
        """Upload; gives the answer, read and as it came."""
        answer = await self._send("/uploads", body, "application/x-ndjson", UPLOAD_TIMEOUT_SECONDS, gzip=True)
        return self._read(answer, UploadAnswer), answer.body

    async def greet(self) -> None:
        """See that the clearing house answers. Raises `ClearingAway`."""
        try:
            await self._http.request(
                "GET", f"{self.url}/healthz", timeout_seconds=ASK_TIMEOUT_SECONDS, max_bytes=ANSWER_MAX_BYTES
            )
        except HttpTrouble as error:
            raise ClearingAway(f"The clearing house can't be asked: {error}") from None

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._http.aclose()

    async def _ask(self, path: str, body: bytes, kind: type[T]) -> T:
        return self._read(await self._send(path, body, "application/json", ASK_TIMEOUT_SECONDS), kind)

    async def _send(
        self, path: str, body: bytes, content_type: str, timeout_seconds: float, *, gzip: bool = False
    ) -> HttpAnswer:
        headers = {**self._headers, "Content-Type": content_type}
        if gzip:
            headers["Content-Encoding"] = "gzip"
        try:
            return await self._http.request(
                "POST",
                self.url + path,
                headers=headers,
                body=body,
                timeout_seconds=timeout_seconds,
                max_bytes=ANSWER_MAX_BYTES,
            )
        except HttpTrouble as error:
            raise ClearingAway(f"The clearing house can't be asked: {error}") from None

    def _read(self, answer: HttpAnswer, kind: type[T]) -> T:
        if answer.status in _OK:
            try:
                return msgspec.json.decode(answer.body, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ClearingAway(f"The clearing house's answer can't be read: {error}.") from None
        said = _Problem()
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = msgspec.json.decode(answer.body, type=_Problem)
        detail = said.detail or f"status {answer.status}"
        if answer.status >= 500 or (answer.status in {408, 425, 429}):  # noqa: PLR2004 - HTTP's own numbers
            asked = answer.headers.get("Retry-After", "")
            seconds = int(asked) if _SECONDS.fullmatch(asked) else 0
            raise ClearingAway(f"The clearing house is busy or in trouble: {detail}", retry_after_seconds=seconds)
        reason = "token" if answer.status in _FORBIDDEN and not said.reason else said.reason
        raise ClearingRefused(f"The clearing house said no: {detail}", reason=reason, status=answer.status)
