"""What the figures were measured on: a figure without its machine says little."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("farthing", "coincurve", "msgspec", "safe-pysha3", "x402", "eth-account", "eth-keys")


def facts() -> dict[str, object]:
    """Processor, cores, load, system, Python, and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def to_text() -> str:
    """The same for people."""
    known = facts()
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return (
        f"{known['processor']}, {known['cores']} cores, load {known['load']}; {known['system']}; "
        f"Python {known['python']}; {packages}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
