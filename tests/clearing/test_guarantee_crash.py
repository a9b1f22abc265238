"""C1, C6: killed by SIGKILL before or after any effect of a default and its cover, all have at last what is theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from default_story import WRITES, tell
from town import DOLLAR, Crawler, House

from farthing.clearing import guarantee
from farthing.clearing.store import Listing, ListStatements
from farthing.flow import Effect

SCRIPT = Path(__file__).with_name("default_story.py")


def outcome(house: House) -> dict[str, Any]:
    return {
        "balances": house.balances(),
        "promises": house.balances(pending=True),
        "payer": (house.payer(Crawler()).owed, house.payer(Crawler()).recourse),
        "statements": [(each.statement, each.state, each.jws) for each in house.ask(ListStatements())],
        "covers": [(each["cover"], each["amount"], each["state"]) for each in house.ask(Listing("covers"))],
        "payouts": house.ask(Listing("payouts")),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    house = House(tmp_path_factory.mktemp("default") / "clearing.sqlite3")
    tell(house)
    told = outcome(house)
    house.close()
    return told


def test_the_story_is_what_it_says(undisturbed: dict[str, Any]) -> None:
    assert (undisturbed["balances"], undisturbed["promises"], undisturbed["payer"]) == ({}, {}, (0, 0))
    assert [(amount, state) for _, amount, state in undisturbed["covers"]] == [(3 * DOLLAR, "settled")]
    paid = {each["name"]: (each["amount"], each["state"]) for each in undisturbed["payouts"]}
    assert paid == {"news": (3 * DOLLAR, "settled"), "ourselves": (5 * DOLLAR, "settled")}


def test_every_effect_of_the_guarantee_that_writes_is_in_the_story() -> None:
    effects = {name for name, each in vars(guarantee).items() if isinstance(each, type) and issubclass(each, Effect)}
    assert effects - {"Effect", "FindReserve"} == set(WRITES) & effects


@pytest.mark.parametrize("place", [f"{when}:{name}" for name in WRITES for when in ("before", "after")])
def test_C1_C6_killed_at_any_step_of_a_default_nobody_is_paid_twice(
    tmp_path: Path, undisturbed: dict[str, Any], place: str
) -> None:
    store = tmp_path / "clearing.sqlite3"
    environment = {**os.environ, "FARTHING_CRASH_AT": place}
    process = subprocess.run([sys.executable, str(SCRIPT), str(store)], env=environment, timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    house = House(store)
    try:
        tell(house)
        assert outcome(house) == undisturbed
    finally:
        house.close()
