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


def test_the_servers_serve_what_is_measured() -> None:
    """One round of each over HTTP; an answer with another status than the one that is measured raises."""
    said = run(
        "import contextlib, pathlib, tempfile\n"
        "from bench import http_rounds as rounds\n"
        "from bench.apps import FREE_PATH, PAID_PATH\n"
        "from bench.serving import Server\n"
        "with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:\n"
        "    paid = rounds.Paid(PAID_PATH)\n"
        "    for name in ('bare', 'farthing', 'farthing_unstored', 'farthing_storeless', 'verified'):\n"
        "        server = stack.enter_context(Server('bench.apps', name, pathlib.Path(folder) / name))\n"
        "        speed = rounds._once(rounds.Contender(server, paid, 200), 80)\n"
        "        assert speed.per_second > 0 and speed.cpu_microseconds > 0\n"
        "        rounds._once(rounds.Contender(server, rounds.same(FREE_PATH), 200), 8)\n"
        "        status = 200 if name == 'bare' else 402\n"
        "        rounds._once(rounds.Contender(server, rounds.same(PAID_PATH), status), 8)\n"
        "print('all')\n"
    )
    assert said.strip().endswith("all")


def test_the_official_server_serves_what_is_measured() -> None:
    run(
        "import pathlib\n"
        "from bench import http_rounds as rounds\n"
        "from bench.apps import PAID_PATH\n"
        "from bench.official import BACKENDS\n"
        "from bench.serving import Server\n"
        "with Server('bench.official_apps', 'official_verified', pathlib.Path(), BACKENDS['coincurve']) as server:\n"
        "    rounds._once(rounds.Contender(server, rounds.Paid(PAID_PATH), 200), 8)\n"
        "    rounds._once(rounds.Contender(server, rounds.same(PAID_PATH), 402), 8)\n"
    )


def test_a_server_that_does_other_work_has_no_figure() -> None:
    said = run(
        "import pathlib\n"
        "from bench.load import UnexpectedAnswer, request_bytes, send_all\n"
        "from bench.serving import Server\n"
        "with Server('bench.apps', 'bare', pathlib.Path()) as server:\n"
        "    try:\n"
        "        send_all(server.port, [request_bytes('/nowhere')] * 4, status=200)\n"
        "    except UnexpectedAnswer as error:\n"
        "        print(str(error)[:12])\n"
    )
    assert said.strip() == "HTTP/1.1 404"


def test_packages_are_counted_by_their_metadata() -> None:
    said = run(
        "from bench.importing import packages\n"
        "ours = packages('farthing[httpx]')\n"
        "assert {'farthing', 'httpx2', 'msgspec', 'coincurve'} <= ours and 'starlette' not in ours, ours\n"
        "print(len(ours) <= 15)\n"
    )
    assert said.strip() == "True"
