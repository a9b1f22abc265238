"""libsecp256k1 without any class around it: the limit of every bench that signs or recovers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# coincurve's binding is a private module without types.
_binding: Any = import_module("coincurve._libsecp256k1")
ffi: Any = _binding.ffi
lib: Any = _binding.lib
context: Any = import_module("coincurve.context").GLOBAL_CONTEXT.ctx
