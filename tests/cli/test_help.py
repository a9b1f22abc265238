"""The command as a whole: every help has examples, starting is light, and shells can complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from farthing.cli import app

HEAVY = {"aiohttp", "coincurve", "Crypto", "eth", "eth_account", "eth_keyfile", "fastapi", "httpx", "httpx2", "sqlite3",
         "requests", "rich", "starlette", "uvicorn", "farthing.buyer", "farthing.evm", "farthing.world"}  # fmt: skip


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command that can be run, by its words."""
    found = {} if path and not getattr(command, "invoke_without_command", True) else {path: command}
    for name, each in getattr(command, "commands", {}).items():
        found |= leaves(each, (*path, name))
    return found


COMMANDS = leaves(typer.main.get_command(app))
del COMMANDS[()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_says_what_it_does_and_shows_examples(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.help
    assert "Examples:" in command.help
    assert f"farthing {' '.join(words)}" in command.help
    for each in command.params:
        assert getattr(each, "help", None) or each.name in {"install_completion", "show_completion"}, each.name


def test_the_paying_commands_tell_their_exit_codes() -> None:
    for name in ("get", "post", "put", "delete"):
        assert "Exit codes: 0 paid or free, 2 usage, 3 refused by your own limits" in str(COMMANDS[name,].help)


def test_starting_loads_nothing_heavy() -> None:
    script = "import sys, farthing.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


def test_buying_loads_no_client_but_its_own() -> None:
    script = "import sys, farthing.cli.errand; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"aiohttp", "requests", "eth_account", "Crypto", "starlette"} & set(done.stdout.split()) == set()


def test_a_shell_completes_commands_and_names_of_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shopping.json").write_text("{}")
    (keys / "shopping.json").chmod(0o600)
    environment = {**os.environ, "FARTHING_HOME": str(tmp_path), "_FARTHING_COMPLETE": "complete_bash"}
    for typed, words, expected in (
        ("farthing pay", "1", "payments"),
        ("farthing get --key sh", "3", "shopping"),
        ("farthing key ex", "2", "export"),
    ):
        changed = environment | {"COMP_WORDS": typed, "COMP_CWORD": words}
        script = "import sys; sys.argv = ['farthing']; from farthing.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", script], env=changed, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [expected], done


def test_B7_an_error_that_nobody_foresaw_shows_no_local_variable(tmp_path: Path) -> None:
    secret = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
    script = """
import sys, farthing.world.keys
def broken(name): raise RuntimeError("unforeseen")
farthing.world.keys.LocalSigner.from_hex = broken
sys.argv = ["farthing", "key", "import", "a", "-"]
import farthing.world.keystore
farthing.world.keystore.Keystore.add_hex = lambda self, name, text, passphrase: broken(name)
from farthing.cli import main
main()
"""
    environment = {**os.environ, "FARTHING_HOME": str(tmp_path), "FARTHING_PASSPHRASE": "a good one"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, input=secret, capture_output=True, text=True, check=False
    )
    assert "unforeseen" in done.stderr
    assert secret not in done.stderr
    assert "a good one" not in done.stderr
