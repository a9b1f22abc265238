"""Reads any header of the protocol: which it is, what it says, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

import msgspec

from farthing.buyer.choice import shown
from farthing.cli.confirm import price_text, view_offer
from farthing.errors import FarthingError, ProtocolError, RemoteProtocolError
from farthing.evm.addresses import checksum_address
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES, SignatureInvalid, recover_address
from farthing.evm.typed_data import Domain, TypedDataInvalid
from farthing.mechanisms.exact_evm import NETWORKS, SCHEME, ExactEvmSeller
from farthing.mechanisms.registry import Registry
from farthing.money import show_atomic
from farthing.networks import Networks
from farthing.protocol.codec import pack_json, unpack_header
from farthing.protocol.http import PAYMENT_REQUIRED
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.versions import CURRENT, VERSIONS, wire_of_version
from farthing.protocol.wire import Wire

Facts: TypeAlias = list[tuple[str, str]]

_NAMES: Final = (PAYMENT_REQUIRED, *(name for wire in VERSIONS for name in (wire.payment_header, wire.response_header)))
_NAMED = re.compile(rf"^[<>*\s-]*(?P<name>{'|'.join(_NAMES)})\s*:\s*(?P<value>\S+)", re.IGNORECASE | re.MULTILINE)
_NOBODY: Final = "0x" + 40 * "0"


class Reading(msgspec.Struct, frozen=True):
    """A header as it was read: `message` is its JSON, `facts` what people want to know of it."""

    kind: str
    version: int
    message: Any
    facts: Facts


class Unreadable(FarthingError):
    """A text that is no header of the protocol, or one that breaks it; `path` is the JSON path of the fault."""

    def __init__(self, message: str, *, kind: str = "", path: str = "$") -> None:
        """Say what is wrong with it."""
        super().__init__(message)
        self.kind = kind
        self.path = path


def find_headers(text: str) -> list[str]:
    """Find the protocol's headers in a dump, or take the whole as one value."""
    found = [f"{match['name'].upper()}: {match['value']}" for match in _NAMED.finditer(text)]
    return found or [text.strip()]


def read_header(text: str, networks: Networks) -> Reading:
    """Read a header: its value, with its name before it or not, or the JSON that it carries. Raises `Unreadable`."""
    named = _NAMED.match(text)
    value, name = (named["value"], named["name"].upper()) if named else (text, "")
    try:
        data = value.encode() if value.startswith("{") else unpack_header(value, what=name or "the header")
    except RemoteProtocolError as error:
        raise Unreadable(shown(str(error)), kind=name, path=error.path) from None
    try:
        message: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{name or 'The header'}: not JSON ({shown(str(error))}).", kind=name) from None
    members = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    found = next((member for member in _READERS if member in members), "")
    if not found:
        said = "it has none of the members accepts, payload and success"
        raise Unreadable(f"This is none of the protocol's three headers: {said}.", kind=name)
    version = _version(members, name)
    wire = wire_of_version(version)
    if wire is None:
        said = f"This is of version {shown(str(version))} of x402, which is not read here."
        raise Unreadable(said, kind=name, path="$.x402Version")
    kind, read = _kind(found, wire), _READERS[found]
    try:
        facts = read(wire, data, networks)
    except ProtocolError as error:
        raise Unreadable(shown(str(error)), kind=kind, path=error.path) from None
    if name and name != kind:
        facts.insert(0, ("note", f"it came as {name}, and is a {kind}"))
    return Reading(kind, version, message, facts)


def _version(members: dict[str, Any], name: str) -> int:
    said = members.get("x402Version")
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    # A settlement says no version; its header's name does.
    return next((wire.version for wire in VERSIONS if wire.response_header == name), CURRENT.version)


def _kind(member: str, wire: Wire) -> str:
    if member == "accepts":
        return PAYMENT_REQUIRED if wire is CURRENT else "402 body"
    return wire.payment_header if member == "payload" else wire.response_header


def _read_required(wire: Wire, data: bytes, networks: Networks) -> Facts:
    # One version offers in a header, another in the body: this is whichever it reads.
    received = wire.read_offers(pack_json(data), b"") or wire.read_offers(None, data)
    if received is None:
        raise RemoteProtocolError("there is no offer in it", path="$.accepts")
    facts: Facts = []
    if received.resource is not None:
        facts.append(("for", shown(received.resource.url)))
    if received.error:
        facts.append(("error", shown(received.error)))
    for offer in received.offers:
        terms, view = offer.requirements, view_offer(offer.requirements, networks)
        facts.append((f"offer {offer.index}", f"{view.scheme}, {price_text(view, networks)}, to {view.pay_to}"))
        facts.append(("", f"authorised for {terms.max_timeout_seconds} s at most"))
    facts += [(f"offer {each.index}", f"can't be read: {shown(each.why)}") for each in received.passed_over]
    if not received.offers and not received.passed_over:
        facts.append(("offers", "none: nothing can be paid now"))
    if received.extensions:
        facts.append(("extensions", ", ".join(shown(each) for each in received.extensions)))
    return facts


def _read_payment(wire: Wire, data: bytes, networks: Networks) -> Facts:
    seller = ExactEvmSeller(networks)
    payments = wire.read_payments(pack_json(data), guesses(networks))
    if not payments:
        return [("signed", "for a network and scheme of which no token is known here (--token …)")]
    if len(payments) > 1 or wire is not CURRENT:
        # It does not say what it accepts. The signature tells which token it was made for.
        fitting = [each for each in payments if _recovered(seller.read(each).detail, each) == seller.read(each).payer]
        return _read_signed(seller, (fitting or list(payments))[0], networks)
    payment = next(iter(payments))
    view = view_offer(payment.accepted, networks)
    facts: Facts = [("accepts", f"{view.scheme}, {price_text(view, networks)}, to {view.pay_to}")]
    if payment.resource is not None:
        facts.append(("for", shown(payment.resource.url)))
    if Registry((seller,)).find(payment.accepted.scheme, payment.accepted.network) is None:
        return [*facts, ("signed", f"only {SCHEME} on {NETWORKS} is read further here")]
    signed = _read_signed(seller, payment, networks)
    said = seller.read(payment)
    if (said.amount, said.pay_to.lower()) != (payment.accepted.atomic, payment.accepted.pay_to.lower()):
        signed.append(("note", "what is signed is not what is accepted"))
    return facts + signed


def guesses(networks: Networks) -> tuple[PaymentRequirements, ...]:
    """What a payment may have accepted that does not say it: any token that we know."""
    return tuple(
        PaymentRequirements(
            scheme=SCHEME,
            network=token.network,
            amount="0",
            asset=token.address,
            pay_to=_NOBODY,
            max_timeout_seconds=0,
            extra={"name": token.eip712_name, "version": token.eip712_version},
        )
        for network in networks
        for token in networks.tokens(network.caip2)
    )


def _read_signed(seller: ExactEvmSeller, payment: PaymentPayload, networks: Networks) -> Facts:
    signed = seller.read(payment)
    token = networks.token(signed.network, signed.asset)
    price = f"{show_atomic(signed.amount, token.decimals)} {token.symbol}" if token else f"{signed.amount} atomic units"
    signer = _recovered(signed.detail, payment)
    if signer == signed.payer:
        signer = f"{signer}, the payer"
    elif signer.startswith("0x"):
        signer = f"{signer}, who is NOT the payer {signed.payer}"
    return [
        ("payment", signed.payment_id),
        ("signed", f"{price} from {signed.payer} to {signed.pay_to}"),
        ("network", _network(signed.network, networks)),
        ("window", f"{_time(signed.valid_after)} to {_time(signed.valid_before)}"),
        ("signer", signer),
    ]


def _recovered(detail: Any, payment: PaymentPayload) -> str:
    """The address that signed, or words that say why there is none."""
    if len(detail.signature) != SIGNATURE_SIZE_BYTES:
        return f"a contract's signature of {len(detail.signature)} bytes: only the chain can judge it"
    extra = payment.accepted.extra or {}
    name, version = extra.get("name"), extra.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        return "not known: extra has no EIP-712 name and version"
    try:
        domain = Domain(name, version, detail.chain_id, detail.token)
        return checksum_address(recover_address(detail.message.digest(domain), detail.signature))
    except (SignatureInvalid, TypedDataInvalid) as error:
        return f"nobody: {shown(str(error))}"


def _read_settlement(wire: Wire, data: bytes, networks: Networks) -> Facts:
    settlement = wire.read_settlement(pack_json(data))
    facts: Facts = [("success", "yes" if settlement.success else "no")]
    facts.append(("network", _network(settlement.network, networks)))
    said = (
        ("transaction", settlement.transaction),
        ("payer", settlement.payer),
        ("amount", settlement.amount),
        ("reason", settlement.error_reason),
        ("message", settlement.error_message),
    )
    return facts + [(name, shown(value)) for name, value in said if value]


def _time(seconds: int) -> str:
    if seconds == 0:
        return "the beginning"
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} (Unix time)"


def _network(name: str, networks: Networks) -> str:
    network = networks.find(name)
    return f"{network.name} ({name})" if network else shown(name)


# By the member that only one of the messages has.
_READERS: Final[dict[str, Callable[[Wire, bytes, Networks], Facts]]] = {
    "accepts": _read_required,
    "payload": _read_payment,
    "success": _read_settlement,
}
