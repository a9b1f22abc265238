"""`import`: the time that `import farthing.clients.httpx` takes, and the packages that `farthing[httpx]` installs.

Each import runs in an interpreter of its own, with warm caches; only the import is timed. The packages are counted by
resolving the metadata of what is installed here: nothing is fetched.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.figure import Figure
from bench.harness import ROUNDS
from bench.serving import cores, on_core

TARGET_ADDED_MILLISECONDS = 100.0
TARGET_PACKAGES = 15.0
# What a buyer imports: of ours, of the library under it, and of the official package.
_IMPORTS = {
    "ours": "import farthing.clients.httpx",
    "httpx2": "import httpx2",
    "official": "from x402.http.clients import x402HttpxClient; from x402.mechanisms.evm.exact import ExactEvmScheme",
}
_TIMED = "import time; before = time.perf_counter(); {what}; print(time.perf_counter() - before)"


def packages(requirement: str) -> set[str]:
    """The names of all that a requirement installs, itself among them, by the metadata of what is installed here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.add(name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in metadata.distribution(name).requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return found


def _once(what: str) -> float:
    done = subprocess.run([sys.executable, "-c", _TIMED.format(what=what)], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3


def run() -> list[Figure]:
    """Measure."""
    seen: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    with on_core(cores()[0]):
        for round_ in range(ROUNDS + 1):
            for name, what in _IMPORTS.items():
                milliseconds = _once(what)
                if round_:  # the first one writes what the others read
                    seen[name].append(milliseconds)
    found = {name: statistics.median(times) for name, times in seen.items()}
    ours, official = packages("farthing[httpx]"), packages("x402[httpx,evm]")
    return [
        Figure(
            name="import",
            ours=found["ours"],
            unit="ms",
            better="lower",
            limit=found["httpx2"],
            official=found["official"],
            target=found["httpx2"] + TARGET_ADDED_MILLISECONDS,
            target_is="ours",
            notes=(f"the limit is httpx2's own import; ours adds {found['ours'] - found['httpx2']:.0f} ms",),
        ),
        Figure(
            name="import_packages",
            ours=float(len(ours)),
            unit="packages",
            better="lower",
            official=float(len(official)),
            target=TARGET_PACKAGES,
            target_is="ours",
            notes=(f"farthing[httpx]: {', '.join(sorted(ours))}",),
        ),
    ]
