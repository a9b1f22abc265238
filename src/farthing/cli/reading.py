"""Reads any header of the protocol: which it is, what it says, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec

from farthing.buyer.choice import shown
from farthing.cli.confirm import price_text, view_offer
from farthing.errors import FarthingError, ProtocolError, RemoteProtocolError
from farthing.evm.addresses import checksum_address
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES, SignatureInvalid, recover_address
from farthing.evm.typed_data import Domain
from farthing.mechanisms.exact_evm import NETWORKS, SCHEME, ExactEvmSeller
from farthing.mechanisms.registry import Registry
from farthing.money import show_atomic
from farthing.networks import Networks
from farthing.protocol.codec import (
    decode_payment,
    decode_payment_required,
    decode_settlement,
    pack_json,
    unpack_header,
)
from farthing.protocol.http import PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE
from farthing.protocol.messages import X402_VERSION, PaymentPayload

Facts: TypeAlias = list[tuple[str, str]]

_NAMED = re.compile(
    r"^[<>*\s-]*(?P<name>X-PAYMENT-RESPONSE|X-PAYMENT|PAYMENT-REQUIRED|PAYMENT-SIGNATURE|PAYMENT-RESPONSE)\s*:\s*"
    r"(?P<value>\S+)",
    re.IGNORECASE | re.MULTILINE,
)
# By what only one of the messages has.
_KIND_OF_MEMBER: Final = {"accepts": PAYMENT_REQUIRED, "payload": PAYMENT_SIGNATURE, "success": PAYMENT_RESPONSE}
_SHOWN_MAX_CHARS: Final = 400


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
    members: dict[str, Any] = message if isinstance(message, dict) else {}
    kind = next((kind for member, kind in _KIND_OF_MEMBER.items() if member in members), "")
    if not kind:
        said = "it has none of the members accepts, payload and success"
        raise Unreadable(f"This is none of the protocol's three headers: {said}.", kind=name)
    version = _version(members, name)
    read = _READERS.get((version, kind))
    if read is None:
        raise Unreadable(
            f"This is a {kind} of version {shown(str(version))} of x402; version {X402_VERSION} is read here.",
            kind=kind,
            path="$.x402Version",
        )
    try:
        facts = read(pack_json(data), networks)
    except ProtocolError as error:
        raise Unreadable(shown(str(error)), kind=kind, path=error.path) from None
    if name and name != kind:
        facts.insert(0, ("note", f"it came as {name}, and is a {kind}"))
    return Reading(kind, version, message, facts)


def _version(members: dict[str, Any], name: str) -> int:
    said = members.get("x402Version")
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    # A settlement says no version of its own; only version 1's header has an X.
    return 1 if name.startswith("X-") else X402_VERSION


def _read_required(header: str, networks: Networks) -> Facts:
    received = decode_payment_required(header)
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


def _read_payment(header: str, networks: Networks) -> Facts:
    payment = decode_payment(header)
    view = view_offer(payment.accepted, networks)
    facts: Facts = [("accepts", f"{view.scheme}, {price_text(view, networks)}, to {view.pay_to}")]
    if payment.resource is not None:
        facts.append(("for", shown(payment.resource.url)))
    seller = Registry((ExactEvmSeller(networks),)).find(payment.accepted.scheme, payment.accepted.network)
    if seller is None:
        return [*facts, ("signed", f"only {SCHEME} on {NETWORKS} is read further here")]
    return facts + _read_signed(seller, payment, networks)


def _read_signed(seller: ExactEvmSeller, payment: PaymentPayload, networks: Networks) -> Facts:
    signed = seller.read(payment)
    token = networks.token(signed.network, signed.asset)
    price = f"{show_atomic(signed.amount, token.decimals)} {token.symbol}" if token else f"{signed.amount} atomic units"
    facts: Facts = [
        ("payment", signed.payment_id),
        ("signed", f"{price} from {signed.payer} to {signed.pay_to}"),
        ("window", f"{_time(signed.valid_after)} to {_time(signed.valid_before)}"),
    ]
    if (signed.amount, signed.pay_to.lower()) != (payment.accepted.atomic, payment.accepted.pay_to.lower()):
        facts.append(("note", "what is signed is not what is accepted"))
    return [*facts, ("signer", _signer(signed.detail, payment, signed.payer))]


def _signer(detail: Any, payment: PaymentPayload, payer: str) -> str:
    if len(detail.signature) != SIGNATURE_SIZE_BYTES:
        return f"a contract's signature of {len(detail.signature)} bytes: only the chain can judge it"
    extra = payment.accepted.extra or {}
    name, version = extra.get("name"), extra.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        return "not known: extra has no EIP-712 name and version"
    domain = Domain(name, version, detail.chain_id, detail.token)
    try:
        signer = checksum_address(recover_address(detail.message.digest(domain), detail.signature))
    except SignatureInvalid as error:
        return f"nobody: {shown(str(error))}"
    return f"{signer}, the payer" if signer == payer else f"{signer}, who is NOT the payer {payer}"


def _read_settlement(header: str, networks: Networks) -> Facts:
    settlement = decode_settlement(header)
    facts: Facts = [("success", "yes" if settlement.success else "no")]
    network = networks.find(settlement.network)
    facts.append(("network", f"{network.name} ({settlement.network})" if network else shown(settlement.network)))
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


# What reads which version of which header: a new version is a new line.
_READERS: Final[dict[tuple[int, str], Callable[[str, Networks], Facts]]] = {
    (X402_VERSION, PAYMENT_REQUIRED): _read_required,
    (X402_VERSION, PAYMENT_SIGNATURE): _read_payment,
    (X402_VERSION, PAYMENT_RESPONSE): _read_settlement,
}
