"""A request that ends in problem details."""

from __future__ import annotations


class Refused(Exception):
    """Raised by a handler, and written as a problem of `kind` (`problems.KINDS`) by the application."""

    def __init__(self, kind: str, detail: str, *, reason: str = "", path: str = "") -> None:
        """Say of which kind, in words, with a stable code for programs where there is one."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.reason = reason
        self.path = path
