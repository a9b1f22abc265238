"""The buyer that all doors share: signer, policy and journal joined, and one purchase's way through a door."""

from __future__ import annotations

import contextlib
import logging
import secrets
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from farthing.buyer.approval import Answer, AskApproval, Question
from farthing.buyer.events import Concluded, Event, Offered, Paying, Signing
from farthing.buyer.journal import PresentAgain, RenewPayment, Reserve
from farthing.buyer.policy import Policy
from farthing.buyer.purchase import PaidRequest, Terms, prepare, prepare_ahead, read_demand
from farthing.buyer.request import PaymentDemand, RequestFacts, describe_request
from farthing.buyer.verdict import SIGNED_FIELDS, NoAnswer, PaidAnswer, Receipt, conclude
from farthing.clients.memory import RememberedOffers
from farthing.clients.reconcile import Reconciliation
from farthing.errors import BodyNotReplayable, ConfigError, FarthingError, PaymentError, PaymentRefused
from farthing.evm.signing import Signer, SignTypedData
from farthing.flow import Effect, Flow, drive, drive_async
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.mechanisms.interface import BuyerMechanism
from farthing.mechanisms.registry import Registry
from farthing.networks import KNOWN, Networks
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.http import STATUS_PAYMENT_REQUIRED
from farthing.protocol.versions import PAYMENT_HEADERS
from farthing.world.journal import Journal
from farthing.world.keys import signer_handlers
from farthing.world.performers import Performer, system_handlers

if TYPE_CHECKING:
    from farthing.protocol.facilitator import Facilitator

if TYPE_CHECKING:
    from farthing.world.agent_keys import AgentSigner
    from farthing.world.directories import Directories

_log: Final = logging.getLogger("farthing.buyer")

# Of a 402's body, what may offer where the header does not. The rest isn't read.
DEMAND_BODY_MAX_BYTES: Final = 65_536

R = TypeVar("R")
T = TypeVar("T")
Approve: TypeAlias = Callable[[Question], bool | Awaitable[bool]]


class Buyer:
    """Pays within a policy and keeps a journal. One buyer serves any number of clients and threads.

    Args:
        signer: signs for the paying account (`signer_from_env`, `signer_from_file`, or one of your own). None for a
            crawler that pays on credit alone.
        policy: what may be paid. The default policy pays nothing until it names a network.
        journal: the journal's file, or a `Journal` that several buyers share.
        networks: the table of networks and tokens; `KNOWN.with_token(…)` knows more.
        mechanisms: the schemes that it can pay; by default `exact` on EVM networks.
        approve: is asked where the policy asks somebody (`Policy(approve_above=…)`, a payee that changed), and says
            whether this very offer may be paid: a function or a coroutine function. Without one the answer is no.
        session: names the session of `Policy(per_session=…)`, for buyers that share one; otherwise each is its own.
        agent: who pays on credit (`farthing.world.agent_keys`); without one, offers of clearing networks are passed
            over.
        directories: finds the keys of sellers' receipts; by default one that asks public https origins alone.
        watch: is told each step of a purchase (`farthing.buyer.events`), in the thread or loop where it happens.

    Raises `ConfigError` for a network without a token that we know, `StoreError` for a journal that can't be opened.
    """

    def __init__(
        self,
        *,
        signer: Signer | None = None,
        policy: Policy,
        journal: Journal | str | Path,
        networks: Networks = KNOWN,
        mechanisms: Iterable[BuyerMechanism] | None = None,
        approve: Approve | None = None,
        session: str = "",
        agent: AgentSigner | None = None,
        directories: Directories | None = None,
        watch: Callable[[Event], object] | None = None,
    ) -> None:
        """Join the parts; the class says what each is."""
        policy.check_against(networks)
        on_chain = (ExactEvmBuyer(networks),) if signer is not None else ()
        faces: list[BuyerMechanism] = list(on_chain if mechanisms is None else mechanisms)
        handlers = {} if signer is None else dict(signer_handlers(signer))
        if agent is not None:
            # Imported for who pays on credit: it needs the extra of that name.
            from farthing.clients.credit import credit_faces, credit_handlers  # noqa: PLC0415

            faces += credit_faces(agent)
            handlers |= credit_handlers(agent, directories)
        payer = signer.address if signer is not None else agent.agent.origin if agent is not None else ""
        if not payer:
            message = "Buyer: somebody must pay; give it a signer, or an agent that pays on credit."
            raise ConfigError(message)
        self.policy = policy
        self.terms = Terms(policy, Registry(faces), networks, payer, session or secrets.token_hex(16))
        # Prices that may be promised unasked; None for a buyer that pays on chain alone.
        self.remembered = None if agent is None else RememberedOffers()
        self._owns_journal = not isinstance(journal, Journal)
        self.journal = journal if isinstance(journal, Journal) else Journal(journal)
        self.performer = Performer(
            {**system_handlers(), **handlers, **self.journal.handlers(), AskApproval: _asking(approve)}
        )
        self._watch = watch

    def __repr__(self) -> str:
        """Name the account and the journal; the signer stays unseen."""
        return f"Buyer(payer={self.payer!r}, policy={self.policy!r}, journal={self.journal!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def payer(self) -> str:
        """The address that pays, as EIP-55 text; the agent's origin where it pays on credit alone."""
        return self.terms.payer

    def recall(self, method: str, url: str) -> ReceivedOffers | None:
        """Give what this host has offered last, where it can be promised unasked; None for a buyer without an agent."""
        if self.remembered is None:
            return None
        facts = describe_request(method, url, b"")
        return self.remembered.recall(facts.authority, method.upper(), url=facts.url)

    def close(self) -> None:
        """Close the journal, where this buyer opened it."""
        if self._owns_journal:
            self.journal.close()

    def reconcile(
        self,
        *,
        nodes: Mapping[str, Sequence[str]] | None = None,
        facilitator: Facilitator | str | None = None,
        present: bool = False,
    ) -> Reconciliation:
        """Find out what became of the payments that nobody answered for; see `Reconciliation` for whom to ask.

        `list(buyer.reconcile(nodes={…}).blocking())`, or `async for finding in buyer.reconcile(nodes={…}).awaiting()`.
        """
        return Reconciliation(self.journal, nodes=nodes, facilitator=facilitator, present=present)

    def tell(self, event: Event) -> None:
        """Tell the watcher. An error of the watcher's is logged and stops nothing."""
        if self._watch is None:
            return
        try:
            self._watch(event)
        except Exception:  # noqa: BLE001 - a watcher's, whatever it is
            _log.exception("the buyer's watcher failed")

    @property
    def watched(self) -> bool:
        """Tell whether there is a watcher."""
        return self._watch is not None


class Exchange:
    """One purchase on its way through a door: a context manager around the paid request.

        with Exchange(buyer, facts) as exchange:
            paid = exchange.blocking(exchange.pay(demand))
            …send the request again with `paid.header`…
            receipt = exchange.blocking(exchange.conclude(answer))

    However it is left, the journal knows: what was sent and not concluded is unknown.
    """

    def __init__(self, buyer: Buyer, request: RequestFacts) -> None:
        """Begin; nothing is decided yet."""
        self._buyer = buyer
        self._request = request
        self._paid: PaidRequest | None = None
        # What the journal takes for alive on our account, and whether its end is on record.
        self._purchase_id = ""
        self._concluded = False
        # Whether nobody has asked for the payment yet.
        self._ahead = False
        # Likewise, for an earlier payment that is about to leave again.
        self._leaving_id = ""
        # Its answer is on its way to the caller, and whether the end of that way was told.
        self._handing_over = False
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._purchase_id and not self._concluded:
            # Cut somewhere between the reservation and the verdict.
            self.undelivered()
        elif (self._purchase_id or self._leaving_id) and not self._handing_over:
            self._buyer.journal.end(self._purchase_id or self._leaving_id)
        if isinstance(error, FarthingError):
            self._buyer.tell(Concluded(self._request, error))

    def blocking(self, flow: Flow[T]) -> T:
        """Drive one of the flows below, blocking."""
        return drive(flow, self._perform)

    async def awaiting(self, flow: Flow[T]) -> T:
        """Drive one of the flows below, awaiting."""
        return await drive_async(flow, self._perform_async)

    def pay(self, demand: PaymentDemand) -> Flow[PaidRequest]:
        """From a 402 to a payment on record; see `farthing.buyer.prepare` for the errors."""
        remembered = self._buyer.remembered
        if self._buyer.watched or remembered is not None:
            with contextlib.suppress(FarthingError):
                received = read_demand(demand)
                self._buyer.tell(Offered(self._request, received))
                if remembered is not None:
                    facts = self._request
                    remembered.remember(facts.authority, facts.method, received, url=facts.url)
        return self._begun((yield from prepare(self._buyer.terms, self._request, demand)))

    def pay_for(self, demand: PaymentDemand | ReceivedOffers) -> Flow[PaidRequest | None]:
        """Pay what a 402 demands, or promise ahead what this host has offered last; None where that is not to be paid.

        Whatever speaks against a promise ahead is told when the seller asks.
        """
        if isinstance(demand, PaymentDemand):
            return (yield from self.pay(demand))
        self._ahead = True
        try:
            paid = yield from prepare_ahead(self._buyer.terms, self._request, demand)
        except PaymentError:
            return None
        return self._begun(paid)

    def asks_anew(self, error: BaseException) -> bool:
        """Tell whether a promise ahead was refused: its answer asks for a payment as if there had been none."""
        if not self._ahead or not isinstance(error, PaymentRefused):
            return False
        if self._buyer.remembered is not None:
            self._buyer.remembered.forget(self._request.authority, self._request.method)
        return True

    def _begun(self, paid: PaidRequest) -> PaidRequest:
        self._purchase_id = paid.purchase_id
        self._buyer.journal.begin(paid.purchase_id)
        self._paid = paid
        self._buyer.tell(Paying(self._request, paid))
        return paid

    def conclude(self, answer: PaidAnswer | NoAnswer, *, streams: bool = False) -> Flow[Receipt]:
        """From the answer to a receipt; raises `PaymentRefused` or `PaymentUnknown`.

        `streams`: the answer's body is still to come, and the door calls `delivered` or `undelivered` at its end.
        """
        if self._paid is None:
            message = "conclude() comes after pay()"
            raise RuntimeError(message)
        try:
            receipt = yield from conclude(self._paid, answer, streams=streams)
        except PaymentError:
            # The verdict is on record; other errors (of the journal itself) leave it open.
            self._concluded = True
            raise
        self._concluded = True
        self._handing_over = streams
        memory = self._buyer.remembered
        if memory is not None and self._ahead and isinstance(answer, PaidAnswer) and answer.payment_response is None:
            memory.note_free(self._request.authority, self._request.method, self._request.url)
        self._buyer.tell(Concluded(self._request, receipt))
        return receipt

    def lost(self, error: Exception) -> Flow[None]:
        """From an error of the paid request, whichever it was, to `PaymentUnknown`: the payload may have left."""
        try:
            yield from self.conclude(NoAnswer(type(error).__name__))
        except FarthingError as told:
            raise told from error

    def delivered(self) -> None:
        """Say that the caller has the answer, or as much of it as it wants. What was said first counts."""
        if not self._told:
            self._told = True
            with contextlib.suppress(FarthingError):  # as below
                self._buyer.journal.delivered(self._purchase_id)

    def undelivered(self) -> None:
        """Say that the caller did not get the answer after all: cancelled, or its body was cut on the way."""
        self._told = True
        # Whatever cut it is being told already, and the journal's own trouble must not hide it.
        with contextlib.suppress(FarthingError):
            self._buyer.journal.abandon(self._purchase_id)

    def _perform(self, effect: Effect[R]) -> R:
        self._note(effect)
        return self._buyer.performer.blocking(effect)

    async def _perform_async(self, effect: Effect[R]) -> R:
        self._note(effect)
        return await self._buyer.performer.awaiting(effect)

    def _note(self, effect: Effect[Any]) -> None:
        if isinstance(effect, Reserve):
            # From here on the journal takes the purchase for alive, until we say that we are done.
            self._purchase_id = effect.purchase_id
        elif isinstance(effect, (PresentAgain, RenewPayment)):
            self._leaving_id = effect.purchase_id
        elif isinstance(effect, SignTypedData) and self._buyer.watched:
            self._buyer.tell(Signing(self._request, effect.message.to_json()))


def _asking(approve: Approve | None) -> Callable[[AskApproval], Answer | Coroutine[Any, Any, Answer]]:
    async def waited(answer: Awaitable[bool]) -> Answer:
        return "yes" if await answer is True else "no"

    def ask(effect: AskApproval) -> Answer | Coroutine[Any, Any, Answer]:
        if approve is None:
            return "nobody"
        answer = approve(effect.question)
        if isinstance(answer, Awaitable):
            return waited(answer)
        # Exactly True: a mock, a string, or what a framework gives instead of an answer is no consent.
        return "yes" if answer is True else "no"

    return ask


def refuse_own_header(names: Iterable[str]) -> None:
    """Refuse a request that brings a payment of its own: two hands on one purse."""
    for name in names:
        if name.lower() in PAYMENT_HEADERS:
            message = f"The request has a {name.upper()} header already; the paying transport sets it, so leave it out."
            raise ConfigError(message)


def signed_lines(paid: PaidRequest, answer: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The header lines of an answer that a seller signs, where the payment was a promise."""
    if paid.promise is None:
        return ()
    return tuple((name, value) for name, value in answer if name.lower() in SIGNED_FIELDS)


def demand_of(header: str | None, body: bytes, encoding: str) -> PaymentDemand:
    """Describe a 402 to the buyer: its header, and its body as far as it was read (`encoding`: Content-Encoding)."""
    if encoding.lower() in {"gzip", "x-gzip"}:
        # 32: the wrapper is detected. Bounded, so that a small body can't become a large one.
        with contextlib.suppress(zlib.error):
            body = zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(body, DEMAND_BODY_MAX_BYTES)
    return PaymentDemand(header, body)


def says_why_in_its_body(answer: PaidAnswer) -> bool:
    """Tell whether the body of an answer must be read for the verdict: a 402 whose headers say nothing."""
    silent = answer.payment_response is None and answer.payment_required is None
    return answer.status == STATUS_PAYMENT_REQUIRED and silent


def with_body(answer: PaidAnswer, body: bytes, encoding: str) -> PaidAnswer:
    """Give an answer the beginning of its body (`encoding`: Content-Encoding)."""
    return PaidAnswer(answer.status, body=demand_of(None, body, encoding).body)


def not_replayable(kind: str) -> BodyNotReplayable:
    """Say that a body can't be sent a second time, and how it could."""
    return BodyNotReplayable(
        f"The seller wants a payment, and the request's body ({kind}) can be sent only once.",
        reason="body_not_replayable",
        advice="Nothing was paid. Send the body as bytes, so that it can be sent again with the payment.",
    )
