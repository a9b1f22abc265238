"""C1, C2, C5, C6: killed by SIGKILL before or after any effect that writes, and at random, the day ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from story import WRITES, crawlers, tell
from town import DOLLAR, House

from farthing.clearing.store import Listing, ListStatements
from farthing.flow import Effect

SCRIPT = Path(__file__).with_name("story.py")
PLACES = [f"{when}:{name}" for name in WRITES for when in ("before", "after")]
# Kills in the middle of things: bounded, and the same ones each time.
RANDOM_KILLS = 8


def outcome(house: House) -> dict[str, Any]:
    """What money is where, and what was said about it: all that must not depend on a crash."""
    return {
        "balances": house.balances(),
        "promises": house.balances(pending=True),
        "owed": [house.payer(each).owed for each in crawlers()],
        "statements": [
            (each.statement, each.state, each.count, each.net, each.disputed, each.jws)
            for each in house.ask(ListStatements())
        ],
        "payouts": house.ask(Listing("payouts")),
        "windows": [(each["number"], each["state"]) for each in house.ask(Listing("windows"))],
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    house = House(tmp_path_factory.mktemp("story") / "clearing.sqlite3")
    tell(house)
    told = outcome(house)
    house.close()
    return told


def start(store: Path, crash_at: str = "", *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "FARTHING_CRASH_AT": crash_at}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(store), *words], env=environment)


def finish(store: Path) -> dict[str, Any]:
    """Start anew on what the dead process left, and tell the story again."""
    house = House(store)
    try:
        tell(house)
        assert sum(house.balances().values()) == 0
        return outcome(house)
    finally:
        house.close()


def test_the_story_is_what_it_says(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["promises"] == {}
    # Twelve lines and three, without the forged one; of each statement one line was granted.
    assert [(each[2], each[3], each[4]) for each in undisturbed["statements"]] in (
        [(9, 9 * DOLLAR, DOLLAR), (6, 6 * DOLLAR, DOLLAR)],
        [(6, 6 * DOLLAR, DOLLAR), (9, 9 * DOLLAR, DOLLAR)],
    )
    assert {each[1] for each in undisturbed["statements"]} == {"settled"}
    assert [(each["amount"], each["state"]) for each in undisturbed["payouts"]] == [(13 * DOLLAR, "settled")]
    assert undisturbed["owed"] == [0, 0]


def test_every_effect_that_writes_is_in_the_story() -> None:
    """A new effect must not be forgotten: what the story leaves out is named here, with its reason."""
    from farthing.clearing import settlement, store  # noqa: PLC0415

    effects = {
        name
        for module in (store, settlement)
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, Effect) and each is not Effect
    }
    reads = {name for name in effects if name.startswith(("Find", "List", "Load", "Open", "Previous", "Run", "Closed"))}
    reads |= {"PayersOfWindow", "Balances"}
    accounts = {"RegisterPayer", "RegisterPayee", "ProvePayee", "SetPayerState", "AddToken", "RevokeToken", "Audit"}
    credit = {"StartEdge", "GrantLease", "CloseLease", "LapseLeases"}
    # Single conditional statements that nothing else in their round waits for.
    alone = {"ReturnStatement", "PayFromBalance", "AssignSuspense", "SuspendOverdue"}
    assert effects - reads - accounts - credit - alone == set(WRITES) - {"OpenDisputes"}


@pytest.mark.parametrize("place", PLACES)
def test_C2_C5_C6_killed_at_any_step_the_day_ends_the_same(
    tmp_path: Path, undisturbed: dict[str, Any], place: str
) -> None:
    store = tmp_path / "clearing.sqlite3"
    assert start(store, place).wait(60) == -signal.SIGKILL
    assert finish(store) == undisturbed


def test_C2_C5_C6_killed_at_random_again_and_again_the_day_ends_the_same(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    chance = random.Random(402)  # noqa: S311 - the same kills each time
    store = tmp_path / "clearing.sqlite3"
    for _ in range(RANDOM_KILLS):
        process = start(store, "", "wait")
        while not store.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.4)
        process.kill()
        process.wait(60)
    assert finish(store) == undisturbed
