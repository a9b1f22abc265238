"""The buyer's doors, and the buyer that they pay with.

from farthing.clients import Buyer, Policy, signer_from_env
from farthing.clients.httpx import PayingTransport       # httpx2 and httpx, sync and async
from farthing.clients.requests import paying_session
"""

from __future__ import annotations

from farthing.buyer.policy import Policy
from farthing.buyer.verdict import Receipt
from farthing.clients.buyer import Buyer
from farthing.clients.reconcile import Reconciliation
from farthing.world.journal import Journal
from farthing.world.keys import signer_from_env, signer_from_file

__all__ = ["Buyer", "Journal", "Policy", "Receipt", "Reconciliation", "signer_from_env", "signer_from_file"]
