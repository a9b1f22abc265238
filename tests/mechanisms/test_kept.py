"""What an edge's log keeps of a commitment: written out it is the line to the letter, by later versions too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from farthing.mechanisms.batch_credit import (
    KeptReceipt,
    SignedCommitment,
    judge_line,
    keep,
    pack_kept,
    receipt_for,
    settlement_of,
    sign_receipt,
    unpack_kept,
    written_out,
)
from farthing.mechanisms.batch_credit.kept import KeptCommitment
from farthing.protocol.clearing import Commitment
from farthing.protocol.codec import pack_header
from farthing.signatures import HttpRequest, content_digest

if TYPE_CHECKING:
    from tests.mechanisms.credit_desk import AGENT_KEY, NETWORK, NOW, SELLER_KEY, URL, taken
else:
    from credit_desk import AGENT_KEY, NETWORK, NOW, SELLER_KEY, URL, taken

VECTOR = Path(__file__).parent / "vectors" / "kept_1.json"


def kept_and_line(
    request: HttpRequest, found: SignedCommitment, *, status: int = 200, digest: str | None = None
) -> tuple[KeptCommitment, Commitment]:
    """What is kept of an answered commitment, and its line as it is when nothing is left out."""
    said: dict[str, Any] = {
        "status": status,
        "payment_response": pack_header(settlement_of(found, now_seconds=NOW + 2)),
        "signer": SELLER_KEY,
        "now_seconds": NOW + 2,
        "digest": digest,
    }
    signature = receipt_for(found, request, **said)[2]
    receipt = KeptReceipt(status, digest, SELLER_KEY.public_key.thumbprint, signature)
    whole = found.line(committed=NOW + 2, lease="le-1", receipt=sign_receipt(found, request, **said)[1])
    return keep(found, receipt, committed=NOW + 2, lease="le-1"), whole


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://publisher.example/",
        "http://127.0.0.1:8402/a%20b?x=1&y",
        "https://publisher.example//a/?u=https://other.example/b?c",
    ],
)
@pytest.mark.parametrize(("status", "body"), [(200, b"page"), (201, None)])
def test_C2_what_is_kept_is_the_line_to_the_letter(url: str, status: int, body: bytes | None) -> None:
    request, found = taken(url=url)
    digest = None if body is None else content_digest(body)
    kept, line = kept_and_line(request, found, status=status, digest=digest)
    packed = pack_kept(kept)
    assert written_out(unpack_kept(packed)) == line
    assert len(packed) < len(msgspec.json.encode(line)) * 0.55
    assert judge_line(written_out(kept), AGENT_KEY.public_key, network=NETWORK) is None


def test_what_came_to_pass_later_is_written_out() -> None:
    kept, line = kept_and_line(*taken())
    assert written_out(kept, sent=True) == msgspec.structs.replace(line, sent=True)
    late = msgspec.structs.replace(kept, lapsed=True)
    assert written_out(unpack_kept(pack_kept(late))) == msgspec.structs.replace(line, lapsed=True)


def test_C2_what_was_kept_by_the_first_form_is_written_out_as_it_was_then() -> None:
    """A log may wait for its upload while its edge is brought forward."""
    vector = json.loads(VECTOR.read_text(encoding="utf-8"))
    packed = base64.b64decode(vector["kept"])
    assert json.loads(msgspec.json.encode(written_out(unpack_kept(packed)))) == vector["line"]
    # The same is kept today; where it is not, the form has another number, and this one is read still.
    assert packed == pack_kept(kept_and_line(*taken(), digest=content_digest(b"page"))[0])
