"""Connections to PostgreSQL as operations use them: `?` for parameters, and the settings that a store relies on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg.abc import Buffer
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper, NumericLoader
from psycopg.types.string import StrDumperUnknown

from farthing.world.postgres_errors import no_connection
from farthing.world.store_url import secrets, shown

# A server on another continent answers in half a second; a caller waits no longer than for a request.
CONNECT_TIMEOUT_SECONDS: Final = 5
# What another process's batch may take: a commit takes milliseconds, and one that stands still is ended before this.
LOCK_TIMEOUT_SECONDS: Final = 10
# A process that was stopped within a transaction holds the store's lock: the server ends its session, which undoes it.
IDLE_TRANSACTION_SECONDS: Final = 5
# No statement of a store takes more than milliseconds, but for migrations, which lift this.
STATEMENT_TIMEOUT_SECONDS: Final = 30
# A server that went away without a word (a pulled cable) is noticed after these, not after the system's two hours.
KEEPALIVE_IDLE_SECONDS: Final = 5
KEEPALIVE_INTERVAL_SECONDS: Final = 2
KEEPALIVE_COUNT: Final = 3
SEND_TIMEOUT_MILLISECONDS: Final = 10_000
# Statements that a connection keeps prepared: more than any store has.
PREPARED_MAX: Final = 300
# Texts of statements that are kept translated: more than all stores have, lists in them by powers of two
# (`farthing.world.marks`).
_TRANSLATED_MAX: Final = 1_024

# Strings, quoted names and comments stay as they are, but for `%`, which psycopg would take for a mark everywhere.
_PIECES: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|\?|%")


@lru_cache(maxsize=_TRANSLATED_MAX)
def translate_marks(sql: str) -> bytes:
    """Write a statement with `?` for parameters as psycopg wants it, with `%s`."""
    return _PIECES.sub(_translate_piece, sql).encode()


def _translate_piece(piece: re.Match[str]) -> str:
    return "%s" if piece[0] == "?" else piece[0].replace("%", "%%")


class _Text(StrDumperUnknown):
    """PostgreSQL knows no NUL in a text (SQLite does): a stranger's word with one goes on record all the same."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


class _Whole(NumericLoader):
    """A sum of integers is `numeric` there, and an integer in SQLite."""

    def load(self, data: Buffer) -> Any:
        number = super().load(data)
        whole = int(number)
        return whole if whole == number else number


class PostgresConnection:
    """What an operation gets. Satisfies `farthing.world.connection.Connection`."""

    __slots__ = ("raw",)

    def __init__(self, raw: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Speak through `raw`, which is in autocommit mode: transactions are begun and ended in words."""
        self.raw = raw

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run one statement; its parameters are marked with `?`."""
        return self.raw.execute(translate_marks(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run one statement with each row of parameters, in one round trip."""
        cursor = self.raw.cursor()
        cursor.executemany(translate_marks(sql), parameters)
        return cursor

    def script(self, sql: str) -> None:
        """Run several statements without parameters, as they stand."""
        self.raw.execute(sql.encode(), prepare=False)

    @property
    def in_good_transaction(self) -> bool:
        """Whether a transaction is open in which no statement has failed."""
        return self.raw.info.transaction_status == TransactionStatus.INTRANS

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that can only be rolled back."""
        return self.raw.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    def close(self) -> None:
        """Close it; trouble with that is nobody's business."""
        self.raw.close()


class PostgresPlace:
    """Where a store lies: opens connections, and says where without saying the password."""

    def __init__(self, url: str) -> None:
        """Take `postgresql://user:password@host:port/name?option=value`, as libpq does. Raises `ConfigError`."""
        self._url = url
        self.shown = shown(url)

    def __repr__(self) -> str:
        """Name the place without its password."""
        return f"PostgresPlace({self.shown!r})"

    def connect(self) -> PostgresConnection:
        """Open a connection. Raises `StoreError`, which says what to do."""
        try:
            raw = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                keepalives_idle=KEEPALIVE_IDLE_SECONDS,
                keepalives_interval=KEEPALIVE_INTERVAL_SECONDS,
                keepalives_count=KEEPALIVE_COUNT,
                tcp_user_timeout=SEND_TIMEOUT_MILLISECONDS,
                client_encoding="utf8",
                application_name="farthing",
            )
        except psycopg.Error as error:
            # Not chained: libpq quotes what it can't read, which may be the password.
            raise no_connection(error, self.shown, secrets(self._url)) from None
        try:
            _set_up(raw)
        except psycopg.Error as error:
            raw.close()
            raise no_connection(error, self.shown, secrets(self._url)) from None
        return PostgresConnection(raw)


def _set_up(raw: psycopg.Connection[tuple[Any, ...]]) -> None:
    raw.prepared_max = PREPARED_MAX
    # One width for all integers: psycopg would else prepare a statement anew for each mixture of small and large ones.
    raw.adapters.register_dumper(int, Int8Dumper)
    raw.adapters.register_dumper(str, _Text)
    raw.adapters.register_loader("numeric", _Whole)
    raw.execute(
        f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';"
        f"SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s';"
        f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s';"
        # A commit is on disk before its future resolves. Whoever set more than that (a standby's disk) keeps it.
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') IN ('off', 'local')".encode(),
        prepare=False,
    )
