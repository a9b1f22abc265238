"""The reason codes and problem kinds in the code, found in its syntax: what `docs/reasons.md` must have a row for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "src" / "farthing"
# Where an argument is a code: by the callee's name and the argument's place, or by the keyword.
_BY_PLACE: Final = {
    "Refusal": 0, "Refused": 0, "Unknown": 0, "Mismatch": 0, "rejected": 0, "Rejected": 1, "_Reading": 1, "refusal": 0,
}  # fmt: skip
_BY_KEYWORD: Final = {"reason", "error_reason", "invalid_reason", "code"}
_PROBLEMS: Final = {"problem": 1, "_outage": 0, "_problem": 0, "problem_of": 0}
_CODE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
_KIND: Final = re.compile(r"[a-z]+(?:-[a-z]+)*\Z")
# Constants that hold a code are named anyhow; what they hold begins like one.
_CONSTANT: Final = re.compile(
    r"(?:invalid|unexpected|unsupported|insufficient|settlement|duplicate|missing|network_mismatch|asset_not|eip6492|smart"
    r"_wallet|payment_identifier_conflict)_?[a-z0-9_]*\Z"
)


def _trees() -> Iterator[ast.Module]:
    for path in sorted(SOURCE.rglob("*.py")):
        # The command has codes of its own kind: exit codes.
        if "cli" not in path.parts:
            yield ast.parse(path.read_text(encoding="utf-8"))


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _callee(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _arguments(call: ast.Call, places: dict[str, int]) -> Iterator[str]:
    place = places.get(_callee(call))
    if place is not None and len(call.args) > place:
        yield _text(call.args[place])


def _assigned(node: ast.Assign | ast.AnnAssign, name: str) -> Iterator[str]:
    """Give the strings that are assigned to a variable of this name, alone or first of several."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
    if getattr(first, "id", "") == name and node.value is not None:
        yield from (_text(each) for each in ast.walk(node.value) if isinstance(each, ast.Constant))


def reason_codes() -> set[str]:
    """Every code that is sent or raised, by its literal."""
    found: set[str] = set()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found.update(_arguments(node, _BY_PLACE))
                found.update(_text(each.value) for each in node.keywords if each.arg in _BY_KEYWORD)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                if _CONSTANT.match(_text(node.value)):
                    found.add(_text(node.value))
                found.update(_assigned(node, "reason"))
            elif isinstance(node, ast.FunctionDef) and node.name == "_reason_of":
                found.update(_text(each) for each in ast.walk(node) if isinstance(each, ast.Constant))
    # The name of the attribute is looked up in places, and is no code.
    return {each for each in found - {"reason"} if each and _CODE.match(each)}


def problem_kinds() -> set[str]:
    """Every kind of problem details, by its literal."""
    found: set[str] = set()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found.update(_arguments(node, _PROBLEMS))
                # `replace(transfer, kind=…)` is about books.
                if _callee(node) != "replace":
                    found.update(_text(each.value) for each in node.keywords if each.arg == "kind")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                found.update(list(_assigned(node, "kind"))[:1])
            elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_KINDS":
                keys = node.value.keys if isinstance(node.value, ast.Dict) else []
                found.update(_text(each) for each in keys)
    return {each for each in found if each and _KIND.match(each)}
