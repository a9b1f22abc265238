"""The rows of lanes: all SQL of `farthing.world.lanes`.

Time is the engine's own clock, since the machines of sellers on one database of PostgreSQL each have another.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from farthing.world.connection import Connection

TAKE_LANE: Final = (
    "UPDATE seller_fact SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE fact = 'lanes'"  # a lane is one's own
)
LANES: Final = "SELECT value FROM seller_fact WHERE fact = 'lanes'"
# Numbers of one lane, as bits: a process that took one a microsecond would have them for twelve days.
_LANE_BITS: Final = 40
# Every lease of a process is over by then, and the row says nothing any more.
_FORGET_SECONDS: Final = 86_400

_NOW_SQLITE: Final = "CAST(strftime('%s', 'now') AS BIGINT)"
# Not the transaction's: that began before it waited for the store's lock.
_NOW_POSTGRES: Final = "CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)"


class LaneSql(NamedTuple):
    """The statements, for one engine."""

    beat: str
    end: str
    forget: str
    is_over: str
    # A condition on a row of `seller_state AS s`, with the own lane as its value.
    is_owned_by_the_dead: str


def lane_sql(*, is_postgres: bool) -> LaneSql:
    """Write the statements for an engine, by its clock."""
    now = _NOW_POSTGRES if is_postgres else _NOW_SQLITE
    owner = f"(CASE WHEN s.mover = 0 THEN s.claim ELSE s.mover END) >> {_LANE_BITS}"
    return LaneSql(
        beat=f"INSERT INTO seller_lane (lane, alive_until) VALUES (?, {now} + ?) "  # noqa: S608 - constants
        "ON CONFLICT (lane) DO UPDATE SET alive_until = excluded.alive_until",
        end=f"UPDATE seller_lane SET alive_until = {now} - 1 WHERE lane = ?",  # noqa: S608 - constants
        forget=f"DELETE FROM seller_lane WHERE alive_until < {now} - {_FORGET_SECONDS}",  # noqa: S608 - constants
        is_over=f"SELECT 1 FROM seller_lane WHERE lane = ? AND alive_until < {now}",  # noqa: S608 - constants
        is_owned_by_the_dead=f"EXISTS (SELECT 1 FROM seller_lane AS l WHERE l.lane = {owner} "  # noqa: S608 - constants
        f"AND l.alive_until < {now} AND l.lane <> ?)",
    )


def first_number(lane: int) -> int:
    """Give the first number of a lane."""
    return lane << _LANE_BITS


def lane_of(number: int) -> int:
    """Give the lane that a number was drawn in."""
    return number >> _LANE_BITS


def take_lane(connection: Connection, sql: LaneSql, alive_seconds: int) -> int:
    """Take a lane that no other process has, and let it live from now on."""
    connection.execute(TAKE_LANE)
    lane = int(connection.execute(LANES).fetchone()[0])
    connection.execute(sql.forget)
    beat(connection, sql, lane, alive_seconds)
    return lane


def beat(connection: Connection, sql: LaneSql, lane: int, alive_seconds: int) -> None:
    """Let a lane live for so long from now."""
    connection.execute(sql.beat, (lane, alive_seconds))


def end_lane(connection: Connection, sql: LaneSql, lane: int) -> None:
    """Let a lane be over."""
    connection.execute(sql.end, (lane,))
