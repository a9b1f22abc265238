"""Asking somebody before paying: what is asked, and what an approval is bound to (SAFETY B2).

Asked about are a price above the policy's `approve_above`, and a payee that the host did not name before. An approval
is for one request and one offer, to the letter; it expires; and where nobody can be asked the answer is no.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

from farthing.buyer.choice import Candidate
from farthing.buyer.journal import TakeApproval
from farthing.buyer.policy import Policy, show_value
from farthing.errors import PolicyRefused
from farthing.flow import Effect, Flow, Now
from farthing.protocol.messages import PaymentRequirements

Answer: TypeAlias = Literal["yes", "no", "nobody"]
Why: TypeAlias = Literal["price", "payee_changed"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """May this be paid? `value` is in units of 10^-18 of `currency`, `price` the same for people; Unix seconds.

    `approval_id` is the SHA-256 of payer, request and the offer as it came: another price, payee or word is another
    question. `known_payees` are the accounts at which the host was paid before, where that is `why`. The URL and
    whatever else a seller wrote are to be shown with care.
    """

    approval_id: str
    why: tuple[Why, ...]
    method: str
    url: str
    payer: str
    offer: PaymentRequirements
    value: int
    currency: str
    known_payees: tuple[str, ...]
    expires_at: int

    @property
    def price(self) -> str:
        """The price as people read it: `0.05 USD`."""
        return show_value(self.value, self.currency)


class AskApproval(Effect["Answer"], frozen=True):
    """Have somebody agree to exactly this, before `question.expires_at`; `nobody` where there is nobody to ask."""

    question: Question


def approval_id_of(payer: str, request_print: str, best: Candidate) -> str:
    """Name the question about this very request and offer."""
    seen = msgspec.json.encode([payer.lower(), request_print])
    return hashlib.sha256(seen + bytes(best.offer.raw)).hexdigest()


def get_approval(question: Question, policy: Policy, purchase_id: str, now_seconds: int) -> Flow[None]:
    """Use an approval that was given ahead, or ask for one. Raises `PolicyRefused` where there is none in time."""
    if (yield from TakeApproval(question.approval_id, purchase_id, now_seconds)):
        return
    answer = yield from AskApproval(question)
    if answer == "yes":
        answered_at = yield from Now()
        if answered_at <= question.expires_at:
            return
        raise _refused(question, "approval_expired", f"The answer took longer than {policy.approval_seconds} s.")
    said = "Nobody is there to be asked." if answer == "nobody" else "The answer was no."
    code = "approval_needed" if answer == "nobody" else "not_approved"
    raise _refused(question, "payee_changed" if "payee_changed" in question.why and answer == "nobody" else code, said)


def _refused(question: Question, reason: str, said: str) -> PolicyRefused:
    about = [f"it costs {question.price}"] if "price" in question.why else []
    if "payee_changed" in question.why:
        about.append(f"it is to be paid to {question.offer.pay_to[:80]!a}, and the host was paid elsewhere before")
    return PolicyRefused(
        f"This must be agreed to: {', and '.join(about)}. {said}",
        reason=reason,
        advice=f"Nothing was signed. To agree ahead, once: journal.approve({question.approval_id!r}), or "
        f"`farthing payments approve {question.approval_id}`; then send the request again.",
        offer=question.offer,
        approval_id=question.approval_id,
    )
