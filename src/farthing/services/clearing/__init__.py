"""The clearing house as a service: in the process (`ClearingService`), or over HTTP (`make_app`, `serve`)."""

from farthing.services.clearing.config import ClearingConfig, load_config, read_config
from farthing.services.clearing.service import ClearingService

__all__ = ["ClearingConfig", "ClearingService", "load_config", "read_config"]
