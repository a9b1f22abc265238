"""Writes into `docs/safety.md` which tests and mutants stand for each property: `python tests/house/safety_page.py`.

A test's name says what it is about: `test_S1_…`, `test_F7_F8_…`. After `<!-- proofs S1 -->` stands what was found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "safety.md"
sys.path.append(str(ROOT / "tests" / "mutants"))

import breakages  # noqa: E402 - it lies in the folder that was just named

_MARKER = re.compile(r"^<!-- proofs (?P<id>[A-Z]\d+) -->\n(?P<line>(?:\*Tests\*|\*No test\*).*\n)?", re.MULTILINE)
_IDS = re.compile(r"(?:.*::)?test_(?P<ids>(?:[A-Z]\d+_)+)")


def ids_of(test: str) -> list[str]:
    """Give the ids of the properties that a test is named by."""
    found = _IDS.match(test)
    return found["ids"].strip("_").split("_") if found else []


def test_files() -> list[Path]:
    """Give the files of tests that belong to the repository."""
    listed = subprocess.run(["git", "ls-files", "-z", "tests"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name] or list((ROOT / "tests").rglob("test_*.py"))
    return sorted(
        each for each in paths if each.match("test_*.py") and each.is_file() and "node_modules" not in each.parts
    )


def tests_by_id() -> dict[str, list[Path]]:
    """Find the files that have tests for each property."""
    found: dict[str, list[Path]] = {}
    for path in test_files():
        for name in sorted({each for test in breakages.tests_of(path) for each in ids_of(test)}):
            found.setdefault(name, []).append(path)
    return found


def areas_by_id() -> dict[str, list[str]]:
    """Find the files that have mutants for each property."""
    areas: dict[str, list[str]] = {}
    for mutant in breakages.load():
        for each in mutant.safety:
            if mutant.area not in areas.setdefault(each, []):
                areas[each].append(mutant.area)
    return areas


def page_with_proofs(page: str) -> str:
    """Give the page with what stands for each property written anew."""
    tests, areas = tests_by_id(), areas_by_id()

    def proofs(found: re.Match[str]) -> str:
        name = found["id"]
        files = [f"[{path.relative_to(ROOT / 'tests')}](../{path.relative_to(ROOT)})" for path in tests.get(name, [])]
        mutants = [f"[{area}](../tests/mutants/{area}.toml)" for area in areas.get(name, [])]
        line = f"*Tests*: {', '.join(files)}." if files else "*No test* is named by it yet."
        if mutants:
            line += f" *Mutants*: {', '.join(mutants)}."
        return f"<!-- proofs {name} -->\n{line}\n"

    return _MARKER.sub(proofs, page)


def proofs_of_page(page: str) -> dict[str, str]:
    """Give what the page says under each marker."""
    return {found["id"]: found["line"] or "" for found in _MARKER.finditer(page)}


def ids_of_page(page: str) -> list[str]:
    """Give the ids that the page has a place for."""
    return [found["id"] for found in _MARKER.finditer(page)]


if __name__ == "__main__":
    PAGE.write_text(page_with_proofs(PAGE.read_text("utf-8")), "utf-8")
