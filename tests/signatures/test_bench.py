"""The bench of signatures does the work that it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_contender_verifies() -> None:
    program = (
        "from bench import signature_verify as bench\n"
        "for work in (bench.bare(), bench.ours(), bench.oracle()):\n"
        "    work(0), work(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
