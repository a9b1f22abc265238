"""A Scrapy crawl on credit: one 402 for a host, then promises unasked, also when the price changes on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("how", ["buyer", "settings"])
def test_B1_a_crawl_on_credit_asks_for_the_price_once_and_promises_each_page_once(tmp_path: Path, how: str) -> None:
    # A process of its own: Twisted's reactor runs once in each.
    program = [sys.executable, str(FOLDER / "credit_crawl.py"), str(tmp_path / "journal"), how]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=FOLDER, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["pages"], said["served"], said["servings"], said["settled"]) == (12, 12, 12, 12), said
    # One for the price; pages that were under way when it changed are asked for again by their refusal.
    assert said["unpaid"] == 1, said
