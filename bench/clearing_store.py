"""A clearing house's store on a PostgreSQL of its own, which forgets nothing when the power goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.clearing_lines import NOW, open_accounts
from farthing.clearing.flows import Desk
from farthing.flow import Now, RandomBytes
from farthing.signatures.keys import SignData
from farthing.world.clearing_store import ClearingStore
from farthing.world.performers import Performer

# What the tests' server leaves out to be quick.
DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "128MB"}
_SIZES = "SELECT pg_total_relation_size(oid) FROM pg_class WHERE relname LIKE ? AND relkind IN ('r', 'p')"


class House:
    """A store, its performer, and the accounts of the bench."""

    def __init__(self, url: str) -> None:
        """Open it."""
        self.store = ClearingStore(url)
        performer = Performer(
            {
                **self.store.handlers(),
                Now: lambda _: NOW,
                RandomBytes: lambda effect: os.urandom(effect.size_bytes),
            }
        )
        desk, key, payees = open_accounts(performer)
        self.desk: Desk = desk
        self.payees = payees
        self.performer = performer.with_({SignData: lambda effect: key.sign(effect.data)})

    def bytes_of(self, *tables: str) -> int:
        """What tables take on disk, with their indexes and what is stored out of line."""
        rows = [row for table in tables for row in self.store.database.fetch(_SIZES, (f"{table}%",))]
        return sum(int(size) for (size,) in rows)

    def owed(self) -> int:
        """The sum of what payers owe, by their rows."""
        return int(self.store.database.fetch("SELECT SUM(owed) FROM clearing_payers")[0][0])


@contextlib.contextmanager
def postgres_house() -> Iterator[House]:
    """A house on a server of its own."""
    from tests import postgres_server  # noqa: PLC0415 - psycopg only where it is used

    server = postgres_server.PostgresServer(**DURABLE)
    try:
        house = House(server.database())
        try:
            yield house
        finally:
            house.store.close()
    finally:
        server.remove()


def peak_megabytes() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
