"""Payments for machines over HTTP 402: buyer, seller, facilitator and a local chain, speaking x402."""

__version__ = "0.1.0"
