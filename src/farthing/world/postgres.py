"""PostgreSQL with group commits: the face and the promises of `farthing.world.sqlite.Database`, for several machines.

    database = Database("postgresql://farthing@db.example/shop", migrations=load_migrations("seller"))
    pending = database.submit(lambda connection: claim(connection, identity))   # known when it is durable
    row = database.read(lambda connection: find(connection, identity))

SQLite lets one process write at a time. Here a batch takes the store's advisory lock first, for the length of its
transaction, so that an operation may read and then write as it may there (decision 012).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg

from farthing.errors import StoreError
from farthing.world.batches import Waiting, perform
from farthing.world.connection import Joint, Operation
from farthing.world.migrations import Migration
from farthing.world.pending import Pending
from farthing.world.postgres_connection import PostgresConnection, PostgresPlace
from farthing.world.postgres_errors import ends_connection, translate, unknown_commit
from farthing.world.postgres_migrations import migrate
from farthing.world.postgres_readers import READERS_MAX, Readers
from farthing.world.writer import QUEUE_LIMIT, Writer

R = TypeVar("R")
T = TypeVar("T")

__all__ = ["Database"]

# READ COMMITTED: a statement after the lock sees what the holder before committed.
_BEGIN: Final = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT pg_advisory_xact_lock(hashtextextended('farthing:' || coalesce(current_schema(), '') || ':%s', 0))
"""

_open: weakref.WeakSet[Database] = weakref.WeakSet()
# A child's copies of its parent's connections. They are kept for ever, since to collect one would be to say goodbye to
# the server in the parent's name; their sockets are closed.
_inherited: list[object] = []


class Database:
    """One store in a database of PostgreSQL, shared by the threads and processes of any number of machines."""

    def __init__(self, url: str, *, migrations: tuple[Migration, ...], queue_limit: int = QUEUE_LIMIT) -> None:
        """Connect, and apply the migrations. Raises `StoreError`, which says what to do, and `ConfigError`."""
        self._place = PostgresPlace(url)
        self._migrations = migrations
        self._queue_limit = queue_limit
        self._begin = (_BEGIN % (migrations[0].family if migrations else "main")).encode()
        self._writing: PostgresConnection | None
        self._asking: ThreadPoolExecutor | None
        self._start_afresh()
        with self._lock:
            self._prepare()
        _open.add(self)

    def __repr__(self) -> str:
        """Name the place, without its password."""
        return f"Database({self._place.shown!r})"

    def submit(self, operation: Operation[R], *, awaited: bool = True) -> Pending[R]:
        """Have `operation` committed by the writer thread; one that nobody awaits may wait for the next batch.

        The answer is known when the batch that holds it is on the server's disk, or it is an error: what the operation
        raised, which is its own trouble alone, or `StoreError`, which says whether it may have been written. It can't
        be taken back. Raises `StoreError` at once, and nothing will be written, when the database is closed or
        `queue_limit` operations wait already.
        """
        return self._writer.submit(operation, awaited=awaited)

    def join(self, joint: Joint[T, R], item: T, *, awaited: bool = True) -> Pending[R]:
        """Have `joint` do `item`, with all others that a batch holds for it, as `farthing.world.sqlite` describes."""
        return self._writer.join(joint, item, awaited=awaited)

    def read(self, query: Operation[R]) -> R:
        """Run `query` in this thread, on a connection that can't write, and over one snapshot.

        Sees whatever was committed before. Raises `StoreError`, or what the query raised.
        """
        self._writer.check_open()
        return self._readers.read(query)

    def soon(self, reading: Callable[[], R]) -> Pending[R]:
        """Have `reading`, a `read` or `fetch`, done in another thread: for callers that no network may keep waiting."""
        pending: Pending[R] = Pending()
        with self._lock_of_asking:
            self._writer.check_open()
            if self._asking is None:
                self._asking = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="farthing-store-reader")
            self._asking.submit(_answer, pending, reading)
        return pending

    def fetch(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Give the rows of one statement, as `read` would: one statement is a snapshot by itself, at a third of it."""
        self._writer.check_open()
        return self._readers.fetch(sql, parameters)

    def close(self) -> None:
        """Commit what waits, then close. A later `submit` or `read` raises `StoreError`; closing twice is harmless."""
        with self._lock_of_asking:
            if self._writer.closed:
                return
            ended = self._writer.close()
            asking = self._asking
        if asking is not None:
            asking.shutdown(wait=True)  # each read has its time-out
        self._readers.close()
        if ended:  # else it hangs on the network, and its callers were not answered
            with self._lock:
                self._drop()

    # The writer thread

    def _commit(self, batch: list[Waiting]) -> list[tuple[Any] | BaseException]:
        """Commit `batch` together if that goes well, else each alone, so that only one fails."""
        with self._lock:
            try:
                return list(self._run_together(batch))
            except _ServerGone as gone:
                return [gone.story] * len(batch)
            except Exception as error:  # noqa: BLE001 - it is handed to the caller who waits
                if len(batch) == 1:
                    return [_told(error, self._place.shown)]
            # Whose fault it was shows when each is run alone.
            answers: list[tuple[Any] | BaseException] = []
            try:
                answers.extend(self._run_alone(waiting) for waiting in batch)
            except _ServerGone as gone:
                # What is done is done; the others need not each wait for a server that is away.
                answers += [gone.story] * (len(batch) - len(answers))
            return answers

    def _run_alone(self, waiting: Waiting) -> tuple[Any] | BaseException:
        try:
            return self._run_together([waiting])[0]
        except _ServerGone:
            raise
        except Exception as error:  # noqa: BLE001 - it is handed to the caller who waits
            return _told(error, self._place.shown)

    def _run_together(self, batch: list[Waiting]) -> list[tuple[Any]]:
        """Run and commit `batch`. A connection that turns out to be dead is opened anew once: nothing was committed."""
        fresh = self._writing is None
        while True:
            try:
                connection = self._prepare()
            except StoreError as error:
                raise _ServerGone(error) from error
            try:
                return self._run_on(connection, batch)
            except psycopg.Error as error:
                if not ends_connection(error):
                    raise
                self._drop()
                if fresh:
                    raise _ServerGone(translate(error, self._place.shown)) from error
                fresh = True

    def _run_on(self, connection: PostgresConnection, batch: list[Waiting]) -> list[tuple[Any]]:
        """Run and commit `batch` as one transaction."""
        try:
            connection.raw.execute(self._begin, prepare=False)
            answers = perform(connection, batch, lambda: connection.in_good_transaction)
            _end(connection, self._place.shown)
        finally:
            if connection.in_transaction:
                with contextlib.suppress(psycopg.Error):
                    connection.raw.execute("ROLLBACK", prepare=False)
        return answers

    # Connections

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._lock_of_asking = threading.Lock()
        self._writing = None
        self._asking = None
        self._readers = Readers(self._place)
        self._writer = Writer(self._place.shown, self._commit, queue_limit=self._queue_limit)

    def after_fork_in_child(self) -> None:
        """Start afresh: the parent's threads do not exist here, and its connections and what it queued are its own.

        Only the child's copies of the sockets are closed, without a word to the server.
        """
        inherited = [self._writing, *self._readers.all_connections()]
        for connection in inherited:
            if connection is not None:
                with contextlib.suppress(OSError, psycopg.Error):
                    os.close(connection.raw.pgconn.socket)
        _inherited.append((inherited, self._asking, self._readers, self._writer))
        self._start_afresh()

    def _prepare(self) -> PostgresConnection:
        """Open the writing connection where it is not open yet. The migrations run at each opening."""
        if self._writing is None:
            connection = self._place.connect()
            try:
                migrate(connection, self._migrations)
            except psycopg.Error as error:
                connection.close()
                raise translate(error, self._place.shown) from error
            except BaseException:
                connection.close()
                raise
            self._writing = connection
        return self._writing

    def _drop(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            with contextlib.suppress(psycopg.Error):
                writing.close()


def _answer(pending: Pending[R], reading: Callable[[], R]) -> None:
    try:
        pending.resolve(reading())
    except BaseException as error:  # noqa: BLE001 - it is handed to the caller who waits
        pending.fail(error)


class _ServerGone(Exception):
    """No operation of this batch, or of what is left of it, will be committed now; `story` is for those who wait."""

    def __init__(self, story: Exception) -> None:
        super().__init__(str(story))
        self.story = story


def _end(connection: PostgresConnection, place: str) -> None:
    try:
        connection.raw.execute("COMMIT", prepare=False)
    except psycopg.Error as error:
        if ends_connection(error):
            raise _ServerGone(unknown_commit(error, place)) from error
        raise


def _told(error: Exception, place: str) -> Exception:
    """The error as its caller gets it: the server's trouble as `StoreError`, the operation's own as it was raised."""
    return translate(error, place) if isinstance(error, psycopg.Error) else error


def _after_fork_in_child() -> None:
    for database in list(_open):
        database.after_fork_in_child()


def _close_all() -> None:
    for database in list(_open):
        database.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
