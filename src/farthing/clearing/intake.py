"""Uploads: unpacked within bounds, each line held to the signature base that it carries.

A line is believed for what its base says, and for nothing else: whoever uploads it is the one who is paid for it. What
is checked here costs some microseconds a line and is done before anything is written; the signature itself is checked
for a sample at once, and for every line before a statement asks for it (`farthing.clearing.checking`).
"""

from __future__ import annotations

import binascii
import hashlib
import re
import zlib
from typing import Any, Final

import msgspec

from farthing.errors import RemoteProtocolError
from farthing.protocol.clearing import (
    COMMITTED_AFTER_MAX_SECONDS,
    CURRENCIES,
    DECIMALS,
    LINE_AMOUNT_MAX,
    LINE_MAX_BYTES,
    UPLOAD_LINES_MAX,
    UPLOAD_MAX_BYTES,
    UPLOAD_UNPACKED_MAX_BYTES,
    Commitment,
    KeyRecord,
    RefusedLine,
    Sent,
    UploadHeader,
    UploadLine,
)
from farthing.signatures.agent import read_agents
from farthing.signatures.fields import SignatureInvalid

# Reasons of refusals, each a stable code.
NOT_BOUND: Final = "not_bound"
BAD_SIGNATURE: Final = "bad_signature"
UNKNOWN_PAYER: Final = "unknown_payer"
UNKNOWN_PAYEE: Final = "unknown_payee"
FOREIGN_PAYEE: Final = "foreign_payee"
TOO_LATE: Final = "too_late"
NOT_YET: Final = "not_yet"
WRONG_UNITS: Final = "wrong_units"
KEY_COMPROMISED: Final = "key_compromised"

# Clocks of edge and agent may differ by this: a commitment that was taken before it was made is none.
SKEW_SECONDS: Final = 60
# PROTOCOL: `expires - created` is at most 60 seconds.
LIFETIME_MAX_SECONDS: Final = 60
# A line from a clock a day ahead of ours was never in force.
AHEAD_MAX_SECONDS: Final = 86_400

SENT_FLAG: Final = 1
OVER_LEASE_FLAG: Final = 2
LAPSED_FLAG: Final = 4

_GZIP: Final = 31  # zlib's name for a gzip stream with a window of any size
_COVERED: Final = ('"@method"', '"@authority"', '"@path"', '"@query"', '"signature-agent"', '"payment-signature"')
_SCHEME: Final = "batch-settlement"
_PARAMETER = re.compile(r';(?P<name>[a-z]+)=(?:"(?P<text>[^"]*)"|(?P<number>[0-9]{1,13}))')
_TAG: Final = "web-bot-auth"
_TAG_LAST: Final = f';tag="{_TAG}"'
_PARAMETERS: Final = 5

_line_decoder: msgspec.json.Decoder[UploadLine] = msgspec.json.Decoder(UploadLine)


class _Extra(msgspec.Struct, frozen=True):
    decimals: int


class _Accepted(msgspec.Struct, frozen=True, rename={"pay_to": "payTo"}):
    scheme: str
    network: str
    amount: str
    asset: str
    pay_to: str
    extra: _Extra


class _Payment(msgspec.Struct, frozen=True):
    accepted: _Accepted


_payment_decoder = msgspec.json.Decoder(_Payment)


class IntakeLine(msgspec.Struct, frozen=True, gc=False):
    """A commitment as the store takes it. `position` is its line in the upload, from 0; amounts in atomic units."""

    position: int
    id: str
    payer: str
    payee: str
    key: str
    resource: str
    authority: str
    amount: int
    currency: str
    committed: int
    flags: int
    lease: str


class Upload(msgspec.Struct, frozen=True):
    """An upload, unpacked: what can be billed, what can't, keys and notes.

    `body` is what came, `digest` its SHA-256, `raw` its lines, of which the header is the first.
    """

    header: UploadHeader
    lines: tuple[IntakeLine, ...]
    refused: tuple[RefusedLine, ...]
    keys: tuple[KeyRecord, ...]
    sent: tuple[Sent, ...]
    body: bytes
    digest: str
    raw: list[bytes]


def unpack(body: bytes) -> list[bytes]:
    """Unpack an upload into its lines of JSON. Raises `RemoteProtocolError` for what is over a bound or no gzip."""
    if len(body) > UPLOAD_MAX_BYTES:
        message = f"the upload has {len(body)} bytes; the limit is {UPLOAD_MAX_BYTES}"
        raise RemoteProtocolError(message)
    unpacker = zlib.decompressobj(_GZIP)
    try:
        text = unpacker.decompress(body, UPLOAD_UNPACKED_MAX_BYTES + 1)
    except zlib.error as error:
        message = f"the upload is no gzip: {error}"
        raise RemoteProtocolError(message) from None
    if len(text) > UPLOAD_UNPACKED_MAX_BYTES or not unpacker.eof or unpacker.unused_data:
        message = (
            f"the upload is cut, has something behind its end, or unpacks to over {UPLOAD_UNPACKED_MAX_BYTES} bytes"
        )
        raise RemoteProtocolError(message)
    # Counted before they are taken apart: line breaks alone, 64 MiB of them in 64 KiB, would fill the memory.
    count = text.count(b"\n") + (not text.endswith(b"\n"))
    if not text or count > UPLOAD_LINES_MAX + 1:
        message = f"an upload has a header and at most {UPLOAD_LINES_MAX} lines, not {count} in all"
        raise RemoteProtocolError(message)
    return text.removesuffix(b"\n").split(b"\n")


def decode_line(line: bytes, number: int) -> UploadLine:
    """Read one line of an upload. Raises `RemoteProtocolError` that names it, counting from 0."""
    if len(line) > LINE_MAX_BYTES:
        message = f"a line has {len(line)} bytes; the limit is {LINE_MAX_BYTES}"
        raise RemoteProtocolError(message, path=f"$[{number}]")
    try:
        return _line_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(str(error), path=f"$[{number}]") from None


def read_upload(body: bytes, network: str) -> Upload:
    """Read an upload to `network`. Raises `RemoteProtocolError` where it can't be read: then none of it is taken."""
    raw = unpack(body)
    header = decode_line(raw[0], 0)
    if not isinstance(header, UploadHeader):
        message = "the first line of an upload is its header"
        raise RemoteProtocolError(message, path="$[0]")
    lines: list[IntakeLine] = []
    refused: list[RefusedLine] = []
    keys: list[KeyRecord] = []
    sent: list[Sent] = []
    for number, each in enumerate(raw[1:], 1):
        line = decode_line(each, number)
        if isinstance(line, Commitment):
            taken = bind(line, number, network)
            (lines if isinstance(taken, IntakeLine) else refused).append(taken)  # type: ignore[arg-type]
        elif isinstance(line, KeyRecord):
            keys.append(line)
        elif isinstance(line, Sent):
            sent.append(line)
        else:
            message = "an upload has one header"
            raise RemoteProtocolError(message, path=f"$[{number}]")
    digest = hashlib.sha256(body).hexdigest()
    return Upload(header, tuple(lines), tuple(refused), tuple(keys), tuple(sent), body, digest, raw)


def bind(line: Commitment, position: int, network: str) -> IntakeLine | RefusedLine:
    """Hold a line to its base: id, key, request, price, payee, units and times are the ones that were signed."""
    base = line.base
    if line.id != "sha256:" + hashlib.sha256(base.encode()).hexdigest():
        return RefusedLine(line.id, NOT_BOUND, "the id is not the SHA-256 of the base")
    parts: dict[str, str] = {}
    for each in base.split("\n"):
        name, _, value = each.partition(": ")
        parts[name.partition(";")[0]] = value
    wrong = _wrong_request(line, parts) or _wrong_parameters(line, parts) or _wrong_price(line, parts, network)
    if wrong is not None:
        return RefusedLine(line.id, NOT_BOUND, wrong)
    amount = int(line.amount) if len(line.amount) <= len(str(LINE_AMOUNT_MAX)) else LINE_AMOUNT_MAX + 1
    if amount > LINE_AMOUNT_MAX or line.currency not in CURRENCIES or line.decimals != DECIMALS:
        what = f"amounts are up to {LINE_AMOUNT_MAX} units of {DECIMALS} decimals, in {' or '.join(sorted(CURRENCIES))}"
        return RefusedLine(line.id, WRONG_UNITS, what)
    flags = SENT_FLAG * line.sent + OVER_LEASE_FLAG * line.over_lease + LAPSED_FLAG * line.lapsed
    return IntakeLine(
        position,
        line.id,
        line.payer,
        line.payee,
        line.key,
        line.resource,
        parts['"@authority"'],
        amount,
        line.currency,
        line.committed,
        flags,
        line.lease,
    )


def _wrong_request(line: Commitment, parts: dict[str, str]) -> str | None:
    try:
        method, authority, path = parts['"@method"'], parts['"@authority"'], parts['"@path"']
        query, agent = parts['"@query"'], parts['"signature-agent"']
    except KeyError as missing:
        return f"the base does not cover {missing.args[0]}"
    if line.method != method:
        return "the method is another"
    if line.resource.partition("://")[2] != authority + path + ("" if query == "?" else query):
        return "the resource is another"
    # A string, or a member of a dictionary, which may have parameters; any other way to write it is read as edges do.
    if not agent.startswith(f'"{line.payer}"') and _origin_of(agent) != line.payer:
        return "the agent is another"
    return None


def _origin_of(agent: str) -> str:
    """The origin that a Signature-Agent names: a bare host, another case, a default port; empty where it is none."""
    try:
        found = read_agents(agent)
    except SignatureInvalid:
        return ""
    return found[0].url if len(found) == 1 else ""


def _wrong_parameters(line: Commitment, parts: dict[str, str]) -> str | None:
    value = parts.get('"@signature-params"', "")
    covered, closing, rest = value.partition(")")
    if not closing or any(name not in covered for name in _COVERED):
        return "the signature covers less than a commitment does"
    # As everybody here writes it: five parameters, these first, the tag last. Any other order is read at three times
    # the cost; of one name twice the last counts (RFC 9651, 4.2.3.2).
    usual = f';created={line.created};expires={line.expires};keyid="{line.key}";'
    if not (rest.startswith(usual) and rest.endswith(_TAG_LAST) and rest.count(";") == _PARAMETERS):
        found = {each["name"]: each["text"] or each["number"] for each in _PARAMETER.finditer(rest)}
        if found.get("keyid") != line.key or found.get("tag") != _TAG:
            return "key or tag is another"
        if found.get("created") != str(line.created) or found.get("expires") != str(line.expires):
            return "the times are others"
    if not 0 <= line.expires - line.created <= LIFETIME_MAX_SECONDS:
        return f"a commitment is open for at most {LIFETIME_MAX_SECONDS} seconds"
    if not line.created - SKEW_SECONDS <= line.committed <= line.expires + COMMITTED_AFTER_MAX_SECONDS:
        return "it was taken outside its own window"
    return None


def _wrong_price(line: Commitment, parts: dict[str, str], network: str) -> str | None:
    try:
        accepted = _payment_decoder.decode(binascii.a2b_base64(parts['"payment-signature"'])).accepted
    except (KeyError, ValueError, RecursionError):  # binascii.Error and msgspec.DecodeError are ValueErrors
        return "the payment in the base can't be read"
    signed = (accepted.scheme, accepted.network, accepted.amount, accepted.asset, accepted.pay_to)
    if signed != (_SCHEME, network, line.amount, line.currency, line.payee):
        return "scheme, network, amount, currency or payee is another"
    if accepted.extra.decimals != line.decimals:
        return "the decimals are others"
    return None


def serves(domain: str, authority: str) -> bool:
    """Say whether an authority is a payee's: its domain, or a host below it, on any port the domain does not name."""
    if authority == domain:
        return True
    host = authority.rpartition(":")[0] if ":" in authority and not authority.endswith("]") else authority
    return ":" not in domain and (host == domain or host.endswith("." + domain))


def find_commitment(body: bytes, position: int) -> Commitment:
    """Take one commitment out of a stored upload again. Raises `LookupError`."""
    line: Any = decode_line(unpack(body)[position], position)
    if not isinstance(line, Commitment):
        message = f"Line {position} of the upload is no commitment."
        raise LookupError(message)  # noqa: TRY004 - it is not there, whatever else is
    return line
