"""What SQLite's result codes mean to an operator: `StoreError`s that say what to do (sqlite.org/rescode.html)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from farthing.errors import MaybeWritten, StoreError

# By primary result code. What is not here (an error in the SQL, a broken constraint) is the program's, not the file's.
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk or the file's page limit is full. Free some space; nothing of this was written",
    sqlite3.SQLITE_BUSY: "another program that does not use the lock file holds it (a shell, a backup). End it",
    sqlite3.SQLITE_LOCKED: "another connection of this process holds it",
    sqlite3.SQLITE_READONLY: "it may not be written. Check the owner and mode of the file and its folder",
    sqlite3.SQLITE_IOERR: "the disk failed. Look at the system's log; whether this was written is unknown",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened. Check the owner and mode of the file and its folder",
    sqlite3.SQLITE_CORRUPT: "the file is damaged. Stop, keep a copy, and run `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "the file is no database of SQLite. Give another path",
    sqlite3.SQLITE_PROTOCOL: "its locks were busy for too long. Use a local disk, not a network file system",
    sqlite3.SQLITE_NOMEM: "memory ran out",
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite takes",
}
# After these the connection itself is in doubt, and running the rest of the batch on it would prove nothing.
_ENDS_CONNECTION = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code: the low byte. 0 where the error was raised by Python's module itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 0 if code is None else code & 0xFF


def ends_connection(error: sqlite3.Error) -> bool:
    """Whether the connection should be opened anew."""
    return primary_code(error) in _ENDS_CONNECTION


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """The file's trouble as `StoreError`; an error of the program as it is."""
    code = primary_code(error)
    advice = _ADVICE.get(code)
    told = MaybeWritten if code == sqlite3.SQLITE_IOERR else StoreError
    return error if advice is None else told(f"The store {path}: {advice}. (SQLite: {error})")
