"""The edge as a process: a gate in front of a site, where crawlers pay by promises."""

from __future__ import annotations

from farthing.services.edge.config import EdgeConfig, load_config, read_config
from farthing.services.edge.site import make_site

__all__ = ["EdgeConfig", "load_config", "make_site", "read_config"]
