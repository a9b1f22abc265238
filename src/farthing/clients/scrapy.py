"""The door for Scrapy: a downloader middleware that pays.

    DOWNLOADER_MIDDLEWARES = {"farthing.clients.scrapy.PayingMiddleware": 575}
    FARTHING_POLICY = {"networks": ["eip155:8453"], "per_request": "$0.01", "per_host": "$2", "per_session": "$5"}
    FARTHING_JOURNAL = "journal.sqlite"

575 is its place: behind redirects and decompression, so that it sees the 402 itself, and before retries, so that an
answer that never came is asked for again, which presents the same payment. The paid request goes through the downloader
like any other, so that concurrency and delays hold. Needs Scrapy's asyncio reactor, which is its default.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from scrapy import signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import IgnoreRequest, NotConfigured
from scrapy.utils.misc import load_object

from farthing.buyer import PaidAnswer, PaidRequest, PaymentDemand, Policy, Receipt, describe_request
from farthing.buyer.verdict import SIGNED_FIELDS
from farthing.clients.buyer import (
    DEMAND_BODY_MAX_BYTES,
    Buyer,
    Exchange,
    demand_of,
    refuse_own_header,
    says_why_in_its_body,
    signed_lines,
    with_body,
)
from farthing.clients.memory import is_on_credit
from farthing.errors import ConfigError, FarthingError, PaymentError, PaymentUnknown, PolicyRefused
from farthing.protocol.codec import ReceivedOffers
from farthing.protocol.http import PAYMENT_REQUIRED, STATUS_PAYMENT_REQUIRED

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Request, Response
    from scrapy.settings import BaseSettings

    from farthing.world.agent_keys import AgentSigner
    from farthing.world.directories import Directories

_log: Final = logging.getLogger("farthing.scrapy")

_RECEIPT: Final = "farthing_receipt"
# Marks the paid copy of a request, so that its answer is not taken for a first 402.
_PAYING: Final = "farthing_paying"
# Refusals of the policy after which no page can be bought any more, unless it costs less.
_BUDGET_SPENT: Final = frozenset({"over_total", "over_per_session"})

# What says how to crawl is free everywhere; a site that asks for money there is taken to say nothing.
_NEVER_PAID: Final = frozenset({"/robots.txt", "/sitemap.xml", "/.well-known/security.txt"})


class NotBought(IgnoreRequest):
    """A page that was not bought; `error` says why. Scrapy drops the request, and an errback may look at it."""

    def __init__(self, error: FarthingError) -> None:
        """Hold the reason."""
        super().__init__(str(error))
        self.error = error


class PayingMiddleware:
    """Pays for what a crawler fetches, where a 402 asks for it and the policy allows it.

    Settings:
        FARTHING_BUYER: a function that takes the crawler and gives a `Buyer`, or its import path. Scrapy copies its
            settings, so that a buyer itself can't stand here. Where it is not set, the buyer is made of the others.
        FARTHING_POLICY: the arguments of `Policy`, as a dict.
        FARTHING_JOURNAL: the journal's file or URL.
        FARTHING_KEY_VARIABLE: the environment variable with the key (`FARTHING_KEY`). Not read where the policy names
            networks on credit alone.
        FARTHING_AGENT: who pays on credit: the origin of the agent's key directory.
        FARTHING_AGENT_KEY_VARIABLE, FARTHING_AGENT_KEY_FILE: the environment variable with the agent's Ed25519 key
            (`FARTHING_AGENT_KEY`), or the private file with it.
        FARTHING_DIRECTORIES: origins of sellers' key directories that may be private or plain http: those of a test.
        FARTHING_STOP_ON_BUDGET: close the spider once the crawl's budget is spent (True).

    A request with `meta={"farthing_pay": False}` is not paid for: its 402 is returned.
    """

    def __init__(self, crawler: Crawler, buyer: Buyer, *, owns_buyer: bool, stops_on_budget: bool = True) -> None:
        """Pay with `buyer` for `crawler`."""
        self._crawler = crawler
        self.buyer = buyer
        self._owns_buyer = owns_buyer
        self._stops_on_budget = stops_on_budget
        self._stopping = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> PayingMiddleware:
        """Make it from a crawler's settings. Raises `NotConfigured` where they name no buyer and no policy."""
        settings = crawler.settings
        stops = settings.getbool("FARTHING_STOP_ON_BUDGET", default=True)
        given: Any = settings.get("FARTHING_BUYER")
        buyer: Buyer = _buyer_of(crawler) if given is None else load_object(given)(crawler)
        made = cls(crawler, buyer, owns_buyer=given is None, stops_on_budget=stops)
        crawler.signals.connect(made.spider_closed, signal=signals.spider_closed)
        return made

    def spider_closed(self) -> None:
        """Close the buyer, where this middleware made it. Called by Scrapy's signal."""
        if self._owns_buyer:
            self.buyer.close()

    async def process_request(self, request: Request) -> Response | Request | None:
        """See that a request brings no payment of its own; where its price is known on credit, promise it unasked."""
        if _PAYING in request.meta:
            return None
        refuse_own_header(str(name) for name in request.headers.to_unicode_dict())
        remembered = self.buyer.recall(request.method, request.url)
        if remembered is None or not _may_be_paid(request):
            return None
        return await self._try(request, remembered)

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        """Where a 402 comes back, pay and fetch the page again."""
        first_402 = response.status == STATUS_PAYMENT_REQUIRED and _PAYING not in request.meta
        if not first_402 or not _may_be_paid(request):
            return response
        demand = demand_of(_header(response, PAYMENT_REQUIRED), response.body[:DEMAND_BODY_MAX_BYTES], "")
        return await self._try(request, demand) or response

    async def _try(self, request: Request, demand: PaymentDemand | ReceivedOffers) -> Response | Request | None:
        try:
            return await self._buy(request, demand)
        except PaymentUnknown as error:
            # The same request again presents the same payment: nobody pays twice by trying.
            self._count(f"unknown/{error.reason}")
            again = get_retry_request(request, spider=self._spider, reason=f"farthing {error.reason}")
            if again is not None:
                return again
            raise NotBought(error) from error
        except PaymentError as error:
            self._count(f"not_bought/{error.reason}")
            self._look_at_budget(error)
            raise NotBought(error) from error

    async def _buy(self, request: Request, demand: PaymentDemand | ReceivedOffers) -> Response | None:
        _check_loop()
        facts = describe_request(request.method, request.url, request.body)
        engine: Any = self._crawler.engine
        with Exchange(self.buyer, facts) as exchange:
            paid = await exchange.awaiting(exchange.pay_for(demand))
            if paid is None:
                return None
            try:
                answer: Response = await engine.download_async(_with_payment(request, paid))
            except Exception as error:  # whatever it was, the payload may have left
                await exchange.awaiting(exchange.lost(error))
                raise
            try:
                receipt = await exchange.awaiting(exchange.conclude(_answer(answer, paid)))
            except PaymentError as error:
                if exchange.asks_anew(error):
                    answer.request = request
                    return answer
                raise
        self._count(receipt.state)
        # The crawler's own request: the payment is in no copy that is kept, cached or followed.
        answer.request = request
        request.meta[_RECEIPT] = receipt
        return answer

    def _look_at_budget(self, error: PaymentError) -> None:
        if not self._stops_on_budget or self._stopping or not isinstance(error, PolicyRefused):
            return
        if error.reason in _BUDGET_SPENT:
            self._stopping = True
            _log.info("The budget is spent; the crawl ends. %s", error)
            engine: Any = self._crawler.engine
            closing = asyncio.ensure_future(engine.close_spider_async(reason="budget_spent"))
            closing.add_done_callback(_log_failure)

    @property
    def _spider(self) -> Spider:
        spider = self._crawler.spider
        if spider is None:
            message = "the crawler has no spider"
            raise RuntimeError(message)
        return spider

    def _count(self, what: str) -> None:
        stats: Any = self._crawler.stats
        stats.inc_value(f"farthing/{what}")


def _may_be_paid(request: Request) -> bool:
    return bool(request.meta.get("farthing_pay", True)) and urlsplit(request.url).path not in _NEVER_PAID


def receipt_of(response: Response) -> Receipt | None:
    """What was paid for this response, or None where nothing was."""
    receipt: Receipt | None = None if response.request is None else response.request.meta.get(_RECEIPT)
    return receipt


def _buyer_of(crawler: Crawler) -> Buyer:
    from farthing.world.keys import signer_from_env  # noqa: PLC0415 - not where the user brings a buyer

    settings = crawler.settings
    policy = settings.getdict("FARTHING_POLICY")
    if not policy:
        raise NotConfigured("PayingMiddleware: set FARTHING_POLICY (and FARTHING_JOURNAL), or FARTHING_BUYER.")
    journal = settings.get("FARTHING_JOURNAL")
    if not journal:
        raise ConfigError("PayingMiddleware: FARTHING_JOURNAL names the file that remembers what was paid; set it.")
    limits = Policy(**policy)
    signer = None
    if any(not is_on_credit(each) for each in limits.networks):
        signer = signer_from_env(settings.get("FARTHING_KEY_VARIABLE", "FARTHING_KEY"))
    agent, directories = _agent_of(settings)
    return Buyer(signer=signer, policy=limits, journal=journal, agent=agent, directories=directories)


def _agent_of(settings: BaseSettings) -> tuple[AgentSigner | None, Directories | None]:
    origin = settings.get("FARTHING_AGENT")
    if not origin:
        return None, None
    # Only who pays on credit needs what they bring.
    from farthing.world.agent_keys import agent_from_env, agent_from_file  # noqa: PLC0415
    from farthing.world.directories import Directories  # noqa: PLC0415

    path = settings.get("FARTHING_AGENT_KEY_FILE")
    agent = (
        agent_from_file(path, origin=origin)
        if path
        else agent_from_env(settings.get("FARTHING_AGENT_KEY_VARIABLE", "FARTHING_AGENT_KEY"), origin=origin)
    )
    return agent, Directories(allowed=settings.getlist("FARTHING_DIRECTORIES"))


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        message = (
            "PayingMiddleware needs Scrapy's asyncio reactor: leave TWISTED_REACTOR at its default, "
            "twisted.internet.asyncioreactor.AsyncioSelectorReactor."
        )
        raise ConfigError(message) from None


def _with_payment(request: Request, paid: PaidRequest) -> Request:
    # Never redirected with a payment on it, never taken from a cache, retried only by us (SAFETY B1, B5).
    meta = {**request.meta, _PAYING: True, "dont_redirect": True, "dont_retry": True, "dont_cache": True}
    again = request.replace(meta=meta, dont_filter=True)
    for name, value in paid.lines:
        again.headers[name] = value
    return again


def _answer(response: Response, paid: PaidRequest) -> PaidAnswer:
    lines = ((name, _header(response, name) or "") for name in SIGNED_FIELDS if response.headers.get(name) is not None)
    answer = PaidAnswer(
        response.status,
        _header(response, paid.wire.response_header),
        _header(response, PAYMENT_REQUIRED),
        lines=signed_lines(paid, lines),
    )
    return with_body(answer, response.body[:DEMAND_BODY_MAX_BYTES], "") if says_why_in_its_body(answer) else answer


def _header(response: Response, name: str) -> str | None:
    value = response.headers.get(name)
    return None if value is None else value.decode("latin-1")


def _log_failure(closing: asyncio.Future[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        _log.error("the spider could not be closed: %s", error)
