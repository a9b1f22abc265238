"""A clearing house of paper: it signs what a test has it say. The journal and the auditor's flows are the real ones."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from farthing.buyer.audit import Expected, dispute_id
from farthing.buyer.audit_flow import Audit, Conclusion, Plan, audit, conclude
from farthing.buyer.audit_house import (
    FetchKeys,
    FetchLines,
    FetchStatement,
    HouseAway,
    HouseRefused,
    LeafPage,
    ListStatuses,
    ReadLeaves,
    SendDisputes,
    SendStatementPayment,
)
from farthing.buyer.journal import Promise, RecordOutcome, RecordPayment, Reserve
from farthing.evm.references import statement_reference
from farthing.evm.signatures import PrivateKey
from farthing.flow import Flow, Now, RandomBytes, drive
from farthing.ledger.merkle import leaf_hash, root_of
from farthing.mechanisms.batch_credit.buyer import Agent, BatchCreditBuyer
from farthing.mechanisms.exact_evm import ExactEvmSeller
from farthing.mechanisms.interface import RequestToBind
from farthing.networks import KNOWN
from farthing.protocol.codec import encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.signed_statements import compact, signing_input
from farthing.protocol.statements import (
    Dispute,
    RailTerms,
    Statement,
    StatementAnswer,
    StatementLine,
    StatementStatus,
    StatementWindow,
)
from farthing.signatures.keys import SignData, SigningKey
from farthing.world.journal import Journal
from farthing.world.keys import LocalSigner, signer_handlers
from farthing.world.performers import Performer

NETWORK = "clearing:test"
AGENT = "https://crawler.example"
SELLER = "https://news.example"
TOKEN = next(iter(KNOWN.tokens("eip155:84532")))
TREASURY = PrivateKey(b"\x01" * 32).address.lower()
NOON = 1_767_614_400
DAY = 86_400
PRICE = 10_000


class Desk:
    """The house, the journal and the auditor."""

    def __init__(self, journal: Path | str) -> None:
        self.journal = Journal(journal)
        self.now = NOON
        self.key = SigningKey(b"\x09" * 32)
        self.agent_key = SigningKey(b"\x07" * 32)
        self.signer = LocalSigner(b"\x03" * 32)
        self.answers: dict[str, StatementAnswer] = {}
        self.leaves: dict[str, list[bytes]] = {}
        self.statements: dict[str, Statement] = {}
        self.payments: list[Any] = []
        self.disputed: dict[str, dict[str, str]] = {}
        self.away = False
        self.refuses = ""
        self._made = 0
        self.plan = self.planned()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.journal.close()

    def planned(self, **changes: Any) -> Plan:
        expected: dict[str, Any] = {
            "network": NETWORK,
            "payer": AGENT,
            "currency": "USD",
            "rail_networks": frozenset({TOKEN.network}),
            "tokens": frozenset({(TOKEN.network, TOKEN.address.lower())}),
        }
        limits: dict[str, Any] = {"per_statement": 10_000_000, "per_window": 10_000_000, "window_seconds": DAY}
        account = {"account": self.signer.address}
        plan: dict[str, Any] = {**limits, **account, **{name: changes.pop(name) for name in [*changes] if name in PLAN}}
        return Plan(expected=Expected(**{**expected, **changes}), networks=KNOWN, **plan)

    # The journal

    def run(self, flow: Flow[Any]) -> Any:
        handlers: dict[Any, Any] = {
            Now: lambda _: self.now,
            RandomBytes: lambda effect: bytes(effect.size_bytes),
            SignData: lambda effect: self.agent_key.sign(effect.data),
            **signer_handlers(self.signer),
            **self.journal.handlers(),
            **self.journal.audit_handlers(),
            FetchKeys: lambda _: (self.key.public_key,),
            ListStatuses: self._list,
            FetchStatement: self._fetch,
            FetchLines: lambda _: None,
            ReadLeaves: self._read,
            SendDisputes: self._dispute,
            SendStatementPayment: self._pay,
        }
        return drive(flow, Performer(handlers).blocking)

    def promise(self, path: str = "", *, receipt: bool = True, amount: int = PRICE) -> StatementLine:
        """Promise to pay for a page, as a buyer does, and give the line of an honest house."""
        line: StatementLine = self.run(self._promise(path, receipt=receipt, amount=amount))
        return line

    def _promise(self, path: str, *, receipt: bool, amount: int) -> Flow[StatementLine]:
        self._made += 1
        url = f"{SELLER}/{self._made}{path}"
        purchase, offer = f"purchase-{self._made}", offered(amount)
        place: dict[str, Any] = {
            "method": "GET",
            "url": url,
            "host": "news.example",
            "request_print": purchase,
            "payer": AGENT,
        }
        terms: dict[str, Any] = {
            "scheme": offer.scheme,
            "network": NETWORK,
            "asset": "USD",
            "pay_to": "news",
            "amount": amount,
        }
        yield from Reserve(
            purchase_id=purchase,
            currency="USD",
            value=amount * 10**12,
            limits=(),
            now_seconds=self.now,
            **place,
            **terms,
        )
        buyer = BatchCreditBuyer(Agent(AGENT, self.agent_key.public_key.thumbprint))
        made = yield from buyer.pay(offer, payer="", nonce=hashlib.sha512(purchase.encode()).digest())
        header = base64.b64encode(encode_json(PaymentPayload(offer, msgspec.Raw(encode_json(made.payload))))).decode()
        bound = yield from buyer.bind(made, offer, RequestToBind("GET", url, ""), payment_header=header)
        yield from RecordPayment(
            purchase_id=purchase,
            payment_id=bound.signed.payment_id,
            fingerprint="",
            header=header,
            valid_before=bound.signed.valid_before,
            now_seconds=self.now,
            promise=Promise(bound.promise_id, bound.headers, bound.evidence),
        )
        yield from RecordOutcome(
            purchase_id=purchase,
            outcome="settled" if receipt else "unknown",
            delivered=receipt,
            transaction="",
            reason="",
            now_seconds=self.now,
            receipt=bound.evidence if receipt else None,
        )
        self.journal.end(purchase)
        return StatementLine(bound.promise_id, "news", url, str(amount), str(amount), "USD", str(self.now))

    # The house

    def issue(self, lines: list[StatementLine], *, number: int = 1, previous: str | None = None, **changes: Any) -> str:
        """Sign a statement over lines, true but for `changes`."""
        name = f"st-{number:06d}-0123456789abcdef"
        leaves = [line.leaf() for line in sorted(lines, key=lambda line: line.id)]
        gross = sum(int(line.charged) for line in lines if not line.adjustment)
        adjustments = sum(int(line.charged) for line in lines if line.adjustment)
        before = self.answers.get(f"st-{number - 1:06d}-0123456789abcdef")
        link = "" if before is None else hashlib.sha256(before.jws.encode()).hexdigest()
        closed = NOON + number * DAY
        rail: dict[str, Any] = {"name": "usdc", "network": TOKEN.network, "asset": TOKEN.address, "pay_to": TREASURY}
        terms: dict[str, Any] = {"reference": statement_reference(NETWORK, name), "valid_before": closed + 10 * DAY}
        terms |= {each: changes.pop(each) for each in [*changes] if each in {*terms, "asset", "pay_to"}}
        facts: dict[str, Any] = {
            "id": name,
            "network": NETWORK,
            "payer": AGENT,
            "currency": "USD",
            "decimals": 6,
            "window": StatementWindow(str(number), closed - DAY, closed),
            "count": len(lines),
            "gross": str(gross),
            "adjustments": str(adjustments),
            "rounding": "0",
            "net": str(gross + adjustments),
            "root": root_of(map(leaf_hash, leaves)).hex(),
            "previous": link if previous is None else previous,
            "issued": closed,
            "due": closed + 7 * DAY,
            "dispute_until": closed + 30 * DAY,
            "rail": RailTerms(**{**rail, **terms}),
        }
        statement = Statement(**{**facts, **changes})
        signed = signing_input(statement, self.key.public_key.thumbprint)
        status = StatementStatus(
            name, AGENT, str(number), "USD", "issued", statement.net, "0", statement.net, statement.due
        )
        self.now = max(self.now, closed)
        self.statements[name] = statement
        self.answers[name] = StatementAnswer(compact(signed, self.key.sign(signed)), status)
        self.leaves[name] = leaves
        return name

    def say(self, name: str, **changes: Any) -> None:
        """Change where a statement stands."""
        answer = self.answers[name]
        self.answers[name] = msgspec.structs.replace(answer, status=msgspec.structs.replace(answer.status, **changes))

    def audit(self, name: str, **changes: Any) -> Audit:
        plan = self.planned(**changes) if changes else self.plan
        found: Audit = self.run(audit(plan, name, again=True))
        return found

    def pay(self, name: str, **changes: Any) -> Conclusion:
        plan = self.planned(**changes) if changes else self.plan
        found: Conclusion = self.run(conclude(plan, name))
        return found

    def forget_disputes(self, name: str) -> None:
        """As if every line of a statement had been accepted."""
        forget = "DELETE FROM audited_disputes WHERE statement = ?"
        self.journal._database.submit(lambda at: at.execute(forget, (name,)).rowcount).result()

    def signed(self) -> list[tuple[str, int, str, str]]:
        """Nonce, value, treasury and payer of each payment that the house was given."""
        seller = ExactEvmSeller(KNOWN)
        read = [seller.read(each) for each in self.payments]
        return [(each.identity.parts[-1], each.amount, each.pay_to.lower(), each.payer) for each in read]

    def _list(self, effect: ListStatuses) -> tuple[StatementStatus, ...]:
        return tuple(self.answers[name].status for name in sorted(self.answers) if name > effect.after)

    def _fetch(self, effect: FetchStatement) -> StatementAnswer:
        return self.answers[effect.statement]

    def _read(self, effect: ReadLeaves) -> LeafPage:
        # Two at a time, so that pages are turned.
        found = self.leaves[effect.statement][effect.offset : effect.offset + 2]
        return LeafPage(tuple(found), effect.offset + len(found) if found else None)

    def _dispute(self, effect: SendDisputes) -> tuple[Dispute, ...]:
        held = self.disputed.setdefault(effect.statement, {})
        held |= {line.id: line.reason for line in effect.lines}
        charged = {each.id: int(each.charged) for each in map(read, self.leaves[effect.statement])}
        disputed = sum(max(0, charged[line]) for line in held)
        net = int(self.answers[effect.statement].status.net)
        self.say(effect.statement, disputed=str(disputed), payable=str(max(0, net - disputed)))
        return tuple(
            Dispute(dispute_id(effect.statement, line), effect.statement, line, "news", why, "0", "open", self.now)
            for line, why in held.items()
        )

    def _pay(self, effect: SendStatementPayment) -> StatementStatus:
        self.payments.append(effect.payment.payment)
        if self.away:
            message = "cut"
            raise HouseAway(message)
        if self.refuses:
            raise HouseRefused(self.refuses, reason=self.refuses, status=422)
        self.say(effect.statement, state="accepted")
        return self.answers[effect.statement].status


PLAN = frozenset({"per_statement", "per_window", "window_seconds", "account", "accepts_decisions"})


def offered(amount: int) -> PaymentRequirements:
    return PaymentRequirements(
        scheme="batch-settlement",
        network=NETWORK,
        amount=str(amount),
        asset="USD",
        pay_to="news",
        max_timeout_seconds=60,
        extra={"decimals": 6},
    )


def read(leaf: bytes) -> StatementLine:
    return msgspec.json.decode(leaf, type=StatementLine)
