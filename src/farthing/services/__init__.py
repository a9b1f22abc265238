"""The services: each an application and its wiring, imported as `farthing.services.NAME`."""
