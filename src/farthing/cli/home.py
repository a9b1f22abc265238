"""Where the command keeps its things: $FARTHING_HOME, or the platform's folder for a user's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from farthing.world.keystore import Keystore

HOME_VARIABLE: Final = "FARTHING_HOME"
STORE_VARIABLE: Final = "FARTHING_STORE"


def farthing_home() -> Path:
    """Give the folder, which may not be there yet."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "farthing"
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/farthing").expanduser()
    # XDG Base Directory Specification: a relative path in the variable is to be ignored.
    shared = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return (shared if shared.is_absolute() else Path("~/.local/share").expanduser()) / "farthing"


def journal_path() -> str:
    """Where the paying commands keep their journal unless told otherwise: $FARTHING_STORE, or a file."""
    return os.environ.get(STORE_VARIABLE) or str(farthing_home() / "journal.sqlite")


def is_there(store: str) -> bool:
    """Whether there is a store to be read: asking a server would be opening it."""
    from farthing.world.store_url import is_postgres, sqlite_path  # noqa: PLC0415 - heavy parts only when run

    return is_postgres(store) or sqlite_path(store).exists()


def keystore() -> Keystore:
    """The user's encrypted keys."""
    from farthing.world.keystore import Keystore  # noqa: PLC0415 - heavy parts only when run

    return Keystore(farthing_home() / "keys")
