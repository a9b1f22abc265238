"""S1, S2, S6: sellers killed by SIGKILL at every step, and at random; then chain, ledger and answers are compared.

Over both engines; on PostgreSQL the server is killed, too, under the sellers and their facilitator.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from seller_crashes import again_while_it_finds_out, at_every_step, random_run
from selling_town import town

if TYPE_CHECKING:
    from selling_town import Town
    from tests.postgres_server import PostgresServer

SECONDS = float(os.environ.get("FARTHING_CRASH_SECONDS", "6"))
SEED = int(os.environ.get("FARTHING_CRASH_SEED", "402"))


@pytest.fixture
def street(local: Any, tmp_path: Path, store_url: str) -> Iterator[Town]:
    with town(local, tmp_path, store=store_url) as made:
        yield made


def test_S1_S2_S6_killed_at_any_step_no_payment_is_lost_or_doubled(street: Town) -> None:
    counted = asyncio.run(at_every_step(street))
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)


def test_S3_S6_killed_again_while_it_finds_out_no_payment_is_lost_or_doubled(street: Town) -> None:
    counted = asyncio.run(again_while_it_finds_out(street))
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)


def test_S1_S2_S6_killed_at_random_no_payment_is_lost_or_doubled(local: Any, tmp_path: Path) -> None:
    kills, counted = random_run(local, tmp_path, seed=SEED, seconds=SECONDS)
    assert kills.sellers > 0
    assert counted.paid > 0
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)


def test_S1_S2_S6_F2_killed_at_random_with_the_server_of_all_stores_no_payment_is_lost_or_doubled(
    local: Any, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    kills, counted = random_run(local, tmp_path, postgres_server, seed=SEED, seconds=SECONDS)
    assert kills.sellers > 0
    assert kills.servers > 0
    assert counted.paid > 0
    assert (counted.lost, counted.doubled, counted.free) == (0, 0, 0)
