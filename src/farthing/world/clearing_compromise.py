"""Declarations of compromised keys in the clearing house's store: rows that are only ever inserted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from farthing.clearing.compromise import CompromisedKey, DeclareCompromised, FindCompromised
from farthing.clearing.rules import payer_key
from farthing.protocol.clearing import COMPROMISED_MAX
from farthing.world.connection import Connection
from farthing.world.marks import among

# A row that is written holds its lock: of two processes one counts what the other declared.
_LOCK_PAYER: Final = "UPDATE clearing_payers SET owed = owed WHERE payer = ?"
_DECLARE: Final = """
INSERT INTO clearing_compromised (payer, thumbprint, since, declared_at, declared_by) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_FIND: Final = """
SELECT p.directory, c.thumbprint, c.since, c.declared_at, c.declared_by
FROM clearing_compromised c JOIN clearing_payers p ON p.payer = c.payer WHERE c.payer = ? ORDER BY c.thumbprint
"""
_DECLARED: Final = "SELECT payer, thumbprint, declared_at FROM clearing_compromised WHERE payer IN"


def declare_compromised(at: Connection, effect: DeclareCompromised) -> CompromisedKey | str:
    """Perform `DeclareCompromised`."""
    payer = payer_key(effect.directory)
    if at.execute(_LOCK_PAYER, (payer,)).rowcount != 1:
        return "unknown_payer"
    known = find_compromised(at, FindCompromised(effect.directory))
    if effect.thumbprint not in {each.thumbprint for each in known}:
        if len(known) >= COMPROMISED_MAX:
            return "too_many_keys"
        since = min(effect.since, effect.now_seconds)
        at.execute(_DECLARE, (payer, effect.thumbprint, since, effect.now_seconds, effect.declared_by))
        known = find_compromised(at, FindCompromised(effect.directory))
    return next(each for each in known if each.thumbprint == effect.thumbprint)


def find_compromised(at: Connection, effect: FindCompromised) -> tuple[CompromisedKey, ...]:
    """Perform `FindCompromised`."""
    rows = at.execute(_FIND, (payer_key(effect.directory),)).fetchall()
    return tuple(CompromisedKey(*row) for row in rows)


def compromised_of(at: Connection, directory: str) -> tuple[str, ...]:
    """Give the thumbprints that edges are told."""
    return tuple(each.thumbprint for each in find_compromised(at, FindCompromised(directory)))


def declared_at(at: Connection, payers: Iterable[int]) -> dict[tuple[int, str], int]:
    """Say when keys of some payers were declared, by payer and thumbprint."""
    found: dict[tuple[int, str], int] = {}
    for listed, chunk in among(sorted(payers)):
        rows = at.execute(f"{_DECLARED} {listed}", chunk).fetchall()
        found.update({(payer, thumbprint): at_seconds for payer, thumbprint, at_seconds in rows})
    return found
