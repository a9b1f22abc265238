"""Where the chain is kept: in memory, or in one SQLite file that survives a kill at any moment.

The file holds what py-evm writes (trie nodes, code) under their hashes, and the blocks. Each block is one SQL
transaction, so that the file always ends with a whole block.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from eth.db.backends.base import BaseDB

from farthing.errors import ConfigError
from farthing.services.devnet.blocks import Receipt

if TYPE_CHECKING:
    from farthing.services.devnet.blocks import Block

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (schema_version INTEGER NOT NULL, chain_id TEXT NOT NULL, token_address TEXT NOT NULL,
                   timestamp_seconds INTEGER NOT NULL);
CREATE TABLE entry (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE block (number INTEGER PRIMARY KEY, row BLOB NOT NULL);
"""


class StoredBlock(msgspec.Struct, frozen=True):
    """A block as the file has it: RLP of the header, raw transactions with their senders, receipts."""

    header: bytes
    transactions: tuple[tuple[bytes, bytes], ...]
    receipts: tuple[Receipt, ...]
    state_root: bytes


class StoredMeta(msgspec.Struct, frozen=True):
    """What the genesis was built from, and must be built from again."""

    chain_id: int
    token_address: str
    timestamp_seconds: int


class Entries(BaseDB):
    """py-evm's database: a dictionary, written through to the file at each block where there is one.

    The dictionary holds what this process has read or written. It is not bounded: a devnet ends before it matters (a
    block with one payment adds some 5 kB).
    """

    def __init__(self, file: StateFile | None = None) -> None:
        self._known: dict[bytes, bytes] = {}
        self._file = file

    def __getitem__(self, key: bytes) -> bytes:
        try:
            return self._known[key]
        except KeyError:
            value = None if self._file is None else self._file.read_entry(key)
            if value is None:
                raise
            self._known[key] = value
            return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._known[key] = value
        if self._file is not None:
            self._file.pending[key] = value

    def _exists(self, key: bytes) -> bool:
        if key in self._known:
            return True
        return self._file is not None and self._file.read_entry(key) is not None

    def __delitem__(self, key: bytes) -> None:
        # py-evm deletes no trie node that a root still needs only if pruning is on, and it is off here.
        self._known.pop(key, None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class StateFile:
    """One SQLite file, one process. Raises `ConfigError` where the file is another's, in use, or no state file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending: dict[bytes, bytes] = {}
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)
            # The lock is held while the process lives: two nodes on one file would each build on the other's blocks.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Enough against a killed process; a power cut may cost the last blocks, never the file.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("BEGIN EXCLUSIVE")
            if not self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigError(
                f"The state file {path} can't be used: {error}. Is another devnet running on it, or is it another file?"
            ) from error

    def read_meta(self) -> StoredMeta | None:
        """Read what the chain was started with; None where the file is new."""
        try:
            row = self._connection.execute(
                "SELECT schema_version, chain_id, token_address, timestamp_seconds FROM meta"
            ).fetchone()
        except sqlite3.Error as error:
            raise ConfigError(f"The file {self.path} is no state file of the devnet: {error}.") from error
        if row is None:
            return None
        if row[0] != _SCHEMA_VERSION:
            raise ConfigError(f"The state file {self.path} is of version {row[0]}, not {_SCHEMA_VERSION}.")
        return StoredMeta(int(row[1]), row[2], row[3])

    def write_meta(self, meta: StoredMeta) -> None:
        """Record what the chain is started with."""
        self._connection.execute(
            "INSERT INTO meta VALUES (?, ?, ?, ?)",
            (_SCHEMA_VERSION, str(meta.chain_id), meta.token_address, meta.timestamp_seconds),
        )

    def read_entry(self, key: bytes) -> bytes | None:
        """Read an entry of py-evm's database."""
        row = self._connection.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def read_blocks(self) -> Iterator[StoredBlock]:
        """Read every block, from the first one on."""
        for (row,) in self._connection.execute("SELECT row FROM block ORDER BY number"):
            yield msgspec.msgpack.decode(row, type=StoredBlock)

    def write_block(self, block: Block, header_rlp: bytes) -> None:
        """Write a block (or write it again) and what was pending, in one SQL transaction."""
        row = StoredBlock(
            header_rlp,
            tuple((sent.raw, sent.sender) for sent in block.transactions),
            block.receipts,
            block.state_root,
        )
        pending, self.pending = self.pending, {}
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO entry VALUES (?, ?)", pending.items())
        # A block replaces whatever a reorganisation left at its height or above.
        self._connection.execute("DELETE FROM block WHERE number >= ?", (block.number,))
        self._connection.execute("INSERT INTO block VALUES (?, ?)", (block.number, msgspec.msgpack.encode(row)))
        self._connection.execute("COMMIT")

    def truncate(self, number: int) -> None:
        """Forget the blocks above `number`."""
        self._connection.execute("DELETE FROM block WHERE number > ?", (number,))

    def close(self) -> None:
        """Fold the log into the file and let it go."""
        self._connection.close()
