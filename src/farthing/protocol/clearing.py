"""The clearing network's records: what edges upload, and the credit they ask for.

An upload is gzip of NDJSON: an `UploadHeader`, then `Commitment`s, `KeyRecord`s and `Sent`s in any order, each a JSON
object whose `type` says what it is. What a payer is told (statements, disputes, proofs) stands in
`farthing.protocol.statements`.

A commitment carries all that verifies and bills it for years: the RFC 9421 signature base as it was signed, the
signature, and the thumbprint of a key whose record was uploaded before it or with it. `id` is `sha256:` and the hex
SHA-256 of the base. Amounts are decimal strings of atomic units; times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from farthing.protocol.messages import Amount, Message, Name, Text, Url

# Of one upload. A commitment is some 2 kB of JSON and 250 bytes of gzip; ten thousand are half a second of a busy edge.
UPLOAD_LINES_MAX: Final = 10_000
UPLOAD_MAX_BYTES: Final = 16 * 1024 * 1024
# What an upload may unpack to: gzip makes a thousandfold of nothing, and no honest line is longer than the next bound.
UPLOAD_UNPACKED_MAX_BYTES: Final = 64 * 1024 * 1024
# The largest line is a promise with the longest URL and payment header that any door reads, each in base and receipt.
LINE_MAX_BYTES: Final = 131_072
# A commitment is taken while its signature is open, and durable when the work is done: so long may work take. The edge
# lets go what took longer, and the clearing house refuses it.
COMMITTED_AFTER_MAX_SECONDS: Final = 3_600
# A million dollars at six decimals. Sums of such lines stay far below 2^63, which is what the books' columns hold.
LINE_AMOUNT_MAX: Final = 10**12
# Units of every account here: 6 decimals (PROTOCOL: missing or unexpected is refused).
DECIMALS: Final = 6
CURRENCIES: Final = frozenset({"USD", "EUR"})
# How long an edge may go on with what it heard of an agent's keys: no lease lasts longer, and each tells which of them
# were declared compromised. As long as an edge uses a key before it looks into its directory again.
KEY_CACHE_SECONDS: Final = 900
# Keys of one payer that may be declared: 1.5 kB of each lease. Who loses more has another trouble than its keys.
COMPROMISED_MAX: Final = 32
# A base holds the payment header, which is bounded to 16 KiB, and a URL.
BASE_MAX_CHARS: Final = 32_768
DIRECTORY_MAX_CHARS: Final = 65_536
# A directory's signature headers, which are as long as any structured field may be.
DIRECTORY_FIELD_MAX_CHARS: Final = 8_192

CommitmentId = Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
# RFC 7638 over an Ed25519 key: 43 characters of base64url.
Thumbprint = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
Compromised = Annotated[tuple[Thumbprint, ...], msgspec.Meta(max_length=COMPROMISED_MAX)]
# Base64 of the 64 bytes of an Ed25519 signature.
Signature = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9+/]{86}==\Z")]
Base = Annotated[str, msgspec.Meta(min_length=1, max_length=BASE_MAX_CHARS)]
Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Counter = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
# Names of edges, leases and keys: what stands in logs and paths.
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9._-]+\Z")]


class Signed(Message, frozen=True):
    """Something signed by RFC 9421: the signature base, the signature over it, and the key's thumbprint."""

    base: Base
    signature: Signature
    key: Thumbprint


class UploadHeader(Message, frozen=True, tag_field="type", tag="upload"):
    """The first line: who uploads, in which life of the edge (`epoch`), and which upload it is, from 1 on.

    (edge, epoch, sequence) names an upload for ever: sent again, it is answered as the first time.
    """

    edge: Label
    epoch: Counter
    sequence: Counter


class Commitment(Message, frozen=True, tag_field="type", tag="commitment"):
    """One signed promise to pay later, as the edge that took it passes it on.

    `payer` is the agent's directory URL (an origin for the well-known place); `payee` what the offer called `payTo`;
    `resource` the URL as offered. `created` and `expires` are the signature's, `committed` is when it became durable
    at the edge. `sent` says that the answer went out whole. `over_lease` and `lapsed` flag a commitment beyond its
    lease's amount or time: owed all the same. `receipt` is the edge's own signature over its answer.
    """

    id: CommitmentId
    payer: Url
    payee: Name
    key: Thumbprint
    method: Name
    resource: Url
    amount: Amount
    currency: Currency
    decimals: int
    created: UnixTime
    expires: UnixTime
    committed: UnixTime
    base: Base
    signature: Signature
    lease: str = ""
    sent: bool = False
    over_lease: bool = False
    lapsed: bool = False
    receipt: Signed | None = None


class PublicJwk(msgspec.Struct, frozen=True):
    """An Ed25519 public key (RFC 8037): `x` is base64url of its 32 bytes."""

    kty: Annotated[str, msgspec.Meta(pattern=r"\AOKP\Z")]
    crv: Annotated[str, msgspec.Meta(pattern=r"\AEd25519\Z")]
    x: Thumbprint  # 32 bytes are 43 characters, as a thumbprint is


class KeyRecord(Message, frozen=True, tag_field="type", tag="key"):
    """A key as the edge found it when it was first used: append-only, whatever the directory says later.

    `thumbprint` is that of `jwk`. `answer` is the directory's body as it came, and `signature_input` and `signature`
    its signature headers (empty where the directory signs nothing).
    """

    thumbprint: Thumbprint
    jwk: PublicJwk
    directory: Url
    fetched: UnixTime
    answer: Annotated[str, msgspec.Meta(max_length=DIRECTORY_MAX_CHARS)] = ""
    signature_input: Annotated[str, msgspec.Meta(max_length=DIRECTORY_FIELD_MAX_CHARS)] = ""
    signature: Annotated[str, msgspec.Meta(max_length=DIRECTORY_FIELD_MAX_CHARS)] = ""


class Sent(Message, frozen=True, tag_field="type", tag="sent"):
    """The answer to a commitment that was uploaded before went out whole."""

    payer: Url
    id: CommitmentId


UploadLine: TypeAlias = UploadHeader | Commitment | KeyRecord | Sent

_upload_line_decoder: msgspec.json.Decoder[UploadLine] = msgspec.json.Decoder(UploadLine)


def fits_upload(line: UploadLine) -> bool:
    """Tell whether a clearing house would read this line: one that it can't read spoils the upload that holds it."""
    encoded = msgspec.json.encode(line)
    try:
        _upload_line_decoder.decode(encoded)
    except msgspec.ValidationError:
        return False
    return len(encoded) <= LINE_MAX_BYTES


class RefusedLine(Message, frozen=True):
    """A commitment that will not be billed, and why. `reason` is a code of `farthing.clearing.intake`."""

    id: str
    reason: Name
    detail: Text = ""


class UploadAnswer(Message, frozen=True):
    """What became of an upload. Durable when it is sent: the edge may forget what it uploaded.

    `accepted` lines are billed in `window`; `duplicates` were known already. `repeated` says that the whole upload was.
    """

    edge: Label
    epoch: Counter
    sequence: Counter
    window: str
    accepted: int
    duplicates: int = 0
    refused: tuple[RefusedLine, ...] = ()
    repeated: bool = False


# Credit


class EdgeStarted(Message, frozen=True):
    """An edge's new life: leases are granted to this epoch alone from now on; uploads of older ones still count."""

    edge: Label
    epoch: Counter
    network: Name
    lease_seconds_max: int
    offline_limit_seconds: int


class LeaseRequest(Message, frozen=True):
    """An edge asks for credit of one payer. `amount` is what it would like, `request` a name for repeats of its own.

    Asked again with the same `request` (a lost answer), the edge gets the same lease.
    """

    edge: Label
    epoch: Counter
    request: Label
    payer: Url
    amount: Amount
    currency: Currency
    seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Lease(Message, frozen=True):
    """Credit that an edge may spend without asking: `amount` in all, within `seconds` of its own monotonic clock.

    The clock starts when the request was *sent*, so that the edge's lease is never longer than the clearing house's.
    `warn` says that the payer has used 80 % of its credit. Nothing more is taken under the payer's keys in
    `compromised`, whatever its directory says, nor under an older lease of the same payer.
    """

    lease: Label
    edge: Label
    epoch: Counter
    payer: Url
    amount: Amount
    currency: Currency
    seconds: int
    warn: bool = False
    compromised: Compromised = ()


class LeaseClose(Message, frozen=True):
    """An edge gives a lease back: it will commit nothing more under it.

    `sequence` is the last upload (of this epoch) with a line of the lease, 0 for none; `count` and `total` are what
    the edge committed under it. Closed only when the clearing house has just as many lines. `edge` is whose it is,
    where that is not the token's own.
    """

    lease: Label
    sequence: Counter
    count: Counter
    total: Amount
    edge: str = ""


class LeaseClosed(Message, frozen=True):
    """The answer: `closed`, or not yet, since `missing` lines have not been uploaded."""

    lease: Label
    closed: bool
    missing: int = 0


class Standing(Message, frozen=True):
    """How a payer stands: `state` is `active` or `suspended`. Sums are in atomic units of `currency`.

    `exposure` is what counts against the credit: accrued and invoiced, and what open leases may still spend.
    `compromised` are the payer's keys that nobody takes anything under any more.
    """

    payer: Url
    state: Name
    currency: Currency
    credit_limit: Amount
    prepaid: Amount
    owed: str
    leased: Amount
    exposure: str
    compromised: Compromised = ()
