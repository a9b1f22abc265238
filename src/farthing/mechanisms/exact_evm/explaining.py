"""Why a payment would be refused, member by member: what was signed and what was expected, and what a node says of it.

A verification stops at the first thing that is wrong, since it must be quick. Here everything is looked at, and said.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from farthing.errors import NodeUnavailable
from farthing.evm.abi import AbiInvalid, pack_address, read_string, read_uint, selector
from farthing.evm.addresses import checksum_address
from farthing.evm.calls import (
    DOMAIN_SEPARATOR_CALL,
    NAME_CALL,
    VERSION_CALL,
    authorization_state,
    balance_of,
)
from farthing.evm.hexadecimal import read_data, read_object, read_quantity, write_data
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES, SignatureInvalid, recover_address
from farthing.evm.typed_data import Domain, TypedDataInvalid
from farthing.flow import Flow, Now
from farthing.mechanisms.exact_evm import reasons
from farthing.mechanisms.exact_evm.chain import is_revert
from farthing.mechanisms.exact_evm.near_misses import find_near_miss
from farthing.mechanisms.exact_evm.payload import ExactDetail, read_payment
from farthing.mechanisms.exact_evm.terms import (
    SKEW_SUSPECTED_SECONDS,
    Terms,
    judge_window,
    read_terms,
    settlement_margin_seconds,
)
from farthing.mechanisms.exact_evm.tracing import ExactEvmTracer
from farthing.mechanisms.interface import Refusal, SignedPayment
from farthing.networks import KNOWN, Networks
from farthing.protocol.messages import PaymentPayload, PaymentRequirements

# FiatToken's views, which other tokens need not have.
_PAUSED: Final = selector("paused()")
_IS_BLACKLISTED: Final = selector("isBlacklisted(address)")
# A node's newest block is some seconds old on every chain that we know of.
_STALE_BLOCK_SECONDS: Final = 120


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `verdict`: `ok`, `wrong` (it would be refused for this), or `unknown`.

    `cause` groups what is wrong: `field`, `signature`, `window`, `skew`, `funds`, `nonce`, `block-list`, `pause`,
    `outage` and `contract`; `reason` is the protocol's code, where it has one.
    """

    field: str
    verdict: Literal["ok", "wrong", "unknown"]
    says: str
    signed: str = ""
    expected: str = ""
    cause: str = ""
    reason: str = ""


def explain_payment(
    payment: PaymentPayload,
    requirements: PaymentRequirements,
    *,
    networks: Networks = KNOWN,
    node: str | None = None,
) -> Flow[tuple[Point, ...]]:
    """Look at everything that a facilitator looks at. Yields `Now`, and `AskNode` of `node` where there is one.

    Raises `RemoteProtocolError` for a payload that can't be read.
    """
    signed = read_payment(payment)
    detail: ExactDetail = signed.detail
    terms = read_terms(requirements, networks)
    now_seconds = yield from Now()
    if isinstance(terms, Refusal):
        points = [Point(field="offer", verdict="wrong", says=terms.message, cause="field", reason=terms.reason)]
        terms = _terms_anyway(detail, requirements)
    else:
        points = []
    points += _fields(signed, detail, terms, requirements)
    points.append(_signature(detail, terms, networks))
    points.append(_window(detail, terms, requirements.network, networks, now_seconds))
    if node is not None:
        points += yield from _by_node(signed, detail, terms, node, now_seconds)
    return tuple(points)


def _terms_anyway(detail: ExactDetail, requirements: PaymentRequirements) -> Terms:
    """What was accepted, where the offer itself is wrong: the rest can still be looked at."""
    domain = Domain(detail.name or "", detail.version or "", detail.chain_id, detail.token)
    timeout = requirements.max_timeout_seconds
    return Terms(detail.chain_id, detail.token, detail.message.to, requirements.atomic, timeout, domain)


# What needs nobody.


def _fields(signed: SignedPayment, detail: ExactDetail, terms: Terms, offer: PaymentRequirements) -> list[Point]:
    pairs = (
        ("network", signed.network, offer.network, reasons.NETWORK_MISMATCH),
        ("asset", signed.asset, checksum_address(terms.token), reasons.INVALID_PAYMENT_REQUIREMENTS),
        ("payTo", signed.pay_to, checksum_address(terms.pay_to), reasons.RECIPIENT_MISMATCH),
        ("amount", str(detail.message.value), str(terms.amount), reasons.VALUE_MISMATCH),
        ("extra.name", str(detail.name), terms.domain.name, reasons.TOKEN_NAME_MISMATCH),
        ("extra.version", str(detail.version), terms.domain.version, reasons.TOKEN_VERSION_MISMATCH),
    )
    return [
        Point(field=field, verdict="ok", says=f"{came}", signed=came, expected=expected)
        if came == expected
        else Point(
            field=field,
            verdict="wrong",
            says=f"The payment has {came}, the offer {expected}.",
            signed=came,
            expected=expected,
            cause="field",
            reason=reason,
        )
        for field, came, expected, reason in pairs
    ]


def _signature(detail: ExactDetail, terms: Terms, networks: Networks) -> Point:
    payer = checksum_address(detail.message.from_)
    if len(detail.signature) != SIGNATURE_SIZE_BYTES:
        says = f"It has {len(detail.signature)} bytes, a contract wallet's: only the payer's code can judge it."
        return Point(field="signature", verdict="unknown", says=says)
    try:
        signer = checksum_address(recover_address(detail.message.digest(terms.domain), detail.signature))
    except (SignatureInvalid, TypedDataInvalid) as error:
        signer, why = "nobody", str(error)
    else:
        if signer == payer:
            return Point(field="signature", verdict="ok", says=f"The payer's own, {payer}.", signed=payer)
        why = f"It recovers to {signer}, and the payer is {payer}."
    found = find_near_miss(detail, terms.domain, pay_to=terms.pay_to, amount=terms.amount, networks=networks)
    if found is None:
        says = f"{why} No near miss fits: another key signed it, or something else altogether."
        return _wrong_signature(says, signed=signer, expected=payer)
    says = f"{found.says} ({found.what})"
    return _wrong_signature(says, signed=found.signed, expected=found.expected, field=f"signature: {found.what}")


def _wrong_signature(says: str, *, signed: str, expected: str, field: str = "signature") -> Point:
    return Point(
        field=field,
        verdict="wrong",
        says=says,
        signed=signed,
        expected=expected,
        cause="signature",
        reason=reasons.SIGNATURE,
    )


def _window(detail: ExactDetail, terms: Terms, network: str, networks: Networks, now_seconds: int) -> Point:
    margin = settlement_margin_seconds(network, networks)
    refusal = judge_window(detail.message, terms, now_seconds=now_seconds, margin_seconds=margin)
    window = f"{detail.message.valid_after} to {detail.message.valid_before}"
    if refusal is None:
        return Point(field="window", verdict="ok", says=f"Open: {window}.", signed=window)
    cause = "skew" if "clock skew" in refusal.message else "window"
    return Point(
        field="window",
        verdict="wrong",
        says=refusal.message,
        signed=window,
        expected=f"around {now_seconds}",
        cause=cause,
        reason=refusal.reason,
    )


# What a node says.


def _by_node(
    signed: SignedPayment, detail: ExactDetail, terms: Terms, node: str, now_seconds: int
) -> Flow[list[Point]]:
    token, message = write_data(detail.token), detail.message
    data = {
        "balance": balance_of(message.from_),
        "used": authorization_state(message.from_, message.nonce),
        "payer blocked": _IS_BLACKLISTED + pack_address(message.from_),
        "payee blocked": _IS_BLACKLISTED + pack_address(message.to),
        "paused": _PAUSED,
        "name": NAME_CALL,
        "version": VERSION_CALL,
        "separator": DOMAIN_SEPARATOR_CALL,
    }
    calls = [NodeCall("eth_chainId"), NodeCall("eth_getBlockByNumber", ("latest", False))]
    calls.append(NodeCall("eth_getCode", (token, "latest")))
    calls += [NodeCall("eth_call", ({"to": token, "data": write_data(each)}, "latest")) for each in data.values()]
    try:
        answers = yield from AskNode(node, tuple(calls))
        chain_id, block, code, *views = _whole(answers, len(calls))
        said = dict(zip(data, views, strict=True))
        points = [_chain(detail, chain_id), _clock(block, now_seconds)]
        if read_data(_result(code)) == b"":
            says = f"There is no contract at {signed.asset} on this chain."
            missing = Point(
                field="asset", verdict="wrong", says=says, cause="contract", reason=reasons.ASSET_NOT_DEPLOYED
            )
            return [*points, missing]
        points += [_funds(said["balance"], terms.amount), *_lists(said), *_names(said, terms)]
        points.append((yield from _nonce(signed, said["used"], node, now_seconds)))
    except NodeUnavailable as error:
        says = f"Nobody can say more: {error} That is an outage, and no verdict on the payment."
        return [Point(field="node", verdict="unknown", says=says, cause="outage")]
    return points


def _chain(detail: ExactDetail, answer: Any) -> Point:
    chain_id = read_quantity(_result(answer))
    if chain_id == detail.chain_id:
        return Point(field="chain", verdict="ok", says=f"The node serves chain {chain_id}.")
    message = f"The node serves chain {chain_id}, and the payment is for {detail.chain_id}: ask another node."
    raise NodeUnavailable(message)


def _clock(answer: Any, now_seconds: int) -> Point:
    block_seconds = read_quantity(read_object(_result(answer)).get("timestamp"))
    difference = block_seconds - now_seconds
    if -_STALE_BLOCK_SECONDS <= difference <= SKEW_SUSPECTED_SECONDS // 60:
        return Point(field="clock", verdict="ok", says=f"The newest block is {-difference} s old by this clock.")
    side = "ahead of" if difference > 0 else "behind"
    says = (
        f"The newest block is {abs(difference)} s {side} this clock: one of them is wrong, or the chain stands still."
    )
    return Point(field="clock", verdict="unknown", says=says, cause="skew")


def _funds(answer: Any, amount: int) -> Point:
    balance = _word(answer)
    if balance is None:
        says = "The contract has no balances: it is no token."
        return Point(field="funds", verdict="wrong", says=says, cause="contract", reason=reasons.ASSET_NOT_DEPLOYED)
    if balance >= amount:
        return Point(field="funds", verdict="ok", says=f"The payer has {balance} atomic units.", signed=str(amount))
    return Point(
        field="funds",
        verdict="wrong",
        says=f"The payer has {balance} atomic units, and the payment is {amount}.",
        signed=str(amount),
        expected=f"at most {balance}",
        cause="funds",
        reason=reasons.INSUFFICIENT_FUNDS,
    )


def _lists(said: dict[str, Any]) -> list[Point]:
    points: list[Point] = []
    for name, cause, what in (
        ("payer blocked", "block-list", "The token's issuer has blocked the payer's account."),
        ("payee blocked", "block-list", "The token's issuer has blocked the payee's account."),
        ("paused", "pause", "The token is paused: nobody can transfer it now."),
    ):
        flag = _word(said[name])
        # A token without such a list has nobody on it.
        if flag:
            points.append(Point(field=name, verdict="wrong", says=what, cause=cause, reason=reasons.SIMULATION_FAILED))
        elif flag is not None:
            points.append(Point(field=name, verdict="ok", says="No."))
    return points


def _names(said: dict[str, Any], terms: Terms) -> list[Point]:
    """Compare the contract's own domain with the offer's: a seller that offers another can never be paid."""
    separator = _bytes(said["separator"])
    if separator is None or separator == terms.domain.separator:
        known = separator is not None
        return [Point(field="domain", verdict="ok", says="The contract's own.")] if known else []
    name, version = _text(said["name"]), _text(said["version"])
    says = (
        f"The contract's EIP-712 domain is another than the offer's ({terms.domain.name!r}, version "
        f"{terms.domain.version!r}); it calls itself {name!r}, version {version!r}."
    )
    return [
        Point(
            field="domain",
            verdict="wrong",
            says=says,
            signed=f"{terms.domain.name!r}, {terms.domain.version!r}",
            expected=f"{name!r}, {version!r}",
            cause="field",
            reason=reasons.TOKEN_NAME_MISMATCH,
        )
    ]


def _nonce(signed: SignedPayment, answer: Any, node: str, now_seconds: int) -> Flow[Point]:
    used = _word(answer)
    if used is None:
        says = "The token has no authorizationState: it can't be paid by EIP-3009."
        reason = reasons.EIP3009_NOT_SUPPORTED
        return Point(field="nonce", verdict="wrong", says=says, cause="contract", reason=reason)
    if not used:
        return Point(field="nonce", verdict="ok", says="Unused.")
    says = "It is used: this payment was settled, or cancelled."
    try:
        # Whoever signed it did so before its window closed, and an hour is the longest that is usual.
        begin = min(now_seconds, signed.valid_before) - 4 * 3600
        traced = yield from ExactEvmTracer().trace(signed, node=node, recorded_at=begin)
        at = f" Transaction {traced.transaction}, block {traced.block_number}." if traced.transaction else ""
        says = f"It is used. {traced.says}{at}"
    except NodeUnavailable:
        pass
    return Point(field="nonce", verdict="wrong", says=says, cause="nonce", reason=reasons.NONCE_ALREADY_USED)


def _whole(answers: tuple[Any, ...], expected: int) -> tuple[Any, ...]:
    if len(answers) != expected:
        message = f"The node sent {len(answers)} answers to {expected} calls."
        raise NodeUnavailable(message)
    return answers


def _result(answer: Any) -> Any:
    if isinstance(answer, NodeFailure):
        message = f"The node failed a call with {answer.code}: {ascii(answer.message[:200])[1:-1]}"
        raise NodeUnavailable(message)
    return answer


def _bytes(answer: Any) -> bytes | None:
    """A view's answer; None where the contract has no such view."""
    if isinstance(answer, NodeFailure):
        if is_revert(answer):
            return None
        return read_data(_result(answer))
    return read_data(answer) or None


def _word(answer: Any) -> int | None:
    data = _bytes(answer)
    try:
        return None if data is None else read_uint(data)
    except AbiInvalid:
        return None


def _text(answer: Any) -> str:
    data = _bytes(answer)
    try:
        return "" if data is None else ascii(read_string(data))[1:-1][:64]
    except (AbiInvalid, UnicodeDecodeError):
        return ""
