"""The HTTP of the clearing house as a table: doors, who may go in, what is sent and what comes back.

The application serves what stands here, and `/openapi.json` describes it from the same rows.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from farthing.protocol.clearing import (
    UPLOAD_MAX_BYTES,
    Counter,
    Currency,
    EdgeStarted,
    Label,
    Lease,
    LeaseClose,
    LeaseClosed,
    LeaseRequest,
    Standing,
    Thumbprint,
    UnixTime,
    UploadAnswer,
)
from farthing.protocol.codec import BODY_MAX_BYTES
from farthing.protocol.messages import URL_MAX_CHARS, Amount, Message, Name, Text, Url
from farthing.protocol.statements import (
    Dispute,
    DisputeRequest,
    PayeeStatus,
    Proof,
    StatementAnswer,
    StatementPayment,
    StatementStatus,
)
from farthing.services.clearing.callers import EDGE, OPERATOR, PAYEE, PAYER

# A thousand disputes with some words of evidence each. No other request's JSON is longer than a payment's may be: what
# is read out of it (`extra`, `extensions`) can take twenty times its bytes.
DISPUTES_MAX_BYTES: Final = 4 * 1024 * 1024
# Of a part of a path: an id of a line has 75 characters, an authority 253. Of one in a query: a directory is a URL.
PART_MAX_CHARS: Final = 300
QUERY_MAX_CHARS: Final = URL_MAX_CHARS
# Of a payer's directory, which is an origin: a scheme, a name of 253, a port. PostgreSQL's indexes take no long texts.
ORIGIN_MAX_CHARS: Final = 300
# Entries of a page.
PAGE_MAX: Final = 100


class PayerRequest(Message, frozen=True):
    """Open a payer's account, or change its credit limit (atomic units)."""

    payer: Annotated[str, msgspec.Meta(max_length=ORIGIN_MAX_CHARS)]
    credit_limit: Amount
    currency: Currency = "USD"


class PayerStateRequest(Message, frozen=True):
    """Suspend a payer (`suspended`), or let it go on (`active`)."""

    payer: Url
    state: Annotated[str, msgspec.Meta(pattern=r"\A(?:active|suspended)\Z")]
    why: Text = ""


class KeyRequest(Message, frozen=True):
    """Declare a payer's key compromised, by its RFC 7638 thumbprint: nobody takes a promise under it any more.

    `payer` is whose key it is, left out by a payer itself. `since` is when it was compromised (Unix seconds; left out:
    now); it is put on record, and what was promised before we were told is owed all the same.
    """

    thumbprint: Thumbprint
    payer: Annotated[str, msgspec.Meta(max_length=ORIGIN_MAX_CHARS)] = ""
    since: UnixTime | None = None


class KeyAnswer(Message, frozen=True, omit_defaults=False):
    """A key that was declared compromised: what was declared first stands. Times in Unix seconds.

    Lines that edges committed after `billed_until` are not the payer's.
    """

    payer: str
    thumbprint: str
    since: int
    declared: int
    declared_by: str
    billed_until: int


class PayeeRequest(Message, frozen=True):
    """Open a payee's account: its name in offers, its domain, and the address on chain that payouts go to."""

    payee: Name
    domain: Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=r"\A[a-z0-9.:\[\]-]+\Z")]
    address: Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-fA-F]{40}\Z")]
    currency: Currency = "USD"


class PayeeAnswer(Message, frozen=True, omit_defaults=False):
    """A payee's account. `challenge` is what its domain must show before anything is paid out."""

    payee: str
    domain: str
    address: str
    currency: str
    challenge: str
    proved: bool
    guaranteed: bool = False


class TokenRequest(Message, frozen=True):
    """Make a bearer token. `subject` is a payer's directory, or the payees that an edge bills for (by spaces)."""

    name: Label
    role: Annotated[str, msgspec.Meta(pattern=r"\A(?:edge|payer|payee|operator)\Z")]
    subject: Text = ""


class TokenAnswer(Message, frozen=True):
    """The token, which is shown this once."""

    name: str
    token: str


class DecisionRequest(Message, frozen=True):
    """Grant a dispute (the payer is right) or reject it (the charge stands)."""

    granted: bool
    note: Text = ""


class AssignRequest(Message, frozen=True):
    """Give money in suspense to a payer's balance."""

    transaction: Text
    log_index: Counter
    payer: Url


class WindowAnswer(Message, frozen=True):
    """The window that was closed; empty where its time is not over."""

    closed: str = ""


class Entries(Message, frozen=True, omit_defaults=False):
    """A page of a list; `next` is what to ask for after it, empty at the end."""

    entries: tuple[dict[str, Any], ...]
    next: str = ""


class Done(Message, frozen=True, omit_defaults=False):
    """It is done."""

    done: bool = True


class ReserveStatus(Message, frozen=True, omit_defaults=False):
    """How the reserve of a currency stands, in atomic units: `reserve` is in it, `recourse` is what payers owe to it.

    `guaranteed` is what it may have to pay for statements that are not paid; of that, `uncovered` is in default and
    waits for more to be in it.
    """

    reserve: Amount
    currency: Currency
    recourse: Amount
    guaranteed: Amount
    uncovered: Amount


class FundRequest(Message, frozen=True):
    """Move money in suspense to the reserve: transaction and log of its transfer, as `/lists/movements` has them."""

    transaction: Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-f]{64}\Z")]
    log_index: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class TakeRequest(Message, frozen=True):
    """Take `amount` out of the reserve, to be paid out to `payee`, an account of the operator's own.

    What the reserve guarantees of statements that are issued and not paid stays in it.
    `request` is a name of the operator's for it: sent again under the same name, nothing is taken a second time.
    """

    request: Label
    amount: Annotated[str, msgspec.Meta(pattern=r"\A[1-9][0-9]{0,14}\Z")]
    payee: Name


class GuaranteeRequest(Message, frozen=True):
    """Guarantee a payee's shares of the statements that are issued from now on (`true`), or no more (`false`)."""

    guaranteed: bool


class Door(msgspec.Struct, frozen=True):
    """One endpoint. `handler` names the method that serves it; `roles` empty means that anybody may ask.

    `takes` is the struct of a JSON body, `gives` that of the answer (None: another media type, named by `media`).
    `other_media` are what may come instead. `body_max_bytes` is for doors that take a body: `takes`, or an upload.
    """

    method: str
    path: str
    handler: str
    roles: tuple[str, ...]
    summary: str
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None
    many: bool = False
    media: str = "application/json"
    other_media: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    body_max_bytes: int = BODY_MAX_BYTES

    @property
    def takes_upload(self) -> bool:
        """Whether the body is an upload, which no struct describes whole."""
        return self.handler == "upload"


_PAYERS = (PAYER, OPERATOR)
_EDGES = (EDGE,)
_PAYEES = (PAYEE, OPERATOR)
_OPS = (OPERATOR,)

DOORS: Final = (
    Door("POST", "/edges/{edge}/start", "start_edge", _EDGES, "Begin a new life of an edge", None, EdgeStarted),
    Door("POST", "/leases", "grant_lease", _EDGES, "Ask for credit of a payer", LeaseRequest, Lease),
    Door("POST", "/leases/close", "close_lease", _EDGES, "Give a lease back", LeaseClose, LeaseClosed),
    Door(
        "POST",
        "/uploads",
        "upload",
        _EDGES,
        "Upload commitments (gzip of NDJSON)",
        None,
        UploadAnswer,
        body_max_bytes=UPLOAD_MAX_BYTES,
    ),
    Door(
        "GET", "/standing", "standing", (EDGE, PAYER, OPERATOR), "How a payer stands", None, Standing, query=("payer",)
    ),
    Door(
        "GET",
        "/statements",
        "statements",
        _PAYERS,
        "List statements",
        None,
        StatementStatus,
        many=True,
        query=("after", "state", "payer"),
    ),
    Door("GET", "/statements/{statement}", "statement", _PAYERS, "A statement, signed", None, StatementAnswer),
    Door(
        "GET",
        "/statements/{statement}/lines",
        "lines",
        _PAYERS,
        "Its lines: NDJSON of leaves, or CSV (?format=csv)",
        media="application/x-ndjson",
        other_media=("text/csv",),
        query=("format",),
    ),
    Door("GET", "/statements/{statement}/page", "page", _PAYERS, "A page for people", media="text/html"),
    Door("GET", "/statements/{statement}/proofs/{line}", "proof", _PAYERS, "Prove a line", None, Proof),
    Door(
        "GET",
        "/statements/{statement}/disputes",
        "disputes",
        _PAYERS,
        "Its disputes",
        None,
        Dispute,
        many=True,
        query=("after",),
    ),
    Door(
        "POST",
        "/statements/{statement}/disputes",
        "dispute",
        (PAYER,),
        "Dispute lines",
        DisputeRequest,
        Dispute,
        many=True,
        body_max_bytes=DISPUTES_MAX_BYTES,
    ),
    Door(
        "POST",
        "/statements/{statement}/payment",
        "pay",
        (PAYER,),
        "Accept a statement and pay it",
        StatementPayment,
        StatementStatus,
    ),
    Door("GET", "/payees/{payee}", "payee", _PAYEES, "How a payee stands", None, PayeeStatus),
    Door("POST", "/payees/{payee}/prove", "prove", _PAYEES, "Look for the domain's proof", None, PayeeAnswer),
    Door("POST", "/payers", "register_payer", _OPS, "Open a payer's account", PayerRequest, Standing),
    Door("POST", "/payers/state", "payer_state", _OPS, "Suspend a payer, or not", PayerStateRequest, Done),
    Door("POST", "/payers/keys", "declare_key", _PAYERS, "Declare a key compromised", KeyRequest, KeyAnswer),
    Door("POST", "/payees", "register_payee", _OPS, "Open a payee's account", PayeeRequest, PayeeAnswer),
    Door("POST", "/tokens", "make_token", _OPS, "Make a bearer token", TokenRequest, TokenAnswer),
    Door("POST", "/tokens/{name}/revoke", "revoke_token", _OPS, "Revoke a token", None, Done),
    Door("POST", "/disputes/{dispute}", "decide", _OPS, "Decide a dispute", DecisionRequest, Dispute),
    Door("POST", "/window/close", "close_window", _OPS, "Close the open window now", None, WindowAnswer),
    Door("POST", "/suspense", "assign", _OPS, "Give money in suspense to a payer", AssignRequest, Done),
    Door("GET", "/reserve", "reserves", _OPS, "How the reserve stands", None, ReserveStatus, many=True),
    Door("POST", "/reserve/fund", "fund", _OPS, "Move money in suspense to the reserve", FundRequest, Done),
    Door("POST", "/reserve/take", "take_out", _OPS, "Take money out of the reserve", TakeRequest, Done),
    Door(
        "POST",
        "/payees/{payee}/guarantee",
        "guarantee",
        _OPS,
        "Guarantee a payee, or not",
        GuaranteeRequest,
        PayeeAnswer,
    ),
    Door("GET", "/balances", "balances", _OPS, "The books", media="application/json", query=("pending",)),
    Door("GET", "/lists/{what}", "list_", _OPS, "Accounts, windows, payouts …", None, Entries, query=("after",)),
    Door("GET", "/.well-known/farthing-clearing-keys", "keys", (), "The keys that sign statements (JWKS)"),
    Door("GET", "/healthz", "health", (), "Whether the store answers"),
    Door("GET", "/openapi.json", "document", (), "This document"),
)
