"""The buyer as flows and data: policy, choice, journal's effects, and the two flows of a purchase.

The object that joins them with the world is `farthing.clients.Buyer`.
"""

from __future__ import annotations

from farthing.buyer.policy import Policy
from farthing.buyer.purchase import PaidRequest, Terms, prepare
from farthing.buyer.request import PaymentDemand, RequestFacts, describe_request
from farthing.buyer.verdict import NoAnswer, PaidAnswer, Receipt, conclude

__all__ = [
    "NoAnswer",
    "PaidAnswer",
    "PaidRequest",
    "PaymentDemand",
    "Policy",
    "Receipt",
    "RequestFacts",
    "Terms",
    "conclude",
    "describe_request",
    "prepare",
]
