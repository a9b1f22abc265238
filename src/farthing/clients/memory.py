"""Prices that sellers have told: so that the next request of a host can bring its promise along, unasked.

Only offers on credit are remembered, since a promise that is not taken costs nothing, and the policy judges each one
anew. It lives as long as the process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from farthing.protocol.codec import Offer, ReceivedOffers

# Hosts of one crawl that are remembered at once; the one that was longest unused goes first.
HOSTS_MAX: Final = 4_096
# Networks whose payment is signed with its request.
_ON_CREDIT: Final = ("clearing:", "cloudflare:")


class RememberedOffers:
    """The last offers on credit of each host and method. Safe to share between threads."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._lock = threading.Lock()
        self._offers: OrderedDict[tuple[str, str], ReceivedOffers] = OrderedDict()

    def remember(self, authority: str, method: str, received: ReceivedOffers) -> None:
        """Keep what can be promised unasked; what else was offered is left out."""
        offers = tuple(each for each in received.offers if _on_credit(each))
        with self._lock:
            if not offers:
                self._offers.pop((authority, method), None)
                return
            # The resource was another page; the extensions may have been made for it.
            kept = msgspec.structs.replace(
                received, offers=offers, passed_over=(), resource=None, resource_raw=None, extensions={}
            )
            self._offers[authority, method] = kept
            self._offers.move_to_end((authority, method))
            while len(self._offers) > HOSTS_MAX:
                self._offers.popitem(last=False)

    def recall(self, authority: str, method: str) -> ReceivedOffers | None:
        """Give what this host has offered last, or None."""
        with self._lock:
            found = self._offers.get((authority, method))
            if found is not None:
                self._offers.move_to_end((authority, method))
            return found

    def forget(self, authority: str, method: str) -> None:
        """Forget a host's offers: they were not taken."""
        with self._lock:
            self._offers.pop((authority, method), None)


def is_on_credit(network: str) -> bool:
    """Tell whether a network is paid by promises, which need an agent and no wallet."""
    return network.startswith(_ON_CREDIT)


def _on_credit(offer: Offer) -> bool:
    return is_on_credit(offer.requirements.network)
