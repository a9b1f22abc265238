"""Every reader of foreign bytes is fuzzed for a bounded time; what was found once stays found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from targets import AUTHORIZATION, EXACT, TARGETS

HERE = Path(__file__).parent
# A target's share of a run of the suite: enough for some hundred thousand inputs where it is asked for.
SECONDS = os.environ.get("FARTHING_FUZZ_SECONDS", "5" if os.environ.get("FARTHING_REQUIRE_ALL") else "2")
ENGINES = ("atheris", "hypothesis") if sys.platform == "linux" else ("hypothesis",)


def fuzz(*arguments: str) -> Any:
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", list(TARGETS))
def test_S10_nothing_but_our_own_errors_escapes(name: str, tmp_path: Path) -> None:
    ran = fuzz("--seconds", SECONDS, "--crashes", str(tmp_path), name)
    assert ran.returncode == 0, ran.stderr[-4_000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(TARGETS))
def test_seeds_are_read(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].read(seed)


TOO_MUCH = str(2**256)
# Readers end in one of our errors, or with what they read; what must be refused is refused elsewhere (tests/protocol).
FOUND = {
    "a value over 256 bits": (
        "exact_evm",
        json.dumps({**EXACT, "authorization": {**AUTHORIZATION, "value": TOO_MUCH}}).encode(),
    ),
    "a nonce that is no hexadecimal": (
        "exact_evm",
        json.dumps({**EXACT, "authorization": {**AUTHORIZATION, "nonce": "0x" + "g0" * 32}}).encode(),
    ),
    "a name of an offer's member that is no UTF-8": ("messages", b'{"accepts":[{"\xff\xff":1}]}'),
    "a text of an offer's member that is no UTF-8": ("messages", b'{"accepts":[{"scheme":"\x80"}]}'),
    "a line of an upload that is nested without end": ("uploads", b'{"type":"sent","x":' + b"[" * 5_000),
    "a statement's header that is nested without end": ("statements", b'{"alg":' + b"[" * 5_000),
    "a statement's line that is nested without end": ("statements", b'{"id":"a","x":' + b'{"x":' * 5_000),
    "a key of a directory that is no UTF-8": ("signatures", b'{"keys": [{"kty": "\x80OKP", "crv": "Ed25519"}]}'),
}


@pytest.mark.parametrize("what", list(FOUND))
def test_S10_what_was_found_once(what: str) -> None:
    name, data = FOUND[what]
    TARGETS[name].read(data)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_escapes_is_told_and_kept(engine: str, tmp_path: Path) -> None:
    """Both engines notice a reader that breaks; here one that ends in a KeyError."""
    (tmp_path / "targets.py").write_text(
        "from typing import NamedTuple, Any\n"
        "class Target(NamedTuple):\n    read: Any\n    seeds: Any\n"
        "def read(data):\n    if data[:2] != b'{}':\n        raise KeyError('broken')\n"
        "TARGETS = {'broken': Target(read, (b'{}',))}\n"
    )
    (tmp_path / "run.py").write_text((HERE / "run.py").read_text())
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    command = [sys.executable, str(tmp_path / "run.py"), "--engine", engine, "--seconds", "20"]
    ran = subprocess.run([*command, "--crashes", str(crashes), "broken"], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "KeyError" in ran.stdout + ran.stderr
    kept = list(crashes.iterdir())
    assert len(kept) == 1
    assert (
        subprocess.run([*command, "--repeat", str(kept[0]), "broken"], capture_output=True, check=False).returncode == 1
    )


def test_a_target_that_is_none_is_refused() -> None:
    ran = fuzz("nothing")
    assert ran.returncode == 2
    assert "exact_evm" in ran.stderr
