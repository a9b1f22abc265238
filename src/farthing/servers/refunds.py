"""The signers that pay refunds: which one is a payment's, by the route that it was paid for, and its signature."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final
from urllib.parse import unquote

from farthing.errors import ConfigError, FarthingError, SignerError
from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address
from farthing.evm.signing import Signer, TypedMessage
from farthing.flow import Effect
from farthing.seller.refunds import FindRefundSigner, SignRefund
from farthing.seller.routes import KNOWN_METHODS, Priced, Route, RouteTable

# What a record's address can have been asked for with.
_METHODS: Final = sorted(KNOWN_METHODS)
# Segments of a prefix under which the application is mounted.
MOUNT_SEGMENTS_MAX: Final = 4


class RefundSigners:
    """Performs `FindRefundSigner` and `SignRefund` by the routes of one seller."""

    def __init__(self, base_url: str, routes: RouteTable, default: Signer | None) -> None:
        """Know the seller's routes; `default` signs for those without a signer of their own. Raises `ConfigError`."""
        self._base_url, self._routes = base_url, routes
        self._default = None if default is None else checked(default)

    @property
    def any(self) -> bool:
        """Whether anybody signs refunds here."""
        return self._default is not None or any(each.refund_signer is not None for each in self._routes.routes)

    def handlers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """Give the handlers, for a `Performer`."""
        return {FindRefundSigner: self.find, SignRefund: self.sign}

    def find(self, effect: FindRefundSigner) -> str | None:
        """Find the signer of what was paid for; None where its routes have none, or do not agree on one."""
        signers = {self._signer_of(route) for route in self._routes_of(effect)}
        return signers.pop() if len(signers) == 1 else None

    def sign(self, effect: SignRefund) -> bytes | Coroutine[Any, Any, bytes]:
        """Sign. A signer across a network has a coroutine to await. Raises `SignerError`."""
        signer = self._by_address(effect.address)
        awaited: Callable[[TypedMessage], Coroutine[Any, Any, bytes]] | None = getattr(signer, "signing", None)
        if awaited is not None:
            return _awaiting(awaited(effect.message), effect.address)
        try:
            return signer.sign_typed_data(effect.message)
        except Exception as error:  # noqa: BLE001 - a signer may raise anything
            raise _failed(effect.address, error) from None

    def _routes_of(self, effect: FindRefundSigner) -> tuple[Route, ...]:
        """Give the routes that may have been paid: the record has the address, and neither method nor mount."""
        base, path = effect.resource[: len(self._base_url)], effect.resource[len(self._base_url) :].partition("?")[0]
        if base != self._base_url or not path.startswith("/"):
            return ()
        path = unquote(path)
        for root_path in _mounts(path):
            matched = (self._routes.match(method, path, root_path) for method in _METHODS)
            priced = {each.route.name: each.route for each in matched if isinstance(each, Priced)}
            paid = tuple(route for route in priced.values() if _was_paid(route, effect))
            if paid:
                return paid
        return ()

    def _signer_of(self, route: Route) -> str | None:
        signer = route.refund_signer or self._default
        return None if signer is None else signer.address

    def _by_address(self, address: str) -> Signer:
        signers = (self._default, *(route.refund_signer for route in self._routes.routes))
        for each in signers:
            if each is not None and each.address == address:
                return each
        message = f"No refund_signer of this seller is {address}."
        raise SignerError(message)


def checked(signer: Signer) -> Signer:
    """See that a signer has what is asked of one. Raises `ConfigError`."""
    try:
        good = checksum_address(parse_address(signer.address)) == signer.address
    except (AttributeError, TypeError, AddressInvalid):
        good = False
    if not good or not callable(getattr(signer, "sign_typed_data", None)):
        message = "refund_signer is no signer: one has `address` (EIP-55) and `sign_typed_data`, as for `Buyer`."
        raise ConfigError(message)
    return signer


async def _awaiting(signing: Coroutine[Any, Any, bytes], address: str) -> bytes:
    try:
        return await signing
    except Exception as error:  # noqa: BLE001 - a signer may raise anything
        raise _failed(address, error) from None


def _failed(address: str, error: Exception) -> FarthingError:
    """Make the error to raise: words that are not ours may hold a secret."""
    if isinstance(error, FarthingError):
        return error
    message = f"The refund_signer {address} failed: {type(error).__name__}."
    return SignerError(message)


def _mounts(path: str) -> Iterator[str]:
    """Give the prefixes under which the application may be mounted, the shortest first."""
    parts = path.split("/")
    for count in range(1, min(len(parts), MOUNT_SEGMENTS_MAX + 2)):
        yield "/".join(parts[:count])


def _was_paid(route: Route, effect: FindRefundSigner) -> bool:
    return route.payment_flow is effect.flow and any(
        way.terms.network == effect.network and way.terms.pay_to.lower() == effect.pay_to.lower() for way in route.ways
    )
