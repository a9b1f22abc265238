"""The habits of the house that a linter does not know."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FILE_MAX_LINES = 450
FUNCTION_MAX_LINES = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "base", "common", "manager", "managers", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
parsed: dict[Path, ast.Module] = {path: ast.parse(path.read_text("utf-8")) for path in SOURCES}


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def tracked_files() -> list[Path]:
    """Files of the repository; in a copy without git, whatever is there but for what tools leave behind."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    left_behind = {".git", ".venv", "node_modules", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and left_behind.isdisjoint(path.parts)]


def test_no_file_has_a_vague_name() -> None:
    vague = [
        path for path in tracked_files() if path.stem.lower() in VAGUE_NAMES and path.suffix in {".py", ".ts", ".js"}
    ]
    assert vague == []


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_MAX_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = [
        f"{where(path, node)} {node.name}: {lines} lines"
        for path, tree in parsed.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_MAX_LINES
    ]
    assert long == []


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        yield f"{prefix}.{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{prefix}.{node.name}")


def is_overload(node: ast.AST) -> bool:
    return isinstance(node, Function) and any(ast.unparse(each).endswith("overload") for each in node.decorator_list)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = parsed[path]
    bare = [] if ast.get_docstring(tree) else ["the file itself"]
    for name, node in public(tree.body, path.stem):
        if not ast.get_docstring(node) and not is_overload(node):
            bare.append(f"{where(path, node)} {name}")
    assert bare == []


# Money is integers and Decimal. Seconds and rates may be floats; what has one of these words in its name may not.
MONEY = re.compile(
    r"amount|price|fee|wei|balance|atomic|spent|budget|total|cost|charge|usdc|money|decimal", re.IGNORECASE
)
DURATION = re.compile(r"(?i)second|timeout|quality|ratio")


def annotated(tree: ast.Module) -> Iterator[tuple[str, ast.expr, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target), node.annotation, node
        elif isinstance(node, ast.arg) and node.annotation is not None:
            yield node.arg, node.annotation, node
        elif isinstance(node, Function) and node.returns is not None:
            yield node.name, node.returns, node


def test_money_is_never_a_float() -> None:
    found = [
        f"{where(path, node)} {name}: {ast.unparse(annotation)}"
        for path, tree in parsed.items()
        for name, annotation, node in annotated(tree)
        if MONEY.search(name) and not DURATION.search(name) and re.search(r"\bfloat\b", ast.unparse(annotation))
    ]
    for path, tree in parsed.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"float", "round"}:
                said = ast.unparse(node)
                if MONEY.search(said) and not DURATION.search(said):
                    found.append(f"{where(path, node)} {said}")
    assert found == []


# Clocks and randomness are effects up to the floor of the world. (monotonic is a clock, too.)
PURE_ROOMS = ["errors.py", "flow.py", "money.py", "networks.py", "protocol", "evm", "signatures", "ledger",
              "mechanisms", "buyer", "seller", "facilitator", "clearing"]  # fmt: skip
IMPURE = {"time", "random", "secrets", "socket", "sqlite3", "threading", "asyncio", "subprocess", "urllib.request",
          "aiohttp", "httpx", "httpx2", "requests", "http.client"}  # fmt: skip


def imported(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node


def test_below_the_world_nothing_reads_a_clock_a_socket_or_randomness() -> None:
    rooms = [ROOT / "src" / "farthing" / room for room in PURE_ROOMS]
    found = [
        f"{where(path, node)} imports {name}"
        for path, tree in parsed.items()
        if any(path == room or room in path.parents for room in rooms)
        for name, node in imported(tree)
        if name in IMPURE
    ]
    assert found == []


# Written apart, so that this file does not name them itself.
FOREIGN = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "crates" + ".io",
    "proxy.golang" + ".org",
    "/wo" + "rk/",
    "/tm" + "p/",
    "/ho" + "me/",
    "/ro" + "ot/",
]
LOCKS = {"uv.lock"}


def test_nothing_names_a_registry_or_a_path_of_one_machine() -> None:
    found: list[str] = []
    for path in tracked_files():
        if path.name in LOCKS:
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number} {word}"
            for number, line in enumerate(lines, 1)
            for word in FOREIGN
            if word in line
        ]
    assert found == []
