"""The mutants: deliberate breakages of the code, each with the tests that must notice it.

A mutant is a table in one of the `.toml` files beside this one; `README.md` says how to write one.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One breakage: in `file`, the text `before`, which occurs there once, becomes `after`; `tests` must then fail."""

    name: str
    safety: tuple[str, ...]
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    # The name of the file that it stands in, without `.toml`.
    area: str = ""


class UnfitError(Exception):
    """A mutant that can't be applied."""


def load(folder: Path = FOLDER) -> list[Mutant]:
    """Read all mutants, in the order of their files."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        tables = tomllib.loads(path.read_text("utf-8"))
        read = msgspec.convert(tables.get("mutant", []), list[Mutant])
        found += [msgspec.structs.replace(each, area=path.stem) for each in read]
    return found


def chosen(mutants: Iterable[Mutant], words: Iterable[str]) -> list[Mutant]:
    """Choose by name, area or id of SAFETY; without words, all. Raises `UnfitError` for a word that names none."""
    mutants, words = list(mutants), list(words)
    for word in words:
        if not any(_is(each, word) for each in mutants):
            raise UnfitError(f"{word}: no mutant, area or id of a property is called so")
    return [each for each in mutants if not words or any(_is(each, word) for word in words)]


def _is(mutant: Mutant, word: str) -> bool:
    return word in (mutant.name, mutant.area, *mutant.safety)


def broken(mutant: Mutant, root: Path = ROOT) -> str:
    """Give the text of the mutant's file with the breakage in it. Raises `UnfitError`."""
    path = root / mutant.file
    if not path.is_file():
        raise UnfitError(f"{mutant.name}: {mutant.file} is not there")
    text = path.read_text("utf-8")
    count = text.count(mutant.before)
    if count != 1:
        raise UnfitError(f"{mutant.name}: its `before` occurs {count} times in {mutant.file}, not once")
    mutated = text.replace(mutant.before, mutant.after)
    if mutated == text:
        raise UnfitError(f"{mutant.name}: `before` and `after` are the same")
    if path.suffix == ".py":
        try:
            ast.parse(mutated)
        except SyntaxError as error:
            raise UnfitError(f"{mutant.name}: {mutant.file} can't be parsed with it: {error}") from error
    return mutated


def tests_of(path: Path) -> set[str]:
    """Name the tests of a file as pytest does after its path: `test_x`, `TestY::test_z`."""
    return set(_tests(ast.parse(path.read_text("utf-8")).body, ""))


def _tests(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield from _tests(node.body, f"{prefix}{node.name}::")


def missing_tests(mutant: Mutant, root: Path = ROOT) -> list[str]:
    """Give the tests that the mutant names and that are not there."""
    missing: list[str] = []
    for test in mutant.tests:
        file, _, name = test.partition("::")
        path = root / file
        if not path.is_file() or name.partition("[")[0] not in tests_of(path):
            missing.append(test)
    return missing
