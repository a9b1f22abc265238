"""What an auditor checks, without any I/O: a statement as a whole, and each of its lines against the journal.

A statement that is wrong as a whole (signature, root, totals, order, terms) is refused, and nothing of it is paid. A
line that is wrong is disputed, and the rest is paid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Final

import msgspec

from farthing.buyer.audit_records import AuditedStatement, BilledPromise, House, LineDispute, RaisedDispute
from farthing.errors import RemoteProtocolError
from farthing.evm.references import statement_reference
from farthing.ledger.merkle import MerkleTree, leaf_hash
from farthing.mechanisms.batch_credit.evidence import request_of_base
from farthing.mechanisms.batch_credit.verify import KIND, decode_signature, resource_url
from farthing.protocol.clearing import DECIMALS
from farthing.protocol.identity import PaymentIdentity
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import (
    DUPLICATE,
    NOT_AUTHORIZED,
    NOT_DELIVERED,
    WRONG_AMOUNT,
    Statement,
    StatementLine,
)
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import PublicKey

# The rail that is paid here.
USDC: Final = "usdc"
# Statements are rounded to what their rail can pay: half a cent is the most that any rail's unit makes of it.
ROUNDING_MAX: Final = 5_000
# From issue to the end of the authorisation: due date and grace have 90 days at most each.
VALID_MAX_SECONDS: Final = 181 * 86_400
COMMITMENT_PREFIX: Final = "sha256:"
ADJUSTMENT_PREFIX: Final = "adjustment:"
# Of a line's hash, in a dispute's name.
_DISPUTE_DIGITS: Final = 24

_UNSIGNED = re.compile(r"(?:0|[1-9][0-9]{0,77})")
_SIGNED = re.compile(r"(?:0|-?[1-9][0-9]{0,77})")
# Of what the house gives, what may become the name of a file or a part of a URL.
_STATEMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_line_decoder = msgspec.json.Decoder(StatementLine)


class Fault(msgspec.Struct, frozen=True):
    """Why a statement is refused as a whole: a stable code, and what was found."""

    code: str
    detail: str


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement must say, by the payer's own configuration. `treasury` and `keys` empty: as pinned."""

    network: str
    payer: str
    currency: str
    rail_networks: frozenset[str]
    # Tokens that stand for the currency, one to one: (network, address in lower case).
    tokens: frozenset[tuple[str, str]]
    treasury: str = ""
    keys: frozenset[str] = frozenset()


def is_statement_id(text: str) -> bool:
    """Tell whether a name that a house gave is one that files and URLs can hold."""
    return _STATEMENT_ID.fullmatch(text) is not None


def digest_of(jws: str) -> str:
    """The name by which the next statement calls this one: SHA-256 of the JWS, in hex."""
    return hashlib.sha256(jws.encode()).hexdigest()


def payment_id_of(payer: str, commitment_id: str) -> str:
    """How the journal names the promise of a line."""
    return PaymentIdentity(KIND, (payer, commitment_id)).payment_id


def dispute_id(statement: str, line: str) -> str:
    """How the house names the dispute of a line."""
    return f"{statement}.{hashlib.sha256(line.encode()).hexdigest()[:_DISPUTE_DIGITS]}"


def check_signed(  # noqa: PLR0911 - one reason after the other
    jws: str, *, asked: str, keys: Collection[PublicKey], expected: Expected
) -> tuple[Statement, House] | Fault:
    """Check a statement by itself: its signature, and whether all that it says is what this payer can owe."""
    try:
        statement, key_id, signed, signature = open_statement(jws)
    except RemoteProtocolError as error:
        return Fault("unreadable", str(error))
    key = next((each for each in keys if each.thumbprint == key_id), None)
    if key is None or (expected.keys and key_id not in expected.keys):
        return Fault("unknown_key", f"It is signed by the key {key_id[:64]!r}, which is not this house's.")
    if not key.verifies(signature, signed):
        return Fault("invalid_signature", f"The key {key_id} did not sign it.")
    rail = statement.rail
    if rail.name != USDC:
        return Fault("unknown_rail", f"It is to be paid by {rail.name[:32]!r}; only {USDC} is paid here.")
    pairs: dict[str, tuple[object, object]] = {
        "id": (statement.id, asked),
        "network": (statement.network, expected.network),
        "payer": (statement.payer, expected.payer),
        "currency": (statement.currency, expected.currency),
        "decimals": (statement.decimals, DECIMALS),
        "rail.reference": (rail.reference, statement_reference(expected.network, asked)),
    }
    if expected.treasury:
        pairs["rail.pay_to"] = (rail.pay_to.lower(), expected.treasury.lower())
    for name, (said, wanted) in pairs.items():
        if said != wanted:
            return Fault("other_terms", f"Its {name} is {str(said)[:100]!r} instead of {str(wanted)[:100]!r}.")
    if rail.network not in expected.rail_networks or (rail.network, rail.asset.lower()) not in expected.tokens:
        what = f"{rail.asset[:64]} on {rail.network[:64]}"
        return Fault("unknown_token", f"It is to be paid in {what}, which is no {expected.currency} that is paid here.")
    if not statement.issued <= statement.due <= rail.valid_before <= statement.issued + VALID_MAX_SECONDS:
        return Fault("dates", "Its dates are out of order, or further apart than any house's rules.")
    house = House(statement.network, key_id, rail.pay_to.lower(), rail.network, rail.asset.lower())
    return statement, house


def check_house(shown: House, pinned: House, *, expected: Expected) -> Fault | None:
    """Compare what a statement shows of its house with what is on record. What the configuration names counts more."""
    for name in ("key_id", "treasury", "rail_network", "asset"):
        configured = (name == "key_id" and expected.keys) or (name == "treasury" and expected.treasury)
        said, known = getattr(shown, name), getattr(pinned, name)
        if said != known and not configured:
            return Fault(
                "house_changed", f"Its {name} is {said[:100]}; this house's was {known} when it was first seen."
            )
    return None


def check_previous(statement: Statement, newest: AuditedStatement | None) -> Fault | None:
    """Compare the link to the statement before with what was audited last: none is left out, and none replaced."""
    if newest is not None and statement.previous != newest.digest:
        what = f"The statement before it is not {newest.statement} as it was audited: audit them in their order."
        return Fault("other_previous", what)
    return None


class LineReader:
    """Takes a statement's leaves in order, adds them up, and builds their tree; keeps none of them."""

    def __init__(self, statement: Statement) -> None:
        """Begin with none."""
        self._statement = statement
        self._tree = MerkleTree()
        self._gross = self._adjustments = 0
        self._last_id = ""

    def add(self, leaf: bytes) -> tuple[StatementLine, bool] | Fault:  # noqa: PLR0911 - likewise
        """Read a leaf: the line, and whether its id was there just before it (so that it is billed twice)."""
        number = self._tree.size
        self._tree.append(leaf_hash(leaf))
        try:
            line = _line_decoder.decode(leaf)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Fault("line_unreadable", f"Line {number} can't be read: {error}.")
        if line.leaf() != leaf:
            return Fault("line_unreadable", f"Line {number} is not in canonical form.")
        if line.currency != self._statement.currency:
            return Fault("other_terms", f"Line {number} is in {line.currency[:16]!r}.")
        if _UNSIGNED.fullmatch(line.committed) is None or _SIGNED.fullmatch(line.charged) is None:
            return Fault("line_unreadable", f"Line {number} has an amount that is no whole number.")
        adjusts = line.id.startswith(ADJUSTMENT_PREFIX)
        if adjusts != bool(line.adjustment) or not (adjusts or line.id.startswith(COMMITMENT_PREFIX)):
            return Fault("line_unreadable", f"Line {number} is neither a commitment nor an adjustment.")
        charged = int(line.charged)
        if charged < 0 and not adjusts:
            return Fault("line_unreadable", f"Line {number} charges less than nothing.")
        if line.id < self._last_id:
            return Fault("lines_unordered", f"Line {number} stands behind one that comes after it.")
        repeated = line.id == self._last_id
        self._last_id = line.id
        if adjusts:
            self._adjustments += charged
        else:
            self._gross += charged
        return line, repeated

    def finish(self) -> Fault | None:
        """Compare all that came with what the statement says of its lines."""
        said = self._statement
        if self._tree.size != said.count:
            return Fault("other_count", f"It says {said.count} lines, and {self._tree.size} came.")
        if self._tree.root().hex() != said.root:
            return Fault("other_root", "Its Merkle root is not that of its lines.")
        exact = self._gross + self._adjustments
        sums = (int(said.gross), int(said.adjustments), int(said.net) - int(said.rounding))
        if sums != (self._gross, self._adjustments, exact):
            return Fault("other_totals", f"Its sums are not those of its lines, which come to {exact}.")
        if abs(int(said.rounding)) > ROUNDING_MAX:
            return Fault("other_totals", f"It rounds by {said.rounding}, more than any rail needs.")
        return None


def judge_commitment(  # noqa: PLR0911 - likewise
    line: StatementLine, known: BilledPromise | None, *, statement: str, network: str, repeated: bool
) -> LineDispute | None:
    """Judge a line by the journal: what was signed, for whom and how much, and whether a receipt came for it."""
    charged = int(line.charged)
    if repeated:
        return LineDispute(line.id, DUPLICATE, charged, "The line stands in this statement twice.")
    if known is None:
        return LineDispute(line.id, NOT_AUTHORIZED, charged, "The payer's journal has no such commitment.")
    if known.billed_in != statement:
        return LineDispute(line.id, DUPLICATE, charged, f"The statement {known.billed_in} billed it.")
    promise = known.purchase
    signed = {
        "network": (network, promise.network),
        "payee": (line.payee, promise.pay_to),
        "currency": (line.currency, promise.asset),
        "resource": (line.resource.removesuffix("?"), _resource(known)),
    }
    for name, (said, own) in signed.items():
        if said != own:
            what = f"The {name} that was signed is {own[:200]!r}, not {said[:200]!r}."
            return LineDispute(line.id, NOT_AUTHORIZED, charged, what)
    if not line.committed == line.charged == str(promise.amount):
        return LineDispute(line.id, WRONG_AMOUNT, charged, f"What was signed is {promise.amount}.")
    if not known.receipt:
        said = "the page came without a receipt" if promise.delivered else "no page and no receipt came"
        what = f"The payer has no receipt: {said} ({promise.state} {promise.reason})".rstrip()
        return LineDispute(line.id, NOT_DELIVERED, charged, f"{what}.")
    return None


def judge_adjustment(  # noqa: PLR0911 - likewise
    line: StatementLine, known: RaisedDispute | None, *, statement: str, repeated: bool, accepts_decisions: bool
) -> LineDispute | Fault | None:
    """Judge an adjustment by the disputes on record. Less is taken as it is; more only as the end of one of them.

    Once, and exactly what was disputed. A rejected `not_delivered` is owed: the payer signed for it, and the house
    found that it was sent. The house takes no second dispute of any other either; but its word makes no signature,
    so that a fault leaves the statement to a person, who may say that such decisions are accepted.
    """
    charged = int(line.charged)
    if charged <= 0:
        return None
    if repeated:
        return LineDispute(line.id, DUPLICATE, charged, "The line stands in this statement twice.")
    if known is None or line.id != ADJUSTMENT_PREFIX + dispute_id(known.statement, known.line):
        return LineDispute(line.id, NOT_AUTHORIZED, charged, "The payer disputed no such line.")
    if known.adjusted_in != statement:
        return LineDispute(line.id, DUPLICATE, charged, f"The statement {known.adjusted_in} adjusted it.")
    if charged != known.amount:
        return LineDispute(line.id, WRONG_AMOUNT, charged, f"What was disputed is {known.amount}.")
    if known.reason != NOT_DELIVERED and not accepts_decisions:
        what = (
            f"The house rejected the dispute of {known.line} ({known.reason}) and charges {charged}, for which the "
            "journal has no signature. Ask the house why; a person can accept what it decided."
        )
        return Fault("decided_otherwise", what)
    return None


def owed_of(statement: Statement, disputes: Collection[LineDispute]) -> int:
    """What is owed at most: the net sum less all that is disputed; never less than nothing."""
    return max(0, int(statement.net) - sum(each.amount for each in disputes))


def _resource(known: BilledPromise) -> str:
    """The URL of what was signed, as the signature has it."""
    try:
        signature = decode_signature(known.signature) or b""
        scheme = known.purchase.url.partition("://")[0]
        return resource_url(request_of_base(known.base, signature, scheme=scheme))
    except (SignatureInvalid, RemoteProtocolError):
        return ""
