"""B7 and A4: keys are read from private places only, and are shown nowhere."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

from farthing.errors import SignerError
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import recover_address
from farthing.evm.signing import SignTypedData
from farthing.world.keys import LocalSigner, signer_from_env, signer_from_file, signer_handlers
from farthing.world.performers import Performer

SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"  # of the web3.js documentation's example key


class Message:
    def digest(self) -> bytes:
        return keccak256(b"a message")

    def to_json(self) -> dict[str, object]:
        return {}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"0x{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("text", [SECRET, "0x" + SECRET, SECRET.upper(), f" 0x{SECRET}\n"])
def test_a_key_is_read_from_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_KEY", text)
    assert signer_from_env("FARTHING_KEY").address == ADDRESS


def test_a_key_is_read_from_a_private_file(key_file: Path) -> None:
    assert signer_from_file(key_file).address == ADDRESS


def test_a_signature_recovers_to_the_address() -> None:
    signer = LocalSigner.from_hex(SECRET)
    digest = keccak256(b"a message")
    assert "0x" + recover_address(digest, signer.sign_digest(digest)).hex() == ADDRESS.lower()
    signed = Performer(signer_handlers(signer)).blocking(SignTypedData(Message()))
    assert signed == signer.sign_digest(digest)
    with pytest.raises(SignerError, match="32 bytes"):
        signer.sign_digest(b"short")


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_B7_a_file_that_others_can_reach_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(SignerError, match="chmod 600"):
        signer_from_file(key_file)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
def test_B7_a_file_of_another_owner_is_refused(key_file: Path) -> None:
    os.chown(key_file, 12345, 12345)
    with pytest.raises(SignerError, match="another user"):
        signer_from_file(key_file)


@pytest.mark.skipif(sys.platform == "win32", reason="fifo")
def test_B7_what_is_no_regular_file_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(SignerError, match="no regular file"):
            signer_from_file(path)
    with pytest.raises(SignerError, match="can't be opened"):
        signer_from_file(tmp_path / "none")


def from_file(tmp_path: Path, text: str) -> LocalSigner:
    path = tmp_path / "bad"
    path.write_text(text)
    path.chmod(0o600)
    return signer_from_file(path)


def from_env(tmp_path: Path, text: str) -> LocalSigner:
    return signer_from_env("FARTHING_KEY", {"FARTHING_KEY": text})


def from_text(tmp_path: Path, text: str) -> LocalSigner:
    return LocalSigner.from_hex(text)


BAD = {
    "too long": SECRET + "00",
    "too short": SECRET[:-2],
    "not hexadecimal": SECRET[:-1] + "g",
    "over the order": "f" * 64,
    "zero": "0" * 64,
    "prose": f"my key is {SECRET}",
    "full width": SECRET.replace("4", "\uff14"),
}


def held(trace: TracebackType | None, but: str) -> str:
    """All that the frames of Farthing hold, as a report of an error would show it."""
    return "".join(repr(frame.f_locals) for frame, _ in traceback.walk_tb(trace) if but not in frame.f_code.co_filename)


@pytest.mark.parametrize("read", [from_file, from_env, from_text])
@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_A4_an_error_holds_nothing_of_the_key(
    read: Callable[[Path, str], LocalSigner], text: str, tmp_path: Path
) -> None:
    with pytest.raises(SignerError) as caught:
        read(tmp_path, text)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception_only(error)) + held(error.__traceback__, "test_keys")
    if "environment" in str(error):  # the mapping was the caller's own
        shown = shown.replace(repr({"FARTHING_KEY": text}), "")
    for part in (text[10:40], bytes(text, "utf-8")[10:40].hex(), SECRET[10:40]):
        assert part not in shown


def test_A4_an_error_for_bytes_holds_nothing_of_them() -> None:
    with pytest.raises(SignerError) as caught:
        LocalSigner(b"\xff" * 32)
    assert caught.value.__context__ is None
    assert "\\xff" not in held(caught.value.__traceback__, "test_keys") + str(caught.value)


def test_A4_a_signer_shows_its_address_and_never_its_key() -> None:
    signer = LocalSigner.from_hex(SECRET)
    shown = f"{signer!r} {signer!s} {signer:} {Performer(signer_handlers(signer))!r}"
    assert ADDRESS in shown
    assert SECRET[:8] not in shown.lower()
    assert str(int(SECRET, 16)) not in shown
    assert not hasattr(signer, "__dict__")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(signer, protocol)
    with pytest.raises(TypeError):
        copy.copy(signer)
    with pytest.raises(TypeError):
        copy.deepcopy([signer])


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SignerError, match="FARTHING_KEY is not set"):
        signer_from_env("FARTHING_KEY", {})
