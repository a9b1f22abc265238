"""Prices that sellers have told: so that the next request of a host can bring its promise along, unasked.

Only offers on credit are remembered, since a promise that is not taken costs nothing, and the policy judges each one
anew. It lives as long as the process.

A promise for a page that turns out to be free keeps its place in the budget, since its publisher could bill it yet. So
a folder of the site (`/archive/`) that gave a page for nothing gets no promise unasked until it asks for money.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from farthing.protocol.codec import Offer, ReceivedOffers
from farthing.protocol.payment_identifier import NAME as PAYMENT_IDENTIFIER

# Hosts of one crawl that are remembered at once; the one that was longest unused goes first.
HOSTS_MAX: Final = 4_096
# Folders that gave pages for nothing, over all hosts; the one noted first goes first: a promise finds it again.
FREE_FOLDERS_MAX: Final = 16_384
# Networks whose payment is signed with its request.
_ON_CREDIT: Final = ("clearing:", "cloudflare:")


class RememberedOffers:
    """The last offers on credit of each host and method. Safe to share between threads."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._lock = threading.Lock()
        self._offers: OrderedDict[tuple[str, str], ReceivedOffers] = OrderedDict()
        self._free: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    def remember(self, authority: str, method: str, received: ReceivedOffers, *, url: str = "") -> None:
        """Keep what can be promised unasked; what else was offered is left out. `url` asked for it."""
        offers = tuple(each for each in received.offers if _on_credit(each))
        with self._lock:
            self._free.pop((authority, method, _folder(url)), None)
            if not offers:
                self._offers.pop((authority, method), None)
                return
            # The resource was another page; the extensions may have been made for it, all but that ids are taken.
            kept = msgspec.structs.replace(
                received,
                offers=offers,
                passed_over=(),
                resource=None,
                resource_raw=None,
                extensions=_ids_taken(received.extensions),
            )
            self._offers[authority, method] = kept
            self._offers.move_to_end((authority, method))
            while len(self._offers) > HOSTS_MAX:
                self._offers.popitem(last=False)

    def recall(self, authority: str, method: str, *, url: str = "") -> ReceivedOffers | None:
        """Give what this host has offered last; None where it has offered nothing, or the folder of `url` is free."""
        with self._lock:
            if (authority, method, _folder(url)) in self._free:
                return None
            found = self._offers.get((authority, method))
            if found is not None:
                self._offers.move_to_end((authority, method))
            return found

    def note_free(self, authority: str, method: str, url: str) -> None:
        """Note that a page came for nothing, although a promise was with its request."""
        with self._lock:
            self._free[authority, method, _folder(url)] = None
            while len(self._free) > FREE_FOLDERS_MAX:
                self._free.popitem(last=False)

    def forget(self, authority: str, method: str) -> None:
        """Forget a host's offers: they were not taken."""
        with self._lock:
            self._offers.pop((authority, method), None)


def is_on_credit(network: str) -> bool:
    """Tell whether a network is paid by promises, which need an agent and no wallet."""
    return network.startswith(_ON_CREDIT)


def _ids_taken(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """Give what says that a payment-identifier is taken; an id of the seller's own was for another page."""
    declared: object = extensions.get(PAYMENT_IDENTIFIER)
    info: object = cast("dict[str, object]", declared).get("info") if isinstance(declared, dict) else None
    return {PAYMENT_IDENTIFIER: declared} if isinstance(info, dict) and "id" not in info else {}


def _folder(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[0]


def _on_credit(offer: Offer) -> bool:
    return is_on_credit(offer.requirements.network)
