"""The benches do the work that they say they measure, and print the lines that they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    """Run in the repository's root, where `bench` is a package."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_contender_does_the_work() -> None:
    """Each asserts on its own that what it did came out right: a valid verdict, a header."""
    run(
        "from bench import official, sign_cpu, verify_cpu\n"
        "for work in (verify_cpu.bare(), verify_cpu.ours(), sign_cpu.bare(), sign_cpu.ours(),\n"
        "             official.verify(), official.sign()):\n"
        "    work(0), work(1)\n"
    )


def test_the_official_package_runs_on_the_curve_that_is_asked_for() -> None:
    for name, expected in (("native", "NativeECCBackend"), ("coincurve", "CoinCurveECCBackend")):
        said = run(
            "import os\n"
            "from bench.official import BACKENDS\n"
            f"os.environ.update(BACKENDS[{name!r}])\n"
            "from eth_keys.main import KeyAPI\n"
            "print(type(KeyAPI().backend).__name__)\n"
        )
        assert said.strip() == expected


def test_a_figure_has_the_promised_members() -> None:
    said = run(
        "import json\n"
        "from bench.figure import Figure\n"
        "f = Figure(name='x', ours=30.0, unit='µs', better='lower', limit=20.0, official=300.0, target=1.8)\n"
        "print(json.dumps(f.to_json()))\n"
        "f.to_text()\n"
    )
    assert json.loads(said) == {
        "name": "x", "ours": 30.0, "unit": "µs", "better": "lower", "limit": 20.0, "official": 300.0,
        "official_coincurve": None, "ratio_to_limit": 1.5, "ratio_to_official": 0.1, "target": 1.8, "met": True,
    }  # fmt: skip


def test_a_worker_measures_in_a_process_of_its_own() -> None:
    said = run(
        "from bench.harness import measure\n"
        "from bench.worker import Worker\n"
        "with Worker('bench.sign_cpu', 'bare') as worker:\n"
        "    print(worker.run(10) > 0)\n"
    )
    assert said.strip() == "True"
