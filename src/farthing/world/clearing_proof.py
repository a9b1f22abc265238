"""Whether a payee's domain shows its challenge: at `/.well-known/farthing-clearing`, or in a text record of DNS.

A2: what is fetched was named by an operator, and is guarded all the same: https, no redirect, a small body, a short
time, and no private address, also after the name was looked up.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Any, Final

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.rdatatype
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

PATH: Final = "/.well-known/farthing-clearing"
RECORD: Final = "_farthing-clearing"
# A challenge is a line; a file may hold those of several houses.
BODY_MAX_BYTES: Final = 4_096
TIMEOUT_SECONDS: Final = 5.0
# Text records at one name that are looked at.
RECORDS_MAX: Final = 32
_OK: Final = 200


class _Guarded(AbstractResolver):
    """Looks names up, and knows no address that is not public: what was judged is what is connected to."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            message = f"{host} has no public address"
            raise OSError(message)
        return public

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Say whether an address is one of the open Internet's."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global and not found.is_multicast


async def shows(domain: str, challenge: str, *, private_domains: Collection[str] = ()) -> bool:
    """Say whether `domain` shows `challenge`, by file or by DNS. Trouble on the way means that it does not (yet)."""
    return await _in_file(domain, challenge, allowed=domain in private_domains) or await _in_dns(domain, challenge)


async def _in_file(domain: str, challenge: str, *, allowed: bool) -> bool:
    host = domain.rpartition(":")[0] if domain.rpartition(":")[2].isdecimal() else domain
    literal = host.strip("[]")
    if not allowed and _is_address(literal) and not is_public(literal):
        return False
    resolver: Any = None if allowed else _Guarded()
    connector = aiohttp.TCPConnector(resolver=resolver) if resolver else aiohttp.TCPConnector()
    url = f"{'http' if allowed else 'https'}://{domain}{PATH}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != _OK:
                return False
            body = await response.content.read(BODY_MAX_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False
    return challenge in body.decode("utf-8", "replace").split()


async def _in_dns(domain: str, challenge: str) -> bool:
    if ":" in domain or _is_address(domain):
        return False
    try:
        answer = await dns.asyncresolver.resolve(
            f"{RECORD}.{domain}", dns.rdatatype.TXT, lifetime=TIMEOUT_SECONDS, raise_on_no_answer=False
        )
    except (dns.exception.DNSException, OSError):
        return False
    records: list[Any] = list(answer.rrset or ())[:RECORDS_MAX]
    return any(challenge == b"".join(record.strings).decode("utf-8", "replace").strip() for record in records)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
