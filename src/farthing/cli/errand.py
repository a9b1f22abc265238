"""One run of a paying command: send, show and ask the price, pay, and bring the answer home."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httpx2
import msgspec

from farthing.buyer import PaymentDemand, Policy
from farthing.buyer.approval import Question
from farthing.buyer.choice import choose, shown
from farthing.buyer.events import Event, Paying
from farthing.buyer.policy import show_value
from farthing.buyer.purchase import PaidRequest, read_demand
from farthing.cli.body import ERROR_SHOWN_BYTES, Answer
from farthing.cli.confirm import Verdict, asker, mechanisms, price_text, view_offer, view_offers
from farthing.cli.narrate import Narrator
from farthing.cli.order import Order, read_request
from farthing.cli.outcome import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NETWORK,
    EXIT_POLICY,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    Problem,
    Result,
    exit_code_of,
    problem_of,
)
from farthing.cli.paying import DemandSeen, PayWhenAsked, Told, may_follow, transport_for
from farthing.cli.signing import open_signer
from farthing.cli.terminal import Terminal
from farthing.cli.tokens import known_networks, payable_networks
from farthing.clients.buyer import Buyer
from farthing.clients.httpx import receipt_of
from farthing.errors import ConfigError, FarthingError, PaymentError, PaymentRefused
from farthing.mechanisms.registry import Registry
from farthing.world.urls import is_loopback, origin_of

if TYPE_CHECKING:
    from farthing.evm.signing import Signer
    from farthing.protocol.messages import PaymentRequirements

CONNECT_TIMEOUT_SECONDS: Final = 10.0
# Unpaid redirects that -L follows; browsers follow twenty.
REDIRECTS_MAX: Final = 10

_FIRST_REFUSING_STATUS: Final = 400
_AGAIN: Final = "Run the same command again: it presents the same payment, never a second one."


class Errand:
    """One run. `run` gives the exit code."""

    def __init__(self, order: Order) -> None:
        """Read the order. Raises `ConfigError` for what can't be meant."""
        self.order = order
        self.terminal = Terminal(stdin_is_body="@-" in order.data)
        self.networks = known_networks(order.tokens)
        self.policy = Policy(
            networks=payable_networks(self.networks, order.networks),
            per_request=order.price_max,
            per_day=order.per_day,
        )
        self.policy.check_against(self.networks)
        self.result = Result(method=order.method, url=order.url, dry_run=order.dry_run)
        self._tell = Narrator(self.terminal, self.networks, verbose=order.verbose)
        self._signer: Signer | None = None
        self._buyer: Buyer | None = None
        self._paid: PaidRequest | None = None
        self._url, self._headers, self._body = read_request(order)

    def run(self) -> int:
        """Do it, say how it ended, and give the exit code."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        answer = Answer(self.order.output, as_json=self.order.as_json, terminal=self.terminal)
        try:
            with answer:
                code = self._fetch(answer)
        except DemandSeen as seen:
            code = self._show_demand(seen.demand)
        except KeyboardInterrupt:
            code = self._interrupted()
        except FarthingError as error:
            code = self._told(error)
        except httpx2.InvalidURL as error:
            code = self._failed(EXIT_USAGE, Problem("url", f"The URL can't be read: {error}."))
        except httpx2.RequestError as error:
            code = self._failed(*self._network_problem(error))
        except OSError as error:
            code = self._failed(EXIT_FAILED, Problem("output", f"The answer can't be written: {error.strerror}."))
        finally:
            self._close()
            signal.signal(signal.SIGTERM, before)
        self.result.exit_code = code
        if self.order.as_json:
            sys.stdout.write(msgspec.json.encode(self.result).decode() + "\n")
            sys.stdout.flush()
        return code

    def _fetch(self, answer: Answer) -> int:
        inner = Told(transport_for(self._url), self._tell)
        transport = PayWhenAsked(inner, self._make_buyer, pays=not self._only_looks)
        timeout = httpx2.Timeout(self.order.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)
        with httpx2.Client(transport=transport, timeout=timeout, headers={"User-Agent": ""}) as client:
            request = client.build_request(self.order.method, self._url, headers=self._headers, content=self._body)
            for _ in range(REDIRECTS_MAX + 1):
                response = client.send(request, stream=True)
                try:
                    following = response.next_request if self.order.follow and receipt_of(response) is None else None
                    if following is None:
                        return self._bring_home(response, answer)
                    request = may_follow(following, request)
                finally:
                    response.close()
        raise ConfigError(f"More than {REDIRECTS_MAX} redirects; nothing was paid.")

    @property
    def _only_looks(self) -> bool:
        return self.order.dry_run or self.order.method == "HEAD"

    def _bring_home(self, response: httpx2.Response, answer: Answer) -> int:
        self._note_receipt(response)
        self.result.status = response.status_code
        self.result.content_type = response.headers.get("Content-Type", "")
        if self.order.method == "HEAD":
            if not self.order.as_json:
                self._print_head(response)
            return EXIT_DONE if response.status_code < _FIRST_REFUSING_STATUS else EXIT_REFUSED
        if response.status_code >= _FIRST_REFUSING_STATUS:
            return self._refused(response, answer)
        length = response.headers.get("Content-Length", "")
        answer.expect(int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None)
        try:
            for part in response.iter_bytes():
                answer.take(part)
                if answer.reader_gone:
                    break
            answer.finish(self.result)
        except BaseException as error:
            self._undelivered(response)
            if isinstance(error, (httpx2.RequestError, httpx2.StreamError)):
                return self._broke_off(error, response, answer)
            raise
        return self._delivered(response)

    def _delivered(self, response: httpx2.Response) -> int:
        self._say_receipt()
        if response.has_redirect_location or "Location" in response.headers:
            self.terminal.say(f"It redirects to {response.headers.get('Location')} (not followed).")
        receipt = receipt_of(response)
        if receipt is not None and receipt.state == "unknown" and not response.is_success:
            # Not delivered, so that the same command presents the same payment.
            return EXIT_UNKNOWN
        return EXIT_DONE

    def _note_receipt(self, response: httpx2.Response) -> None:
        receipt = receipt_of(response)
        if receipt is None:
            return
        self.result.paid, self.result.state = True, receipt.state
        self.result.payment_id, self.result.transaction = receipt.payment_id, receipt.transaction

    def _say_receipt(self) -> None:
        result = self.result
        if result.file:
            self.terminal.say(f"Saved {result.size_bytes} bytes to {result.file}.")
        if not result.paid or self.order.as_json:
            return
        what = f"{result.price} {result.symbol}".strip() or "an earlier payment"
        if result.state == "settled":
            self.terminal.say(f"Paid {what}: transaction {result.transaction} ({result.payment_id}).")
        else:
            self.terminal.say(
                f"The answer came, and the seller gave no proof that {what} was settled: the journal calls "
                f"{result.payment_id} {result.state}. Don't run this again to get it: that would be a new purchase."
            )

    def _refused(self, response: httpx2.Response, answer: Answer) -> int:
        """The server says no: what it says goes where errors go, and into no file."""
        to_file = self.order.output is not None
        seen = b""
        for part in response.iter_bytes():
            if not to_file:
                answer.take(part)
            seen = (seen + part)[:ERROR_SHOWN_BYTES]
            if to_file and len(seen) >= ERROR_SHOWN_BYTES:
                break
        if not to_file:
            answer.finish(self.result)
        elif seen:
            self.terminal.say(seen.decode("utf-8", "replace"))
        self._say_receipt()
        said = f"The server answered {response.status_code} {response.reason_phrase}".rstrip() + "."
        advice = ""
        if self.result.state == "settled":
            said, advice = f"{said} The payment settled all the same.", "Run it again: it presents the same payment."
        return self._failed(EXIT_REFUSED, Problem(f"http_{response.status_code}", said, advice))

    def _print_head(self, response: httpx2.Response) -> None:
        print(f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip())
        for name, value in response.headers.multi_items():
            print(f"{name}: {value}")

    def _undelivered(self, response: httpx2.Response) -> None:
        receipt = receipt_of(response)
        if receipt is not None and self._buyer is not None:
            self._buyer.journal.abandon(receipt.purchase_id)

    def _broke_off(self, error: Exception, response: httpx2.Response, answer: Answer) -> int:
        kept = answer.keep_part()
        self.result.size_bytes, self.result.file = answer.size_bytes, kept
        said = f"The server broke off after {answer.size_bytes} bytes ({type(error).__name__})."
        if kept:
            said = f"{said} What came is in {kept}."
        if receipt_of(response) is None:
            return self._failed(EXIT_NETWORK, Problem("cut", said))
        code = EXIT_NETWORK if self.result.state == "settled" else EXIT_UNKNOWN
        return self._failed(code, Problem("cut", said, _AGAIN))

    def _close(self) -> None:
        if self._buyer is not None:
            self._buyer.close()
        close: Callable[[], None] | None = getattr(self._signer, "close", None)  # a remote signer's connections
        if close is not None:
            close()

    # The price.

    def _make_buyer(self) -> Buyer:
        self._signer = open_signer(self.order.key, self.terminal)
        buyer = Buyer(
            signer=self._signer,
            policy=self.policy,
            journal=self.order.journal,
            networks=self.networks,
            mechanisms=mechanisms(self.networks),
            approve=self._approve_payee if self.terminal.can_ask and not self.order.yes else None,
            watch=self._watch,
        )
        buyer.performer = buyer.performer.with_(asker(self._ask))
        self._buyer = buyer
        self.result.payer = buyer.payer
        return buyer

    def _approve_payee(self, question: Question) -> bool:
        """Ask about an account that the host did not name before; the price is asked about apart."""
        self.terminal.say(f"{self._url} was paid at {', '.join(question.known_payees)} before.")
        self.terminal.say(f"  now it wants to be paid at {shown(question.offer.pay_to)}")
        return self.terminal.confirms("Is that account right?")

    def _watch(self, event: Event) -> None:
        self._tell.event(event)
        if isinstance(event, Paying):
            self._paid = event.paid
            self.result.payment_id, self.result.again = event.paid.payment_id, event.paid.again
            self.result.network, self.result.state = event.paid.network, "unknown"
            if event.paid.again:
                self.terminal.say(
                    f"A payment for this very request is open ({event.paid.payment_id}): it is presented again, and "
                    "nothing else is paid."
                )

    def _ask(self, offer: PaymentRequirements) -> Verdict:
        view = view_offer(offer, self.networks)
        result = self.result
        result.amount, result.price, result.symbol = view.amount, view.price, view.symbol
        result.network, result.asset, result.pay_to = view.network, view.asset, view.pay_to
        if self.order.yes:
            self.terminal.say(f"Paying {price_text(view, self.networks)} to {view.pay_to}.")
            return "yes"
        self.terminal.say(f"{self.order.method} {self._url}")
        self.terminal.say(f"  costs   {price_text(view, self.networks)}")
        self.terminal.say(f"  paid to {view.pay_to}")
        if self._buyer is not None:
            self.terminal.say(f"  from    {self._buyer.payer}")
        if self._url.startswith("http://") and not is_loopback(self._url):
            self.terminal.say("  over plain http: others on the way can read request and answer")
        if not self.terminal.can_ask:
            return "nobody_to_ask"
        try:
            return "yes" if self.terminal.confirms(f"Pay {view.price or view.amount} {view.symbol}?") else "declined"
        except KeyboardInterrupt:
            return "interrupted"

    def _show_demand(self, demand: PaymentDemand) -> int:
        """Show what a 402 offers; nothing is signed or reserved."""
        self.result.status = 402
        try:
            received = read_demand(demand)
        except FarthingError as error:
            return self._told(error)
        plain = Registry(mechanisms(self.networks))
        choice = choose(received, policy=self.policy, mechanisms=plain, networks=self.networks)
        views = self.result.offers = view_offers(received, self.networks, choice)
        first = next((view for view in views if view.payable), None)
        if first is not None:
            result = self.result
            result.amount, result.price, result.symbol = first.amount, first.price, first.symbol
            result.network, result.asset, result.pay_to = first.network, first.asset, first.pay_to
        if not self.order.as_json:
            for view in views:
                print(f"{'  ' if view.payable else '- '}{price_text(view, self.networks)}, to {view.pay_to}")
                if view.why_not:
                    print(f"    not payable: {view.why_not}")
            if not views:
                print("The server answered 402 and offers no way to pay now.")
            limit = show_value(self.policy.per_request_value, self.policy.currency)
            said = f"would pay {first.price} {first.symbol}" if first else "would pay nothing"
            method = "GET" if self.order.method == "HEAD" else self.order.method
            self.terminal.say(f"{method} {said} (--max is {limit}). Nothing was paid.")
        if self.order.dry_run and first is None:
            return EXIT_POLICY
        return EXIT_DONE

    # What went wrong.

    def _failed(self, code: int, problem: Problem) -> int:
        self.result.error = problem
        self.terminal.say(f"farthing: {problem.message}")
        if problem.advice:
            self.terminal.say(problem.advice)
        return code

    def _told(self, error: FarthingError) -> int:
        if isinstance(error, PaymentRefused):
            self.result.state = "refused"
        if isinstance(error, PaymentError):
            self.result.payment_id = error.payment_id or self.result.payment_id
            self.result.transaction = error.transaction
        elif self._paid is not None:
            # The journal's own trouble, most likely: what it last knew is that the payment was sent.
            return self._failed(EXIT_UNKNOWN, Problem(type(error).__name__, str(error), _AGAIN))
        return self._failed(exit_code_of(error), problem_of(error))

    def _network_problem(self, error: httpx2.RequestError) -> tuple[int, Problem]:
        said = f"No answer from {origin_of(self._url)}: {type(error).__name__}" + (
            f" ({error})." if str(error) else "."
        )
        if self._paid is None:
            return EXIT_NETWORK, Problem("network", said, "Nothing was paid.")
        return EXIT_NETWORK if self.result.state == "settled" else EXIT_UNKNOWN, Problem("cut", said, _AGAIN)

    def _interrupted(self) -> int:
        if self._paid is None:
            return self._failed(EXIT_INTERRUPTED, Problem("interrupted", "Interrupted.", "Nothing was paid."))
        payment_id = self._paid.payment_id
        if self.result.paid and self.result.state == "settled":
            said = f"Interrupted while the answer came; its payment ({payment_id}) is settled."
            return self._failed(EXIT_INTERRUPTED, Problem("interrupted", said, _AGAIN))
        said = f"Interrupted after the payment had left: nobody knows whether it settled ({payment_id})."
        more = f"It keeps its place in the budget. {_AGAIN} More: farthing payments show {payment_id}"
        return self._failed(EXIT_UNKNOWN, Problem("interrupted", said, more))


def run_errand(order: Order) -> int:
    """Run a paying command; the answer is its exit code."""
    try:
        return Errand(order).run()
    except FarthingError as error:
        # What can't be meant, found before anything was asked. Without --json the command says it as all others do.
        if not order.as_json:
            raise
        problem = problem_of(error)
        result = Result(method=order.method, url=order.url, exit_code=EXIT_USAGE, error=problem, dry_run=order.dry_run)
        print(f"farthing: {problem.message}", file=sys.stderr)
        print(msgspec.json.encode(result).decode())
        return EXIT_USAGE
