"""What PostgreSQL's errors mean to an operator: `StoreError`s that say what to do (Appendix A of its manual)."""

from __future__ import annotations

from typing import Final

import psycopg

from farthing.errors import MaybeWritten, StoreError

# By SQLSTATE, or by its class (the first two characters). What is in neither is the program's own: its SQL, a broken
# constraint.
_ADVICE: Final = {
    "08": "the connection broke. Nothing of this was written; see whether the server runs and the network holds",
    "57P01": "the server was stopped. Nothing of this was written; it is tried again at the next call",
    "57P02": "the server broke down. Nothing of this was written; look at its log",
    "57P03": "the server does not take connections yet. Nothing was written; try again in a moment",
    "57P05": "the server ended the idle connection. Nothing of this was written",
    "57014": "the statement took longer than the limit. Nothing of this was written; look at `pg_stat_activity`",
    "55P03": "another process has held the store's lock for too long; nothing was written. See which in "
    "`pg_stat_activity`, and end it if it hangs",
    "25P03": "this process stood still within a transaction for so long that the server gave its locks to others. "
    "Nothing of this was written",
    "25006": "the server is a read-only standby. Name the primary, or several hosts with "
    "`target_session_attrs=read-write`",
    "53100": "the server's disk is full. Free some space; nothing of this was written",
    "53200": "the server's memory ran out; nothing of this was written",
    "53300": "the server has no connection left. Raise its `max_connections`, or run fewer processes",
    "53": "the server has run out of something. Nothing of this was written; look at its log",
    "58": "the server's disk or system failed. Look at its log; nothing of this was written",
    "XX": "the server is damaged or has a bug. Stop, and look at its log; nothing of this was written",
    "40": "others' transactions stood in the way too often. Nothing of this was written; try again",
    "42501": "this user may not do that. Grant it the tables, or have their owner run `farthing store migrate`",
    "3D000": "there is no such database. Make it with `createdb`, or name another",
    "3F000": "no schema of the search path exists. Make it, or name another",
    "28P01": "the server refused the password",
    "28": "the server refused this user. See its pg_hba.conf",
}
# After these the connection itself is gone or in doubt.
_ENDS_CONNECTION: Final = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25006", "53200", "58", "XX")
# Said by a server or by libpq before there is a session, without a SQLSTATE; in English unless the server is set to
# another language, for which the last advice must do.
_WHILE_CONNECTING: Final = (
    ("password authentication failed", "the server refused the password. Check it, or put it in ~/.pgpass"),
    ("no password supplied", "the server wants a password. Put it in the URL, PGPASSWORD or ~/.pgpass"),
    ("no pg_hba.conf entry", "the server lets nobody in from here as this user. See its pg_hba.conf"),
    ("role ", "the server does not know this user. Make it with `createuser`, or name another"),
    ("database ", "there is no such database. Make it with `createdb`, or name another"),
    ("too many clients", "the server has no connection left. Raise its `max_connections`, or run fewer processes"),
    ("connection slots", "the server has no connection left. Raise its `max_connections`, or run fewer processes"),
    ("starting up", "the server is starting. Try again in a moment"),
    ("shutting down", "the server is being stopped"),
)
_AWAY: Final = "the server can't be reached. See whether it runs, and whether host and port are right"


def code(error: psycopg.Error) -> str:
    """The SQLSTATE; empty where the connection broke before the server could say one."""
    return error.sqlstate or ""


def ends_connection(error: psycopg.Error) -> bool:
    """Whether the connection should be opened anew, and what ran in its transaction is surely undone or in doubt."""
    known = code(error)
    if not known:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return known.startswith(_ENDS_CONNECTION)


def translate(error: psycopg.Error, place: str) -> Exception:
    """The server's trouble as `StoreError`; an error of the program as it is."""
    known = code(error)
    if not known and ends_connection(error):
        advice: str | None = _ADVICE["08"]
    else:
        advice = _ADVICE.get(known) or _ADVICE.get(known[:2])
    return error if advice is None else StoreError(f"The store {place}: {advice}. (PostgreSQL: {_words(error)})")


def unknown_commit(error: psycopg.Error, place: str) -> MaybeWritten:
    """The connection broke after COMMIT was sent: it may have happened."""
    return MaybeWritten(
        f"The store {place}: the connection broke during a commit; whether this was written is unknown. "
        f"Ask for it before doing it again. (PostgreSQL: {_words(error)})"
    )


def no_connection(error: psycopg.Error, place: str, secrets: tuple[str, ...]) -> StoreError:
    """Why no connection came about. `secrets` are kept out of the words, whoever wrote them."""
    words = _words(error)
    for secret in secrets:
        words = words.replace(secret, "…")
    known = code(error)
    advice = _ADVICE.get(known) or _ADVICE.get(known[:2])
    if advice is None:
        advice = next((advice for said, advice in _WHILE_CONNECTING if said in words), _AWAY)
    return StoreError(f"The store {place} can't be opened: {advice}. (PostgreSQL: {words})")


def _words(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
