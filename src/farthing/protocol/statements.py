"""What a payer is told and answers: statements, their lines, proofs, disputes, payments.

A statement is canonical JSON (RFC 8785) under an Ed25519 JWS in compact form (RFC 7515; `alg` EdDSA, RFC 8037), signed
by the clearing house. A line is canonical JSON too, and the leaf of a Merkle tree (RFC 6962) whose root the statement
holds; lines stand in the order of their ids (as text). All amounts are strings of atomic units, since numbers of JSON
are doubles.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from farthing.protocol.canonical import canonical_json, canonical_text
from farthing.protocol.clearing import Commitment, Currency, KeyRecord, UnixTime
from farthing.protocol.messages import Message, Name, PaymentPayload, Text, Url

STATEMENT_TYPE: Final = "farthing-statement+jws"
# Lines are kept, served and proved in runs of this many: a power of two, so that each run is a subtree of RFC 6962.
RUN_LINES: Final = 1_024
# Disputes that come in one request.
DISPUTED_LINES_MAX: Final = 1_000
EVIDENCE_MAX_CHARS: Final = 16_384

# A sum that may be negative, such as one with adjustments: plain digits, no leading zero.
SignedAmount = Annotated[str, msgspec.Meta(pattern=r"\A(?:0|-?[1-9][0-9]{0,77})\Z")]
HexHash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]

NOT_AUTHORIZED: Final = "not_authorized"
NOT_DELIVERED: Final = "not_delivered"
DUPLICATE: Final = "duplicate"
WRONG_AMOUNT: Final = "wrong_amount"
DISPUTE_REASONS: Final = (NOT_AUTHORIZED, NOT_DELIVERED, DUPLICATE, WRONG_AMOUNT)


class StatementLine(msgspec.Struct, frozen=True):
    """One line, all text: the leaf. `committed` is what was promised, `charged` what this statement asks for it.

    `id` is the commitment's, or `adjustment:` and a dispute's; `time` is when it was committed, in Unix seconds.
    `adjustment` is empty for a commitment, else says which line of which statement is corrected and why.
    """

    id: str
    payee: str
    resource: str
    committed: str
    charged: str
    currency: str
    time: str
    adjustment: str = ""

    def leaf(self) -> bytes:
        """The canonical JSON of the line, every member in it: what its leaf's hash is over."""
        return canonical_text(
            {
                "id": self.id,
                "payee": self.payee,
                "resource": self.resource,
                "committed": self.committed,
                "charged": self.charged,
                "currency": self.currency,
                "time": self.time,
                "adjustment": self.adjustment,
            }
        )


class StatementWindow(Message, frozen=True, omit_defaults=False):
    """The clearing window: lines whose upload was committed from `opened` until `closed`."""

    id: str
    opened: UnixTime
    closed: UnixTime


class RailTerms(Message, frozen=True, omit_defaults=False):
    """How the statement can be paid: by the rail `name`.

    `usdc`: an EIP-3009 authorisation on `network` of the token `asset`, `to` the treasury `pay_to`, nonce `reference`
    (0x and 64 digits), `validBefore` at least `valid_before`; one atomic unit of `asset` for each of the account's.
    """

    name: Name
    network: str
    asset: str
    pay_to: str
    reference: str
    valid_before: UnixTime


class Statement(Message, frozen=True, omit_defaults=False):
    """What one payer owes for one window, in one currency.

    `gross` is the sum of all commitments' `charged`, `adjustments` that of the adjustments, `net` both, rounded once to
    what the rail can pay; `rounding` is net less the exact sum. `root` is the Merkle root over the `count` lines.
    `previous` is the SHA-256 of the payer's statement before (its JWS, as text), empty for the first.
    """

    id: str
    network: str
    payer: str
    currency: Currency
    decimals: int
    window: StatementWindow
    count: int
    gross: SignedAmount
    adjustments: SignedAmount
    rounding: SignedAmount
    net: SignedAmount
    root: HexHash
    previous: str
    issued: UnixTime
    due: UnixTime
    dispute_until: UnixTime
    rail: RailTerms

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self)


class StatementStatus(Message, frozen=True, omit_defaults=False):
    """Where a statement stands. `disputed` lines are held; `payable` is what is asked for now; both in atomic units."""

    statement: str
    payer: str
    window: str
    currency: Currency
    state: Name
    net: SignedAmount
    disputed: SignedAmount
    payable: SignedAmount
    due: UnixTime
    transaction: str = ""


class StatementAnswer(Message, frozen=True):
    """A statement as it is served: the JWS, and where it stands (which is not signed, since it changes)."""

    jws: str
    status: StatementStatus


class StatementPayment(Message, frozen=True):
    """The payer accepts a statement less its disputed lines, and pays it.

    By `usdc`: an x402 payment of scheme `exact` for `payable`, under the terms of the statement's rail. `prepaid`
    takes it from the account's own balance instead.
    """

    payment: PaymentPayload | None = None
    prepaid: bool = False


class DisputedLine(Message, frozen=True):
    """One line that the payer does not accept."""

    id: Name
    reason: Name
    evidence: Annotated[str, msgspec.Meta(max_length=EVIDENCE_MAX_CHARS)] = ""


class DisputeRequest(Message, frozen=True):
    """Lines of one statement that the payer disputes. Sent again, a line stays disputed once.

    Refused whole with `unknown_line`, `too_late`, `payment_under_way` (a signed payment may still settle), or
    `already_decided`: an adjustment charges what a rejected dispute held, and that decision is final.
    """

    lines: Annotated[tuple[DisputedLine, ...], msgspec.Meta(min_length=1, max_length=DISPUTED_LINES_MAX)]


class Dispute(Message, frozen=True, omit_defaults=False):
    """A dispute of one line: `state` is `open`, `granted` (the payer is right) or `rejected` (the charge stands)."""

    dispute: str
    statement: str
    line: str
    payee: str
    reason: Name
    amount: SignedAmount
    state: Name
    opened: UnixTime
    note: Text = ""


class Proof(Message, frozen=True, omit_defaults=False):
    """That one line is in a statement, and that the payer signed for it.

    `path` are the hashes from the leaf up, in hex (RFC 6962, 2.1.1). `commitment` and `keys` are the evidence as the
    edge uploaded it; an adjustment has none.
    """

    statement: str
    index: int
    count: int
    root: HexHash
    line: dict[str, str]
    path: tuple[HexHash, ...]
    commitment: Commitment | None = None
    key: KeyRecord | None = None


class PayeeStatus(Message, frozen=True, omit_defaults=False):
    """How a payee stands, in atomic units: accrued (no payer has paid for it yet), cleared (to be paid out), paid.

    `guaranteed` says whether the reserve stands in for payers of the statements that are issued from now on. `borne` is
    what the network owes itself, for promises under a payer's compromised key: the reserve pays it.
    """

    payee: str
    currency: Currency
    accrued: SignedAmount
    held: SignedAmount
    cleared: SignedAmount
    instructed: SignedAmount
    paid: SignedAmount
    guaranteed: bool = False
    borne: SignedAmount = "0"


class Problem(Message, frozen=True):
    """Problem details (RFC 9457) of the clearing house: `reason` is a stable code, `advice` says what to do next."""

    type: Url
    title: Text
    status: int
    detail: Text
    reason: Name = ""
    path: Text = ""
    advice: Text = ""
    extra: dict[str, Any] | None = None
