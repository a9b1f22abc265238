"""Version 1 of x402, translated to and from the messages of version 2, and known nowhere else.

Source: `specs/x402-specification-v1.md` and `specs/transports-v1/http.md`.
"""

from __future__ import annotations

from farthing.protocol.v1.wire import Version1

__all__ = ["Version1"]
