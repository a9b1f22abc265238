"""What `-v` tells on stderr: request, 402, payment and receipt, step by step, without a secret and without money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from farthing.cli.confirm import price_text, view_offers
from farthing.cli.terminal import Terminal
from farthing.protocol.versions import PAYMENT_HEADERS

if TYPE_CHECKING:
    from farthing.buyer.events import Event
    from farthing.networks import Networks

# Credentials are sent, and not shown. A signed payment is money until it is settled.
_SECRET_HEADERS: Final = PAYMENT_HEADERS | {"authorization", "cookie", "proxy-authorization", "x-api-key", "set-cookie"}
_SHOWN_MAX_CHARS: Final = 160


class Narrator:
    """Tells what happens, where it was asked to."""

    def __init__(self, terminal: Terminal, networks: Networks, *, verbose: bool) -> None:
        """Tell it to `terminal` where `verbose`."""
        self._terminal = terminal
        self._networks = networks
        self._verbose = verbose

    def request(self, method: str, url: str, headers: Iterable[tuple[str, str]]) -> None:
        """A request leaves."""
        if self._verbose:
            self._terminal.say(f"> {method} {url}")
            self._headers(">", headers)

    def response(self, status: int, phrase: str, headers: Iterable[tuple[str, str]]) -> None:
        """An answer came."""
        if self._verbose:
            self._terminal.say(f"< {status} {phrase}".rstrip())
            self._headers("<", headers)

    def event(self, event: Event) -> None:
        """A step of the purchase."""
        from farthing.buyer.events import Offered, Paying, Signing  # noqa: PLC0415 - heavy only when run

        if not self._verbose:
            return
        if isinstance(event, Offered):
            for view in view_offers(event.received, self._networks):
                self._terminal.say(f"* offer: {view.scheme}, {price_text(view, self._networks)}, to {view.pay_to}")
        elif isinstance(event, Signing):
            self._typed(event.typed)
        elif isinstance(event, Paying):
            self._terminal.say(f"* payment: {event.paid.payment_id}, {len(event.paid.header)} bytes, on record")
        else:
            result: Any = event.result
            state = getattr(result, "state", type(result).__name__)
            transaction = getattr(result, "transaction", "")
            self._terminal.say(f"* receipt: {state}{', transaction ' + transaction if transaction else ''}")

    def _typed(self, typed: Mapping[str, Any]) -> None:
        domain = typed["domain"]
        self._terminal.say(
            f"* signing: {typed['primaryType']} for {domain['name']} {domain['version']}, chain {domain['chainId']}, "
            f"contract {domain['verifyingContract']}"
        )
        for name, value in typed["message"].items():
            self._terminal.say(f"*   {name}: {value}")

    def _headers(self, mark: str, headers: Iterable[tuple[str, str]]) -> None:
        for name, value in headers:
            secret = name.lower() in _SECRET_HEADERS
            shown = f"({len(value)} characters)" if secret else value
            more = f"… ({len(shown)} characters)" if len(shown) > _SHOWN_MAX_CHARS else ""
            self._terminal.say(f"{mark} {name}: {shown[:_SHOWN_MAX_CHARS]}{more}")
