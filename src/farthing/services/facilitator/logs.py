"""The log: structured events. Embedded, they go to the logger `farthing.facilitator`; the command writes JSON lines.

Nothing secret is ever handed to it: no key, no token, no signature, no header, no URL of a node.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

LOGGER: Final = "farthing.facilitator"


class _LibraryLogger(structlog.stdlib.BoundLogger):
    """Asks for the level before it builds an event: most programs show none, and there is one for each payment."""

    def debug(self, event: str | None = None, *args: Any, **more: Any) -> Any:
        """Log for who looks closely."""
        return super().debug(event, *args, **more) if self._logger.isEnabledFor(logging.DEBUG) else None

    def info(self, event: str | None = None, *args: Any, **more: Any) -> Any:
        """Log what happens."""
        return super().info(event, *args, **more) if self._logger.isEnabledFor(logging.INFO) else None


def library_log() -> Any:
    """A log that an embedding program shows, or doesn't, by the standard library's logging."""
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        # As libraries do: silent until the program says where a log goes.
        logger.addHandler(logging.NullHandler())
    return structlog.wrap_logger(
        logger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=_LibraryLogger,
        cache_logger_on_first_use=False,
    ).bind()


def command_log(level: str = "info") -> Any:
    """A log of JSON lines on stderr, for the command."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
