"""The benches of the clearing house do the work that they say they measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json
from bench import clearing_close, clearing_ingest
figures = [*clearing_ingest.run(rounds=1, lines=300), *clearing_close.run(lines=2_500)]
print(json.dumps([(each.name, each.ours > 0) for each in figures]))
"""


def test_both_benches_run_small(postgres_server: object) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["clearing_ingest", True], ["close", True], ["close_memory", True]]
