"""Signatures of uploaded commitments: judged by the keys that were archived when they were first used.

Ed25519 takes some 80 µs a line, so that an upload's lines are sampled when it comes and all checked before its window's
statements are made (decision on ingest). Nothing here asks an agent's directory: what counts is the archive.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from farthing.clearing.intake import BAD_SIGNATURE, decode_line
from farthing.clearing.store import WrongLine
from farthing.protocol.clearing import Commitment, KeyRecord, RefusedLine
from farthing.signatures.keys import PublicKey, decode_base64url, thumbprint

# One line in so many is checked when an upload comes; one that is wrong has all of them checked.
SAMPLE_EVERY: Final = 64
KEY_SIZE_BYTES: Final = 32

Keys = Mapping[tuple[str, str], KeyRecord]


def key_of_record(record: KeyRecord) -> PublicKey | None:
    """Read a record's key; None where it is none, or not the one that its thumbprint names."""
    raw = decode_base64url(record.jwk.x)
    if raw is None or len(raw) != KEY_SIZE_BYTES or thumbprint(raw) != record.thumbprint:
        return None
    return PublicKey(raw)


class Signatures:
    """Judges many lines; each key is read once."""

    def __init__(self, keys: Keys) -> None:
        """Take the archived keys by (directory, thumbprint)."""
        self._keys = {place: key_of_record(record) for place, record in keys.items()}

    def hold(self, line: Commitment) -> bool:
        """Say whether the payer signed for this line."""
        key = self._keys.get((line.payer, line.key))
        return key is not None and key.verifies(binascii.a2b_base64(line.signature), line.base.encode())


def commitments_of(lines: Sequence[bytes], positions: Iterable[int] | None = None) -> list[Commitment]:
    """Read the commitments among an upload's lines, all or those at some positions."""
    chosen = range(1, len(lines)) if positions is None else positions
    return [line for number in chosen if isinstance(line := decode_line(lines[number], number), Commitment)]


def keys_wanted(lines: Iterable[Commitment]) -> frozenset[tuple[str, str]]:
    """Name the keys that lines were signed by."""
    return frozenset((line.payer, line.key) for line in lines)


def wrong_lines(lines: Iterable[Commitment], keys: Keys) -> tuple[WrongLine, ...]:
    """Give the lines that their payers did not sign."""
    signatures = Signatures(keys)
    return tuple(WrongLine(line.payer, bytes.fromhex(line.id[7:])) for line in lines if not signatures.hold(line))


def refuse_unsigned(lines: Iterable[Commitment], keys: Keys) -> tuple[RefusedLine, ...]:
    """Refuse the lines that their payers did not sign."""
    signatures = Signatures(keys)
    what = "the signature is not by the key that is named"
    return tuple(RefusedLine(line.id, BAD_SIGNATURE, what) for line in lines if not signatures.hold(line))


def sample(positions: list[int], random: bytes) -> list[int]:
    """Choose one of every 64 positions, by four random bytes each."""
    chosen: list[int] = []
    for number, begin in enumerate(range(0, len(positions), SAMPLE_EVERY)):
        run = positions[begin : begin + SAMPLE_EVERY]
        chosen.append(run[int.from_bytes(random[4 * number : 4 * number + 4], "big") % len(run)])
    return chosen


def sample_bytes(count: int) -> int:
    """How many random bytes a sample of `count` lines takes."""
    return 4 * -(-count // SAMPLE_EVERY)
