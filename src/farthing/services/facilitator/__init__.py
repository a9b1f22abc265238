"""The facilitator as a service: in the process (`FacilitatorService`), or over HTTP (`make_app`, `serve`)."""

from farthing.services.facilitator.config import Config, load_config, read_config
from farthing.services.facilitator.service import FacilitatorService

__all__ = ["Config", "FacilitatorService", "load_config", "read_config"]
