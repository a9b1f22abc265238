"""The auditor's flows: audit a statement, dispute what is wrong in it, and pay what is owed, once.

What can't be undone is on record before it leaves: disputes before they are sent, the payment before it is presented.
Cut anywhere and run again, by this process or another, a statement has one payment: the nonce is the statement's.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from farthing.buyer.audit import (
    ADJUSTMENT_PREFIX,
    Expected,
    Fault,
    LineReader,
    check_house,
    check_previous,
    check_signed,
    digest_of,
    dispute_id,
    is_statement_id,
    judge_adjustment,
    judge_commitment,
    owed_of,
    payment_id_of,
)
from farthing.buyer.audit_house import (
    FetchKeys,
    FetchLines,
    FetchStatement,
    HouseAway,
    HouseRefused,
    ListStatuses,
    ReadLeaves,
    SendDisputes,
    SendStatementPayment,
)
from farthing.buyer.audit_records import (
    AUDIT_DISPUTES_MAX,
    AuditedStatement,
    BillLines,
    FindAudited,
    LineDispute,
    MarkDisputesSent,
    MarkSettled,
    MayLeave,
    NewestAudited,
    OverLimit,
    PinHouse,
    RecordAudit,
    RecordStatementPayment,
    ReserveStatement,
    TakeAdjustment,
    UnsentDisputes,
)
from farthing.buyer.journal import Stopped
from farthing.evm.hexadecimal import read_data
from farthing.flow import Flow, Now
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.networks import Networks
from farthing.protocol.clearing import LINE_MAX_BYTES
from farthing.protocol.codec import decode_payment_json, encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import (
    DISPUTED_LINES_MAX,
    DisputedLine,
    RailTerms,
    Statement,
    StatementAnswer,
    StatementLine,
    StatementPayment,
    StatementStatus,
)

# What a statement's lines may come to on disk: a million lines are some 300 MB.
LINES_MAX_BYTES: Final = 4 * 1024**3
# An authorisation that ends sooner than this is signed anew, under the same nonce: a house hands it on within minutes.
OPEN_LEFT_SECONDS: Final = 3_600
# A house takes an authorisation after the due date, if it is open for a day; an hour more is for clocks.
OPEN_MIN_SECONDS: Final = 90_000
_SETTLED: Final = "settled"
_REFUSED: Final = "refused"

# What came of a statement: `paid` is that the house has the payment, `settled` that its rail reported the money.
Outcome: TypeAlias = Literal["settled", "paid", "nothing_to_pay", "refused", "over_limit", "stopped", "unknown", "held"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the auditor goes by. Limits in atomic units; `account` is the address that pays, empty where nobody does."""

    expected: Expected
    networks: Networks
    account: str = ""
    per_statement: int = 0
    per_window: int = 0
    window_seconds: int = 86_400
    # Whether what the house decided is owed that the journal has no signature for: a person says so.
    accepts_decisions: bool = False


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found. With a `fault` the statement is refused whole; else `entry` is its record."""

    name: str
    status: StatementStatus
    rail: RailTerms | None = None
    count: int = 0
    net: int = 0
    disputes: tuple[LineDispute, ...] = ()
    fault: Fault | None = None
    entry: AuditedStatement | None = None


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a statement. `held` and `refused` are for a person to look at; `amount` is what was signed for."""

    statement: str
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    amount: int = 0
    transaction: str = ""
    disputed: int = 0


def list_statements() -> Flow[tuple[StatementStatus, ...]]:
    """List all of the payer's statements, oldest first."""
    found: tuple[StatementStatus, ...] = ()
    after = ""
    while page := (yield from ListStatuses(after)):
        if page[-1].statement <= after or not all(is_statement_id(each.statement) for each in page):
            message = "The clearing house lists statements out of order, or by names that are none."
            raise HouseAway(message)
        found += page
        after = page[-1].statement
    return found


def audit(plan: Plan, name: str, *, again: bool = False) -> Flow[Audit]:
    """Audit a statement, and put it on record where it is in order; `again`: its lines also where that was done."""
    answer = yield from FetchStatement(name)
    found = yield from _check_whole(plan, name, answer)
    if isinstance(found, Fault):
        return Audit(name=name, status=answer.status, fault=found)
    digest = digest_of(answer.jws)
    entry = yield from FindAudited(plan.expected.network, name)
    seen = Audit(name=name, status=answer.status, rail=found.rail, count=found.count, net=int(found.net))
    if entry is not None and entry.digest != digest:
        return _refused(seen, Fault("statement_changed", "It is not the statement that was audited under its id."))
    if entry is not None and entry.state != _REFUSED and not again:
        return msgspec.structs.replace(seen, entry=entry)
    disputes = yield from _lines_of(plan, found)
    now_seconds = yield from Now()
    fault = disputes if isinstance(disputes, Fault) else None
    wrong = () if isinstance(disputes, Fault) else disputes
    made = AuditedStatement(
        network=found.network,
        statement=name,
        payer=found.payer,
        digest=digest,
        closed=found.window.closed,
        owed=0 if fault is not None else owed_of(found, wrong),
        disputes_sent=not wrong,
        state="audited" if fault is None else _REFUSED,
    )
    named = tuple((dispute_id(name, each.line), each) for each in wrong)
    entry = yield from RecordAudit(made, named, now_seconds)
    return msgspec.structs.replace(seen, entry=entry, disputes=wrong, fault=fault)


def _lines_of(plan: Plan, statement: Statement) -> Flow[tuple[LineDispute, ...] | Fault]:
    fault = yield from _check_lines(statement)
    if fault is not None:
        return fault
    disputes = yield from _judge_lines(plan, statement)
    if isinstance(disputes, Fault):
        return disputes
    if len(disputes) > AUDIT_DISPUTES_MAX:
        what = f"Over {AUDIT_DISPUTES_MAX} of its lines are wrong, the first: {disputes[0].line} {disputes[0].reason}."
        return Fault("too_many_disputes", what)
    return disputes


def _refused(seen: Audit, fault: Fault) -> Audit:
    return msgspec.structs.replace(seen, fault=fault)


def _check_whole(plan: Plan, name: str, answer: StatementAnswer) -> Flow[Statement | Fault]:
    keys = yield from FetchKeys()
    checked = check_signed(answer.jws, asked=name, keys=keys, expected=plan.expected)
    if isinstance(checked, Fault):
        return checked
    statement, shown = checked
    now_seconds = yield from Now()
    pinned = yield from PinHouse(shown, now_seconds)
    fault = check_house(shown, pinned, expected=plan.expected)
    if fault is None:
        newest = yield from NewestAudited(statement.network, statement.payer, statement.window.closed)
        fault = check_previous(statement, newest)
    return statement if fault is None else fault


def _check_lines(statement: Statement) -> Flow[Fault | None]:
    yield from FetchLines(statement.id, min(LINES_MAX_BYTES, (statement.count + 1) * LINE_MAX_BYTES))
    reader = LineReader(statement)
    offset: int | None = 0
    while offset is not None:
        page = yield from ReadLeaves(statement.id, offset)
        for leaf in page.leaves:
            read = reader.add(leaf)
            if isinstance(read, Fault):
                return read
        offset = page.next_offset
    return reader.finish()


def _judge_lines(plan: Plan, statement: Statement) -> Flow[tuple[LineDispute, ...] | Fault]:
    """Judge each line; its leaf was read before, so that it can be read."""
    found: list[LineDispute] = []
    reader = LineReader(statement)
    offset: int | None = 0
    while offset is not None and len(found) <= AUDIT_DISPUTES_MAX:
        page = yield from ReadLeaves(statement.id, offset)
        read = [each for leaf in page.leaves if not isinstance(each := reader.add(leaf), Fault)]
        verdicts = yield from _judge_page(plan, statement, read)
        if isinstance(verdicts, Fault):
            return verdicts
        found += verdicts
        offset = page.next_offset
    return tuple(found)


def _judge_page(
    plan: Plan, statement: Statement, read: list[tuple[StatementLine, bool]]
) -> Flow[list[LineDispute] | Fault]:
    plain = [each for each in read if not each[0].id.startswith(ADJUSTMENT_PREFIX)]
    names = tuple(payment_id_of(statement.payer, line.id) for line, _ in plain)
    known = yield from BillLines(statement.network, statement.id, names)
    verdicts = [
        judge_commitment(line, promise, statement=statement.id, network=statement.network, repeated=repeated)
        for (line, repeated), promise in zip(plain, known, strict=True)
    ]
    for line, repeated in read:
        if line.id.startswith(ADJUSTMENT_PREFIX):
            dispute = line.id.removeprefix(ADJUSTMENT_PREFIX)
            raised = yield from TakeAdjustment(statement.network, dispute, statement.id)
            verdict = judge_adjustment(
                line, raised, statement=statement.id, repeated=repeated, accepts_decisions=plan.accepts_decisions
            )
            if isinstance(verdict, Fault):
                return verdict
            verdicts.append(verdict)
    return [each for each in verdicts if each is not None]


def settle(plan: Plan, audited: Audit) -> Flow[Conclusion]:
    """Dispute what is wrong in an audited statement, and pay the rest within the plan's limits."""
    entry = audited.entry
    if audited.fault is not None or entry is None:
        fault = audited.fault or Fault("not_audited", "")
        return Conclusion(statement=audited.name, outcome="held", reason=fault.code, detail=fault.detail)
    try:
        if not entry.disputes_sent:
            yield from _send_disputes(entry)
        answer = yield from FetchStatement(entry.statement)
        if digest_of(answer.jws) != entry.digest:
            return Conclusion(statement=entry.statement, outcome="held", reason="statement_changed")
        return (yield from _pay(plan, entry, answer))
    except HouseRefused as error:
        return Conclusion(statement=entry.statement, outcome="refused", reason=error.reason, detail=str(error))


def _send_disputes(entry: AuditedStatement) -> Flow[None]:
    disputes = yield from UnsentDisputes(entry.network, entry.statement)
    for first in range(0, len(disputes), DISPUTED_LINES_MAX):
        some = disputes[first : first + DISPUTED_LINES_MAX]
        lines = tuple(DisputedLine(each.line, each.reason, each.evidence) for each in some)
        yield from SendDisputes(entry.statement, lines)
    yield from MarkDisputesSent(entry.network, entry.statement)


def _pay(plan: Plan, entry: AuditedStatement, answer: StatementAnswer) -> Flow[Conclusion]:
    status, name = answer.status, entry.statement
    if status.state == _SETTLED:
        return (yield from _settled(entry, status))
    payable = int(status.payable)
    disputed = int(status.disputed)
    if payable > entry.owed:
        what = f"The house asks for {payable}, and {entry.owed} is owed by the journal: its disputes are not all held."
        return Conclusion(statement=name, outcome="held", reason="over_owed", detail=what, disputed=disputed)
    if payable == 0:
        return Conclusion(statement=name, outcome="nothing_to_pay", disputed=disputed)
    signed = yield from _signed(plan, entry, payable, open_statement(answer.jws)[0].rail)
    if isinstance(signed, Conclusion):
        return signed
    return (yield from _present(signed))


def _present(signed: AuditedStatement) -> Flow[Conclusion]:
    name = signed.statement
    stopped = yield from MayLeave()
    if isinstance(stopped, Stopped):
        return Conclusion(statement=name, outcome="stopped", reason="stopped", detail=stopped.reason)
    payment = StatementPayment(decode_payment_json(signed.payment.encode()))
    try:
        status = yield from SendStatementPayment(name, payment)
    except HouseAway as error:
        # It may have arrived. The next round presents the same payment.
        return Conclusion(
            statement=name, outcome="unknown", reason="no_answer", detail=str(error), amount=signed.amount
        )
    if status.state == _SETTLED:
        return (yield from _settled(signed, status))
    return Conclusion(
        statement=name, outcome="paid", reason=status.state, amount=signed.amount, disputed=int(status.disputed)
    )


def _settled(entry: AuditedStatement, status: StatementStatus) -> Flow[Conclusion]:
    now_seconds = yield from Now()
    yield from MarkSettled(entry.network, entry.statement, status.transaction, now_seconds)
    return Conclusion(
        statement=entry.statement,
        outcome="settled",
        amount=entry.amount,
        transaction=status.transaction,
        disputed=int(status.disputed),
    )


def _signed(plan: Plan, entry: AuditedStatement, payable: int, rail: RailTerms) -> Flow[AuditedStatement | Conclusion]:
    """Give the payment on record, or put one there: decided, reserved, signed, recorded, in this order."""
    now_seconds = yield from Now()
    if entry.payment and entry.amount == payable and entry.valid_before > now_seconds + OPEN_LEFT_SECONDS:
        return entry
    name = entry.statement
    if not plan.account:
        return Conclusion(statement=name, outcome="held", reason="no_signer", detail="There is no key to pay with.")
    if payable > plan.per_statement:
        what = f"It asks for {payable}; a statement may cost {plan.per_statement}."
        return Conclusion(statement=name, outcome="over_limit", reason="per_statement", detail=what)
    reserved = yield from ReserveStatement(
        network=entry.network,
        statement=name,
        account=plan.account,
        amount=payable,
        window_limit=plan.per_window,
        window_seconds=plan.window_seconds,
        now_seconds=now_seconds,
    )
    if reserved is not True:
        return _not_reserved(name, payable, reserved)
    return (yield from _sign_and_record(plan, entry, payable, rail))


def _sign_and_record(
    plan: Plan, entry: AuditedStatement, payable: int, rail: RailTerms
) -> Flow[AuditedStatement | Conclusion]:
    now_seconds = yield from Now()
    payment, valid_before = yield from _sign(plan, rail, payable, now_seconds)
    recorded = yield from RecordStatementPayment(
        network=entry.network,
        statement=entry.statement,
        account=plan.account,
        amount=payable,
        payment=payment,
        valid_before=valid_before,
        instead_of=entry.valid_before,
        now_seconds=now_seconds,
    )
    if isinstance(recorded, Stopped):
        return Conclusion(statement=entry.statement, outcome="stopped", reason="stopped", detail=recorded.reason)
    # Another process may have recorded one just now: what is on record is what leaves.
    found = yield from FindAudited(entry.network, entry.statement)
    if found is None or found.amount != payable or not found.payment:
        return Conclusion(statement=entry.statement, outcome="held", reason="recorded_otherwise")
    return found


def _not_reserved(name: str, payable: int, said: object) -> Conclusion:
    if isinstance(said, Stopped):
        return Conclusion(statement=name, outcome="stopped", reason="stopped", detail=said.reason)
    if isinstance(said, OverLimit):
        what = f"It asks for {payable}; {said.used} of the window's {said.limit} are taken."
        return Conclusion(statement=name, outcome="over_limit", reason="per_window", detail=what)
    what = "It is settled, or another account has signed its payment: it is paid by that one alone."
    return Conclusion(statement=name, outcome="held", reason="other_account", detail=what)


def _sign(plan: Plan, rail: RailTerms, payable: int, now_seconds: int) -> Flow[tuple[str, int]]:
    token = plan.networks.token(rail.network, rail.asset)
    if token is None:
        message = f"The token {rail.asset} on {rail.network} is not known here."
        raise HouseAway(message)
    wanted = PaymentRequirements(
        scheme="exact",
        network=token.network,
        amount=str(payable),
        asset=token.address,
        pay_to=rail.pay_to,
        max_timeout_seconds=max(rail.valid_before - now_seconds, OPEN_MIN_SECONDS),
        extra={"name": token.eip712_name, "version": token.eip712_version},
    )
    made = yield from ExactEvmBuyer(plan.networks).pay(wanted, payer=plan.account, nonce=read_data(rail.reference))
    payment = PaymentPayload(accepted=wanted, payload=msgspec.Raw(encode_json(made.payload)))
    return encode_json(payment).decode(), made.signed.valid_before


def look(plan: Plan, name: str) -> Flow[Audit | Conclusion]:
    """Fetch a statement, and audit it where that was not done before; a conclusion where it is settled already."""
    entry = yield from FindAudited(plan.expected.network, name)
    if entry is not None and entry.state == _SETTLED:
        return Conclusion(statement=name, outcome="settled", amount=entry.amount, transaction=entry.transaction)
    return (yield from audit(plan, name))


def conclude(plan: Plan, name: str) -> Flow[Conclusion]:
    """Fetch, audit, dispute and pay one statement. The house's refusals are an outcome; raises `HouseAway`."""
    found = yield from look(plan, name)
    return found if isinstance(found, Conclusion) else (yield from settle(plan, found))
