"""Applies mutants one by one to a copy of the tree, and sees whether the tests that must notice do.

    python tests/mutants/run.py seller            # by area, name, or id of a property: S1, B3 …
    python tests/mutants/run.py --all --jobs 2

The exit status is 0 when every mutant that was tried is caught, 1 when one survived or could not be tried, 2 when it
was asked for something that is not there.
"""

from __future__ import annotations

import argparse
import enum
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from breakages import ROOT, Mutant, UnfitError, broken, chosen, load

# A mutant may make a program wait for ever; its tests take seconds, those with processes and chains a minute.
TIMEOUT_SECONDS = 300
# All that is copied: what tests read beside the code.
PARTS = ("src", "tests", "bench", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
# pytest's own exit codes: tests failed; all passed.
FAILED, PASSED = 1, 0
SHOWN_LINES = 15


class Verdict(enum.StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    UNFIT = "NOT TRIED"


class Tried(NamedTuple):
    mutant: Mutant
    verdict: Verdict
    said: str
    seconds: float


@contextmanager
def tree() -> Iterator[Path]:
    """Give a copy of the tree. What npm installed is lent, not copied."""
    with tempfile.TemporaryDirectory(prefix="farthing-mutants-") as folder:
        root = Path(folder)
        leave = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache")
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, root / part, ignore=leave)
            elif (ROOT / part).exists():
                shutil.copy(ROOT / part, root / part)
        modules = ROOT / "tests" / "node" / "node_modules"
        if modules.is_dir():
            (root / "tests" / "node" / "node_modules").symlink_to(modules)
        yield root


def run_tests(root: Path, tests: Iterable[str], *options: str) -> tuple[int | None, str]:
    """Run tests in a copy; gives pytest's exit code, None after the time limit, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *options, *tests]
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what the tests started can be ended with them
    )
    try:
        said, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return None, said
    return process.returncode, said


def failing_without(root: Path, mutants: Iterable[Mutant]) -> dict[str, str]:
    """Find the tests that fail, or can't run, on the tree as it is: what they say of a mutant would mean nothing."""
    failing: dict[str, str] = {}
    files: dict[str, set[str]] = {}
    for mutant in mutants:
        for test in mutant.tests:
            files.setdefault(test.partition("::")[0], set()).add(test)
    for tests in files.values():
        code, said = run_tests(root, sorted(tests), "-x")
        if code != PASSED:
            failing.update(dict.fromkeys(tests, said))
    return failing


def attempt(mutant: Mutant, root: Path, *, each: bool) -> Tried:
    """Break the copy, run the tests that must notice, and mend the copy."""
    start = time.monotonic()
    path = root / mutant.file
    before = path.read_bytes() if path.is_file() else b""
    try:
        path.write_text(broken(mutant, root), "utf-8")
        verdict, said = Verdict.CAUGHT, ""
        for tests in [[test] for test in mutant.tests] if each else [list(mutant.tests)]:
            verdict, said = judge(*run_tests(root, tests, "-x"))
            if verdict is not Verdict.CAUGHT:
                break
    except UnfitError as error:
        verdict, said = Verdict.UNFIT, str(error)
    finally:
        if before:
            path.write_bytes(before)
    return Tried(mutant, verdict, said, time.monotonic() - start)


def judge(code: int | None, said: str) -> tuple[Verdict, str]:
    """Say what an end of pytest means for the mutant that was in the tree."""
    if code is None:
        return Verdict.CAUGHT, f"its tests did not end within {TIMEOUT_SECONDS} s"
    if code == PASSED:
        return Verdict.SURVIVED, said
    if code == FAILED:
        return Verdict.CAUGHT, next((line for line in said.splitlines() if line.startswith("FAILED")), "")
    return Verdict.UNFIT, said  # a file that could not be read, an id that names no test, an error of pytest's own


def attempt_all(mutants: list[Mutant], jobs: int, *, each: bool, baseline: bool) -> list[Tried]:
    """Try all, each job in a copy of its own, and tell of each as it is done."""
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
    telling = threading.Lock()

    def one(mutant: Mutant) -> Tried:
        root = copies.get()
        try:
            tests = [test for test in mutant.tests if test in failing]
            if tests:
                tried = Tried(mutant, Verdict.UNFIT, f"{tests[0]} fails without it:\n{failing[tests[0]]}", 0)
            else:
                tried = attempt(mutant, root, each=each)
        finally:
            copies.put(root)
        with telling:
            tell(tried)
        return tried

    with ThreadPoolExecutor(jobs) as pool, ExitStack() as stack:
        roots = [stack.enter_context(tree()) for _ in range(jobs)]
        for root in roots:
            copies.put(root)
        failing = failing_without(roots[0], mutants) if baseline else {}
        return list(pool.map(one, mutants))


def tell(tried: Tried) -> None:
    """Say what became of one mutant."""
    ids = ", ".join(tried.mutant.safety)
    print(f"{tried.verdict:9} {tried.mutant.area}/{tried.mutant.name} ({ids}) {tried.seconds:.1f} s", flush=True)
    if tried.verdict is Verdict.CAUGHT:
        print(f"          {tried.said[:200]}")
    else:
        print(*tried.said.splitlines()[-SHOWN_LINES:], sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Break the code on purpose, and see whether the tests notice.")
    parser.add_argument("which", nargs="*", help="names, areas or ids of properties")
    parser.add_argument("--all", action="store_true", help="every mutant there is")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once, each in a copy of the tree")
    parser.add_argument("--each", action="store_true", help="each test named must fail, not one of them")
    parser.add_argument("--no-baseline", action="store_true", help="don't run the tests without a mutant first")
    parser.add_argument("--list", action="store_true", help="name them, and try none")
    asked = parser.parse_args(arguments)
    if not (asked.which or asked.all or asked.list):
        parser.error("name mutants, areas or ids, or say --all")
    try:
        mutants = chosen(load(), [] if asked.all else asked.which)
    except UnfitError as error:
        print(error, file=sys.stderr)
        return 2
    if asked.list:
        print(*(f"{each.area}/{each.name} ({', '.join(each.safety)})" for each in mutants), sep="\n")
        return 0
    tried = attempt_all(mutants, max(1, asked.jobs), each=asked.each, baseline=not asked.no_baseline)
    counted = {verdict: sum(each.verdict is verdict for each in tried) for verdict in Verdict}
    not_tried = counted[Verdict.UNFIT]
    print(
        f"mutants: {len(tried) - not_tried} tried, {counted[Verdict.CAUGHT]} caught, "
        f"{counted[Verdict.SURVIVED]} survived" + (f"; {not_tried} could not be tried" if not_tried else "")
    )
    return 0 if counted[Verdict.CAUGHT] == len(tried) else 1


if __name__ == "__main__":
    sys.exit(main())
