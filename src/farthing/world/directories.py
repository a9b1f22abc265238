"""Key directories over HTTP: fetched under guard and kept, and served.

Anybody who sends a request can name a directory, so that what is fetched is held to bounds (SAFETY A2): https alone,
one well-known path, no redirects, size, time, so many at once, and no address that is not public, also after DNS. An
origin that the configuration names may be private, or plain http.

What was fetched is kept by (origin, key), as it came, for the clearing network's archive. A fetch that fails evicts
nothing; one that succeeds without a key that was there forgets that key. Who is not found is not asked for again for a
while, so that invented keys cost nobody a request each.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from farthing.buyer.policy import is_public_address, is_public_name
from farthing.errors import ConfigError, FarthingError
from farthing.flow import Effect
from farthing.protocol.clearing import KeyRecord, PublicJwk
from farthing.signatures.agent import agent_origin
from farthing.signatures.directory import (
    DIRECTORY_MAX_BYTES,
    DIRECTORY_PATH,
    DIRECTORY_TYPE,
    DirectoryKey,
    FindKey,
    bound_keys,
    read_directory,
    sign_directory,
)
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import MessageSigner, PublicKey, encode_base64url
from farthing.world.http import HttpAnswer, HttpClient, HttpTrouble

if TYPE_CHECKING:
    from starlette.applications import Starlette

# A directory that is well answers in a fraction of that, and a request waits for it.
FETCH_TIMEOUT_SECONDS: Final = 5.0
# Directories fetched at once: a crowd of new agents is rare, and a flood of invented ones must not fill the machine.
FETCHES_MAX: Final = 16
# Agents' keys that are kept: some 2 kB each with the answer that held it.
KEYS_MAX: Final = 10_000
# Origins that are remembered as just asked.
ORIGINS_MAX: Final = 10_000
# How long an origin is not asked again after an answer, whatever it was, and after none.
ASKED_SECONDS: Final = 60.0
# How long a key is used before its directory is asked again: half of what our own answers may be cached for.
FRESH_SECONDS: Final = 900.0
# An answer that we serve is signed anew after this: its signature is good for an hour.
SERVED_SECONDS: Final = 600

_STATUS_OK: Final = 200
_STATUS_NOT_FOUND: Final = 404
_STATUS_NOT_ALLOWED: Final = 405
# RFC 8615 names the place; these answer alike.
_METHODS: Final = frozenset({"GET", "HEAD"})


class DirectoryRefused(FarthingError):
    """A directory that can't be used: not public, not https, no directory, not signed. The message says which."""


class KnownKey(msgspec.Struct, frozen=True):
    """A key as its directory gave it, with the answer that held it, for the archive. `fetched` in Unix seconds."""

    origin: str
    found: DirectoryKey
    fetched: int
    answer: bytes
    signature_input: str
    signature: str

    def record(self) -> KeyRecord:
        """Write it as edges upload it."""
        key = self.found.key
        return KeyRecord(
            thumbprint=key.thumbprint,
            jwk=PublicJwk("OKP", "Ed25519", encode_base64url(key.raw)),
            directory=self.origin,
            fetched=self.fetched,
            answer=self.answer.decode("utf-8", "replace"),
            signature_input=self.signature_input,
            signature=self.signature,
        )


class Directories:
    """Finds keys by directory and thumbprint. Safe to share between threads and loops.

    Args:
        allowed: origins that may be private or plain http (`http://127.0.0.1:8402`): those of a test or a demo.
        require_signed: take only keys that signed the directory's answer, as the draft wants it.
        clock: Unix seconds, for tests.
    """

    def __init__(
        self, *, allowed: Iterable[str] = (), require_signed: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        """Know nothing yet. Raises `ConfigError` for an allowed origin that is none."""
        try:
            self._allowed = frozenset(agent_origin(each) for each in allowed)
        except SignatureInvalid as error:
            message = f"An origin that directories may be fetched from: {error}."
            raise ConfigError(message) from None
        self._require_signed = require_signed
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: OrderedDict[tuple[str, str], KnownKey] = OrderedDict()
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._guarded = HttpClient(resolver=_PublicResolver)
        self._plain = HttpClient()
        self._fetching: dict[tuple[int, str], asyncio.Task[None]] = {}

    def known(self, origin: str, key_id: str) -> PublicKey | None:
        """Give a key that is known already and may be used now, asking nobody: what an edge's hot path calls."""
        kept = self._keys.get((origin, key_id))
        return kept.found.key if kept is not None and kept.found.usable(int(self._clock())) else None

    def archived(self, origin: str, key_id: str) -> KnownKey | None:
        """Give a key with the answer that held it."""
        return self._keys.get((origin, key_id))

    def is_fresh(self, origin: str, key_id: str) -> bool:
        """Tell whether the key was seen in its directory lately."""
        kept = self._keys.get((origin, key_id))
        return kept is not None and self._clock() - kept.fetched < FRESH_SECONDS

    async def find(self, origin: str, key_id: str) -> PublicKey | None:
        """Give a key, asking its directory where it is not known, or not seen lately.

        A directory that can't be reached, or is not one, leaves what is known as it is. Never raises for it.
        """
        if not self.is_fresh(origin, key_id) and self._may_ask(origin):
            key = (id(asyncio.get_running_loop()), origin)
            task = self._fetching.get(key)
            if task is None:
                task = self._fetching[key] = asyncio.create_task(self._refresh(origin))
                task.add_done_callback(lambda _task: self._fetching.pop(key, None))
            await asyncio.shield(task)
        elif (task := self._fetching.get((id(asyncio.get_running_loop()), origin))) is not None:
            await asyncio.shield(task)
        return self.known(origin, key_id)

    async def fetch(self, origin: str) -> tuple[DirectoryKey, ...]:
        """Fetch a directory now and keep its keys. Raises `DirectoryRefused`; then nothing is evicted."""
        client = self._checked(origin)
        try:
            answer = await client.request(
                "GET",
                origin + DIRECTORY_PATH,
                headers={"Accept": DIRECTORY_TYPE},
                timeout_seconds=FETCH_TIMEOUT_SECONDS,
                max_bytes=DIRECTORY_MAX_BYTES,
            )
        except (HttpTrouble, ConfigError) as error:
            message = f"The key directory of {origin} was not fetched: {error}"
            raise DirectoryRefused(message) from None
        keys = self._read(origin, answer)
        self._keep(origin, keys, answer)
        return keys

    def handlers(self) -> dict[type[Effect[Any]], Any]:
        """The handler of `FindKey`, for a `Performer`."""

        def find(effect: FindKey) -> Coroutine[Any, Any, PublicKey | None]:
            return self.find(effect.origin, effect.key_id)

        return {FindKey: find}

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._guarded.aclose()
        await self._plain.aclose()

    def _may_ask(self, origin: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._asked.get(origin)
            if (last is not None and now - last < ASKED_SECONDS) or len(self._fetching) >= FETCHES_MAX:
                return False
            self._asked[origin] = now
            self._asked.move_to_end(origin)
            while len(self._asked) > ORIGINS_MAX:
                self._asked.popitem(last=False)
            return True

    async def _refresh(self, origin: str) -> None:
        try:
            await self.fetch(origin)
        except DirectoryRefused:
            return  # what is known stays; whoever has no key is told so

    def _checked(self, origin: str) -> HttpClient:
        try:
            same = agent_origin(origin) == origin
        except SignatureInvalid:
            same = False
        if not same:
            message = f"{origin[:80]!a} is no origin of a key directory."
            raise DirectoryRefused(message)
        if origin in self._allowed:
            return self._plain
        parts = urlsplit(origin)
        if parts.scheme != "https" or not is_public_name(parts.hostname or ""):
            message = f"{origin} is not https at a public host, and the configuration does not allow it by name."
            raise DirectoryRefused(message)
        return self._guarded

    def _read(self, origin: str, answer: HttpAnswer) -> tuple[DirectoryKey, ...]:
        if answer.status != _STATUS_OK or answer.media_type != DIRECTORY_TYPE:
            message = (
                f"{origin} answered {answer.status} {answer.media_type[:80]!a}; a key directory is {DIRECTORY_TYPE}."
            )
            raise DirectoryRefused(message)
        try:
            keys = read_directory(answer.body)
            if self._require_signed:
                lines = [
                    (name, value) for name, value in answer.headers.items() if name.lower().startswith("signature")
                ]
                authority = urlsplit(origin).netloc
                keys = bound_keys(keys, lines, authority=authority, now_seconds=int(self._clock()))
        except SignatureInvalid as error:
            message = f"The key directory of {origin}: {error}."
            raise DirectoryRefused(message) from None
        return keys

    def _keep(self, origin: str, keys: Sequence[DirectoryKey], answer: HttpAnswer) -> None:
        fetched = int(self._clock())
        headers = answer.headers
        signature_input = ", ".join(headers.getall("Signature-Input", ()))
        signature = ", ".join(headers.getall("Signature", ()))
        with self._lock:
            listed = {each.key.thumbprint for each in keys}
            for at in [at for at in self._keys if at[0] == origin and at[1] not in listed]:
                del self._keys[at]
            for each in keys:
                at = (origin, each.key.thumbprint)
                self._keys[at] = KnownKey(origin, each, fetched, answer.body, signature_input, signature)
                self._keys.move_to_end(at)
            while len(self._keys) > KEYS_MAX:
                self._keys.popitem(last=False)


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone. The connection goes to the address that was judged."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve; an `OSError` where any address is not public, since one of several may be asked for at will."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for found_family, _, proto, _, address in found:
            number = str(address[0])
            if not is_public_address(ipaddress.ip_address(number.partition("%")[0])):
                message = "the name resolves to an address that is not public"
                raise OSError(None, message)
            results.append(
                ResolveResult(
                    hostname=host, host=number, port=port, family=found_family, proto=proto, flags=socket.AI_NUMERICHOST
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held open."""


class DirectoryServer:
    """Serves a key directory: signed by each of its keys for one authority, signed anew every ten minutes."""

    def __init__(
        self, authority: str, signers: Sequence[MessageSigner], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Serve the keys of `signers` at `authority` (host, and port where it is not the scheme's own)."""
        if not signers:
            message = "A key directory needs a key."
            raise ConfigError(message)
        self._authority = authority.lower()
        self._signers = tuple(signers)
        self._clock = clock
        self._made: tuple[int, tuple[tuple[str, str], ...], bytes] | None = None

    def answer(self, method: str, path: str) -> tuple[int, tuple[tuple[str, str], ...], bytes] | None:
        """Answer a request for the directory: status, header lines, body. None where it is for another path."""
        if path != DIRECTORY_PATH:
            return None
        if method not in _METHODS:
            return _STATUS_NOT_ALLOWED, (("Allow", "GET, HEAD"),), b""
        now_seconds = int(self._clock())
        made = self._made
        if made is None or not 0 <= now_seconds - made[0] < SERVED_SECONDS:
            lines, body = sign_directory(self._authority, self._signers, now_seconds=now_seconds)
            made = self._made = (now_seconds, lines, body)
        return _STATUS_OK, made[1], b"" if method == "HEAD" else made[2]


def directory_app(server: DirectoryServer) -> Starlette:
    """Make a tiny application of a directory (needs Starlette)."""
    from starlette.applications import Starlette  # noqa: PLC0415 - for whoever serves one
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def serve(request: Request) -> Response:
        status, lines, body = server.answer(request.method, DIRECTORY_PATH) or (_STATUS_NOT_FOUND, (), b"")
        return Response(body, status, dict(lines))

    return Starlette(routes=[Route(DIRECTORY_PATH, serve, methods=["GET", "HEAD"])])
