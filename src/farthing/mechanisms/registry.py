"""The registry: which mechanism does which scheme on which network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from farthing.errors import ConfigError


class _Face(Protocol):
    @property
    def scheme(self) -> str: ...

    @property
    def network(self) -> str: ...


F = TypeVar("F", bound=_Face)


class Registry(Generic[F]):
    """One kind of face (buyer's, seller's or facilitator's) by scheme and network; immutable once made.

    A face for one network wins over one for a pattern (`eip155:*`).
    """

    def __init__(self, faces: Iterable[F]) -> None:
        """Register `faces`; two for one scheme and network are a `ConfigError`."""
        table: dict[tuple[str, str], F] = {}
        for face in faces:
            key = (face.scheme, face.network)
            if key in table:
                message = f"two mechanisms for scheme {face.scheme!r} on {face.network!r}; register one"
                raise ConfigError(message)
            table[key] = face
        self._table = table

    def find(self, scheme: str, network: str) -> F | None:
        """Find the face for a scheme on a network, or None."""
        exact = self._table.get((scheme, network))
        if exact is not None:
            return exact
        namespace = network.partition(":")[0]
        return self._table.get((scheme, f"{namespace}:*"))

    def all(self) -> tuple[F, ...]:
        """Give all faces, in the order of registration."""
        return tuple(self._table.values())
