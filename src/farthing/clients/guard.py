"""Keeps a door from addresses that are not public, where the policy asks for it (SAFETY B6).

A name is looked up by whoever connects, so that the address is judged where the connection is made: after DNS, for each
redirect's host anew, and before a byte is sent. Checking a name beforehand would leave a second lookup to lie.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from farthing.buyer.choice import shown
from farthing.buyer.policy import Policy, fold_host, is_public_address, is_public_name
from farthing.errors import ConfigError, PolicyRefused

# The pools of httpcore that connect to the host itself; those of proxies do not.
_DIRECT_POOLS: Final = frozenset({"ConnectionPool", "AsyncConnectionPool"})


def is_guarded(policy: Policy) -> bool:
    """Tell whether the policy keeps anything from private addresses."""
    return policy.private_hosts is not None


def check_name(policy: Policy, host: str) -> None:
    """Refuse a host by its name or number, before anything is looked up. Raises `PolicyRefused`."""
    host = fold_host(host)
    if not policy.may_be_private(host) and not is_public_name(host):
        raise _refused(host, "")


def check_address(policy: Policy, host: str, peer: object) -> None:
    """Refuse a connection by the address at its other end. Raises `PolicyRefused`."""
    if policy.may_be_private(fold_host(host)):
        return
    try:
        address = ipaddress.ip_address(str(peer).partition("%")[0])
    except ValueError:
        raise _refused(host, "an address that can't be read") from None
    if not is_public_address(address):
        raise _refused(host, f"{address}")


def _refused(host: str, address: str) -> PolicyRefused:
    where = f" (it is at {address})" if address else ""
    return PolicyRefused(
        f"{shown(host)} is no host of the public Internet{where}, and the policy allows no other.",
        reason="private_host",
        advice="Nothing was sent. Name it in Policy(private_hosts=[…]) if you know it.",
    )


def guard_transport(transport: Any, policy: Policy) -> Any:
    """Have a transport of httpx or httpx2 judge each connection that it makes. Raises `ConfigError` where it can't."""
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if pool is None or backend is None or type(pool).__name__ not in _DIRECT_POOLS:
        message = (
            "Policy(private_hosts=…) judges the connections of the library's own HTTPTransport or AsyncHTTPTransport, "
            f"without a proxy; {type(transport).__name__} makes its connections where they can't be seen."
        )
        raise ConfigError(message)
    if not isinstance(backend, (_Guarded, _GuardedAsync)):
        guard = _GuardedAsync if type(pool).__name__.startswith("Async") else _Guarded
        pool._network_backend = guard(backend, policy)  # noqa: SLF001 - httpx gives no other place
    return transport


class _Guarded:
    """A network backend of httpcore that judges what it connected to."""

    def __init__(self, inner: Any, policy: Policy) -> None:
        self._inner, self._policy = inner, policy

    def connect_tcp(self, host: str, *arguments: Any, **options: Any) -> Any:
        stream = self._inner.connect_tcp(host, *arguments, **options)
        try:
            check_address(self._policy, host, _peer(stream))
        except PolicyRefused:
            stream.close()
            raise
        return stream

    def connect_unix_socket(self, path: str, *_arguments: Any, **_options: Any) -> Any:
        raise _refused(path, "this machine")

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _GuardedAsync:
    """Likewise, awaiting."""

    def __init__(self, inner: Any, policy: Policy) -> None:
        self._inner, self._policy = inner, policy

    async def connect_tcp(self, host: str, *arguments: Any, **options: Any) -> Any:
        stream = await self._inner.connect_tcp(host, *arguments, **options)
        try:
            check_address(self._policy, host, _peer(stream))
        except PolicyRefused:
            await stream.aclose()
            raise
        return stream

    async def connect_unix_socket(self, path: str, *_arguments: Any, **_options: Any) -> Any:
        raise _refused(path, "this machine")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def _peer(stream: Any) -> object:
    found = stream.get_extra_info("server_addr")
    return found[0] if found else ""
