"""SQLite with group commits: one writer thread a process, which commits whatever waits as one batch.

    database = Database("seller.db", migrations=load_migrations("seller"))
    future = database.submit(lambda connection: claim(connection, identity))   # resolves when it is durable
    row = database.read(lambda connection: find(connection, identity))

An *operation* is a pure function of its connection: it may be run twice, the first time in a transaction that is
rolled back. It runs statements and returns a value; it neither begins nor ends a transaction, and it remembers nothing.
Of one operation all or nothing happens, and no other is seen half done, in this process or in another.

    future = database.join(claim_together, claim)        # answers = claim_together(connection, [claim, …])

A *joint operation* does in one call whatever a batch holds for it, so that one statement can carry many rows: each
statement gives the interpreter's lock away and takes it back, which costs more than a row does. It gets the items of
a batch as a list and gives a list of their answers. Where it fails each item is run alone, as operations are.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from farthing.errors import StoreError
from farthing.world.batches import Waiting, run_together
from farthing.world.filelock import FileLock
from farthing.world.migrations import Migration, load_migrations, migrate
from farthing.world.pending import Pending
from farthing.world.sqlite_errors import ends_connection, translate
from farthing.world.writer import QUEUE_LIMIT, Writer

R = TypeVar("R")
T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection], R]
Joint: TypeAlias = Callable[[sqlite3.Connection, list[T]], list[R]]

__all__ = ["Database", "Joint", "Migration", "Operation", "Pending", "load_migrations"]

# Another process's batch takes milliseconds; one that holds the lock for this long is stopped or stuck.
LOCK_TIMEOUT_SECONDS = 10.0
# For writers that do not know our lock file, such as the sqlite3 shell.
BUSY_TIMEOUT_SECONDS = 5.0
# The write-ahead log is cut back to this size when it is reset, so that one long read does not leave it large.
JOURNAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024

# Statements that a connection keeps compiled: joint operations have one for each power of two of rows.
STATEMENTS_MAX = 512
# The log is copied into the file after so many pages (16 MB): a page that is written in every batch is copied once.
CHECKPOINT_PAGES = 4_000
# Pages in memory, in KiB: an index that is written all over is read from there.
CACHE_KIBIBYTES = 16_384
# The same of each thread that reads: a row is found by a few pages, of which the upper ones are always the same.
READER_CACHE_KIBIBYTES = 2_048

_open: weakref.WeakSet[Database] = weakref.WeakSet()
_forking: list[Database] = []


class Database:
    """One file of SQLite, shared by threads and processes.

    A fork is survived by both sides. SQLite keeps a process's locks by file in its own memory, which a child would
    inherit and believe (sqlite.org/howtocorrupt.html, 2.6): so all connections are closed before a fork, between two
    batches, and each side opens its own when it needs one.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, migrations: tuple[Migration, ...], queue_limit: int = QUEUE_LIMIT
    ) -> None:
        """Open or create the file and apply the migrations. Raises `StoreError`, which says what to do."""
        self.path = _checked(path)
        self._migrations = migrations
        self._queue_limit = queue_limit
        self._file_lock: FileLock | None
        self._writing: sqlite3.Connection | None
        self._start_afresh()
        try:
            # Signed payments are as good as money until they are used: the file is its owner's alone. SQLite gives
            # the log beside it the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._lock:
                self._prepare()
        except OSError as error:
            raise StoreError(f"The store {self.path} can't be opened: {error.strerror}.") from error
        _open.add(self)

    def submit(self, operation: Operation[R], *, awaited: bool = True) -> Pending[R]:
        """Have `operation` committed by the writer thread; one that nobody awaits may wait for the next batch.

        The answer is known when the batch that holds it is on disk, or it is an error: what the operation raised, which
        is its own trouble alone, or `StoreError`. It can't be taken back. Raises `StoreError` at once, and nothing
        will be written, when the database is closed or `queue_limit` operations wait already.
        """
        return self._writer.submit(operation, awaited=awaited)

    def join(self, joint: Joint[T, R], item: T, *, awaited: bool = True) -> Pending[R]:
        """Have `joint` do `item`, with all others that a batch holds for it; else as `submit`.

        What is asked for in one turn of an event loop is handed over at its end, in parts where it is much; what is
        wrong then is the answer. Of one batch the single operations come first, in their order.
        """
        return self._writer.join(joint, item, awaited=awaited)

    def read(self, query: Operation[R]) -> R:
        """Run `query` in this thread, on a connection of its own that can't write, and over one snapshot.

        Sees whatever was committed before. Raises `StoreError`, or what the query raised.
        """
        reader = self._reader()
        try:
            return reader.run(query)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def fetch(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Give the rows of one statement, as `read` would: one statement is a snapshot by itself, at a third of it."""
        reader = self._reader()
        try:
            return reader.fetch(sql, parameters)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _reader(self) -> _Reader:
        self._writer.check_open()
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            with self._readers_lock:
                reader = self._local.reader = _Reader(self._open_reader)
                self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Commit what waits, then close. A later `submit` or `read` raises `StoreError`; closing twice is harmless."""
        if not self._writer.close():
            return  # stuck in the kernel: nothing may be pulled from under it, and its callers were not answered
        with self._readers_lock:
            for reader in self._readers:
                reader.close()
        with self._lock:
            self._drop()
            if self._file_lock is not None:
                self._file_lock.close()
                self._file_lock = None

    # The writer thread

    def _commit(self, batch: list[Waiting]) -> list[tuple[Any] | BaseException]:
        """Commit `batch`; after trouble with the file the next one begins on a fresh connection."""
        with self._lock:
            try:
                return self._run(batch)
            except sqlite3.Error as error:
                self._drop()
                raise translate(error, self.path) from error
            except BaseException:
                self._drop()
                raise

    def _run(self, batch: list[Waiting]) -> list[tuple[Any] | BaseException]:
        """Run `batch` under the file's lock: together if that goes well, else each alone, so that only one fails."""
        lock, connection = self._prepare()
        self._acquire(lock)
        try:
            try:
                return list(run_together(connection, batch))
            except Exception as error:
                if isinstance(error, sqlite3.Error) and ends_connection(error):
                    raise
                if len(batch) == 1:
                    return [_told(error, self.path)]
            # Whose fault it was shows when each is run alone.
            return [self._run_alone(connection, waiting) for waiting in batch]
        finally:
            lock.release()

    def _run_alone(self, connection: sqlite3.Connection, waiting: Waiting) -> tuple[Any] | BaseException:
        try:
            return run_together(connection, [waiting])[0]
        except Exception as error:  # noqa: BLE001 - it is handed to the caller who waits
            return _told(error, self.path)

    # Connections

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._file_lock = None
        self._writing = None
        self._writer = Writer(str(self.path), self._commit, queue_limit=self._queue_limit)
        self._local = threading.local()
        self._readers_lock = threading.Lock()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()

    def before_fork(self) -> None:
        """Close the connections, and keep all threads from opening others. Called by the fork hook."""
        self._lock.acquire()
        self._readers_lock.acquire()
        self._drop()
        for reader in self._readers:
            reader.lock.acquire()
            reader.close()

    def after_fork_in_parent(self) -> None:
        """Let the threads go on. Called by the fork hook."""
        for reader in self._readers:
            reader.lock.release()
        self._readers_lock.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: the parent's threads do not exist here, and what they queued is theirs to do."""
        if self._file_lock is not None:
            self._file_lock.close_after_fork()
        self._start_afresh()

    def _prepare(self) -> tuple[FileLock, sqlite3.Connection]:
        """Open the lock and the writing connection where they are not open yet. The migrations run at each opening."""
        if self._file_lock is None:
            self._file_lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        if self._writing is None:
            self._acquire(self._file_lock)
            try:
                connection = self._connect(query_only=False)
                try:
                    migrate(connection, self._migrations)
                except BaseException:
                    connection.close()
                    raise
                self._writing = connection
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            finally:
                self._file_lock.release()
        return self._file_lock, self._writing

    def _acquire(self, lock: FileLock) -> None:
        if not lock.acquire(LOCK_TIMEOUT_SECONDS):
            raise StoreError(
                f"Another process has held {self.path}.lock for {LOCK_TIMEOUT_SECONDS:g} seconds; nothing was written. "
                "See which (`lsof`), and end it if it hangs."
            )

    def _connect(self, *, query_only: bool) -> sqlite3.Connection:
        # The serialised mode of the library guards a connection that is closed by another thread than its own.
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_MAX,
        )
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            if query_only:
                connection.execute(f"PRAGMA cache_size=-{READER_CACHE_KIBIBYTES}")
                connection.execute("PRAGMA query_only=ON")
            else:
                self._make_durable(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        self._writer.check_open()
        return self._connect(query_only=True)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise StoreError(f"The store {self.path} is on a file system without shared memory: use a local disk.")
        # FULL: a commit is on disk, not only out of the process, before its caller is told.
        connection.execute("PRAGMA synchronous=FULL")
        # What a statement of many rows would undo where it fails is kept in memory: it were a file for each of them.
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIBIBYTES}")
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}")

    def _drop(self) -> None:
        """Close the writing connection: after trouble with the file the next batch opens a fresh one."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with contextlib.suppress(sqlite3.Error):
                writing.close()


class _Reader:
    """A reading connection of one thread; the lock keeps `close` from another thread out of a running query."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self.lock = threading.RLock()

    def run(self, query: Operation[R]) -> R:
        with self.lock:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connect()
            if connection.in_transaction:
                return query(connection)  # a query within a query
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def fetch(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self.lock:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connect()
            # All rows at once: a statement that is not at its end would hold its snapshot.
            return connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _told(error: Exception, path: Path) -> Exception:
    """The error as its caller gets it: the file's trouble as `StoreError`, the operation's own as it was raised."""
    return translate(error, path) if isinstance(error, sqlite3.Error) else error


def _checked(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if text in ("", ":memory:") or text.startswith("file:"):
        raise StoreError(f"A store is a file that several connections share: {text!r} is none. Give a path on disk.")
    checked = Path(text).absolute()
    if not checked.parent.is_dir():
        raise StoreError(f"The folder {checked.parent} of the store does not exist: make it, or give another path.")
    return checked


def _before_fork() -> None:
    _forking[:] = _open
    for database in _forking:
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in _forking:
        database.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for database in _forking:
        database.after_fork_in_child()
    _forking.clear()


def _close_all() -> None:
    for database in list(_open):
        database.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
