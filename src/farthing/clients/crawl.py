"""A crawler that is ready to run: reads a site's pages, pays for those that ask for it, and keeps them in a folder.

It follows links within the hosts of its start pages (and others that are named), respects robots.txt, and stops when
its buyer's budget is spent. Scrapy does the crawling; `farthing.clients.scrapy` pays.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
import scrapy
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.exceptions import CloseSpider, IgnoreRequest
from scrapy.http import Request, Response, TextResponse
from scrapy.linkextractors import LinkExtractor

from farthing import __version__
from farthing.buyer import Receipt
from farthing.buyer.events import Concluded, Event, Paying
from farthing.clients.buyer import Buyer
from farthing.clients.scrapy import NotBought, PayingMiddleware, receipt_of
from farthing.errors import ConfigError, StoreError

# Pages under way at once, over all hosts, and of one host: what a polite crawler has.
CONCURRENCY_DEFAULT: Final = 16
CONCURRENCY_PER_HOST: Final = 8
# A page of text has some kilobytes; what is larger than this is no page.
PAGE_MAX_BYTES: Final = 32 * 1024 * 1024
# A paid page may wait for a settlement on chain.
TIMEOUT_SECONDS: Final = 60
RETRIES_MAX: Final = 3
# A file's name is 255 bytes at most on most file systems; a longer one is cut, and told apart by a digest.
_NAME_MAX_CHARS: Final = 150
MANIFEST: Final = "pages.ndjson"
# A watcher is told no oftener than this.
WATCH_EVERY_SECONDS: Final = 0.1

_OK: Final = range(200, 300)


class Page(msgspec.Struct, frozen=True):
    """One line of the manifest: a page, where it is kept, and what was paid for it (atomic units)."""

    url: str
    status: int
    size_bytes: int
    file: str = ""
    payment_id: str = ""
    state: str = ""
    transaction: str = ""


class Progress(msgspec.Struct):
    """How far a crawl is. `spent` holds atomic units by (network, asset); `reason` is Scrapy's once it is over."""

    pages: int = 0
    bought: int = 0
    failed: int = 0
    not_bought: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    reason: str = ""
    spent: dict[tuple[str, str], int] = msgspec.field(default_factory=dict[tuple[str, str], int])
    refusals: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class Spending:
    """A buyer's watcher that adds up what was paid (`Buyer(watch=spending)`)."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.spent: dict[tuple[str, str], int] = {}
        self._under_way: dict[str, tuple[str, str, int]] = {}

    def __call__(self, event: Event) -> None:
        """Note a step of a purchase."""
        if isinstance(event, Paying) and event.paid.offer is not None:
            offer = event.paid.offer
            self._under_way[event.paid.payment_id] = (offer.network, offer.asset, offer.atomic)
        elif isinstance(event, Concluded):
            result = event.result
            found = self._under_way.pop(getattr(result, "payment_id", ""), None)
            if found is not None and isinstance(result, Receipt) and result.state != "refused":
                network, asset, amount = found
                self.spent[network, asset] = self.spent.get((network, asset), 0) + amount


class Crawl(msgspec.Struct, kw_only=True):
    """What to crawl. `hosts` may be followed besides the start pages' own; `output` keeps the pages, or None."""

    urls: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    output: Path | None = None
    pages_max: int = 0
    depth_max: int = 0
    concurrency: int = CONCURRENCY_DEFAULT
    delay_seconds: float = 0.0
    user_agent: str = f"farthing/{__version__}"
    settings: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])

    def run(self, buyer: Buyer, spending: Spending, watch: Callable[[Progress], object] | None = None) -> Progress:
        """Crawl until all is read, the budget is spent or Ctrl-C; gives what became of it.

        `spending` is the buyer's watcher. Runs once a process, in the main thread, since Twisted's reactor does.
        """
        if self.output is not None:
            self.output.mkdir(parents=True, exist_ok=True)
        progress = Progress(spent=spending.spent)
        process = CrawlerProcess({**self._settings(buyer), **self.settings})
        crawler = process.create_crawler(SiteSpider)
        process.crawl(crawler, order=self, progress=progress, watch=watch or _nobody)
        started = time.monotonic()
        with _handlers_kept():
            process.start()
        progress.seconds = time.monotonic() - started
        return progress

    def _settings(self, buyer: Buyer) -> dict[str, Any]:
        def given(_crawler: Crawler) -> Buyer:
            return buyer

        return {
            "DOWNLOADER_MIDDLEWARES": {PayingMiddleware: 575},
            "FARTHING_BUYER": given,
            "ROBOTSTXT_OBEY": True,
            "USER_AGENT": self.user_agent,
            "CONCURRENT_REQUESTS": self.concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": min(self.concurrency, CONCURRENCY_PER_HOST),
            "DOWNLOAD_DELAY": self.delay_seconds,
            "DOWNLOAD_MAXSIZE": PAGE_MAX_BYTES,
            "DOWNLOAD_TIMEOUT": TIMEOUT_SECONDS,
            "RETRY_TIMES": RETRIES_MAX,
            # Workers that Scrapy starts for what each page yields, a hundred by default; ours yields links alone.
            "CONCURRENT_ITEMS": 1,
            "DEPTH_LIMIT": self.depth_max,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_ENABLED": False,
        }

    def allowed_hosts(self) -> set[str]:
        """Give the hosts that may be followed. Raises `ConfigError` for a start page that is no page of the web."""
        hosts = {host.lower() for host in self.hosts}
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                message = f"{url!r} is no page to start from: write it whole, like https://example.com/."
                raise ConfigError(message)
            hosts.add(parts.hostname.lower())
        return hosts


class SiteSpider(scrapy.Spider):
    """Reads every page that its links lead to, within its hosts."""

    name = "farthing"

    def __init__(self, order: Crawl, progress: Progress, watch: Callable[[Progress], object], **more: Any) -> None:
        """Crawl what `order` says; count in `progress`, and tell `watch`."""
        super().__init__(self.name, **more)
        self.order = order
        self.progress = progress
        self.watch = watch
        self._hosts = order.allowed_hosts()
        self.allowed_domains = sorted(self._hosts)  # where a redirect may lead
        self._links = LinkExtractor()
        self._told_at = 0.0

    async def start(self) -> AsyncIterator[Any]:
        """Begin with the start pages."""
        for url in self.order.urls:
            yield self._request(url)

    def parse(self, response: Response, **_more: Any) -> Generator[Request, None, None]:
        """Keep a page, and follow its links."""
        progress = self.progress
        receipt = receipt_of(response)
        if response.status not in _OK:
            progress.failed += 1
            progress.refusals[f"http_{response.status}"] = progress.refusals.get(f"http_{response.status}", 0) + 1
        else:
            progress.pages += 1
            progress.size_bytes += len(response.body)
            progress.bought += receipt is not None
            self._keep(response, receipt)
        self._tell()
        if self.order.pages_max and progress.pages >= self.order.pages_max:
            raise CloseSpider("pages_max")
        if response.status in _OK and isinstance(response, TextResponse):
            yield from self._follow(response)

    def _follow(self, response: TextResponse) -> Iterator[Request]:
        for link in self._links.extract_links(response):
            if (urlsplit(link.url).hostname or "").lower() in self._hosts:
                yield self._request(link.url)

    def _request(self, url: str) -> Request:
        # Two ports of a machine are two sites, to robots.txt and to budgets; Scrapy's pace is by the name alone.
        meta = {"handle_httpstatus_all": True, "download_slot": urlsplit(url).netloc.rpartition("@")[2].lower()}
        return Request(url, errback=self.missed, meta=meta)

    def missed(self, failure: Any) -> None:
        """Count a page that was not read."""
        error = failure.value
        if isinstance(error, NotBought):
            self.progress.not_bought += 1
            reason = str(getattr(error.error, "reason", type(error.error).__name__))
        elif isinstance(error, IgnoreRequest):
            return  # robots.txt says no, or another filter of the crawler's
        else:
            self.progress.failed += 1
            reason = type(error).__name__
        self.progress.refusals[reason] = self.progress.refusals.get(reason, 0) + 1
        self._tell()

    def closed(self, reason: str) -> None:
        """Note why it ended. Called by Scrapy."""
        self.progress.reason = reason
        self.watch(self.progress)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= WATCH_EVERY_SECONDS:
            self._told_at = now
            self.watch(self.progress)

    def _keep(self, response: Response, receipt: Receipt | None) -> None:
        folder = self.order.output
        if folder is None:
            return
        name = file_of(response.url)
        path = folder / name
        paid = {} if receipt is None else {
            "payment_id": receipt.payment_id, "state": receipt.state, "transaction": receipt.transaction
        }  # fmt: skip
        page = Page(url=response.url, status=response.status, size_bytes=len(response.body), file=name, **paid)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f"{path.name}.part")
            half.write_bytes(response.body)
            half.replace(path)
            with (folder / MANIFEST).open("ab") as manifest:
                manifest.write(msgspec.json.encode(page) + b"\n")
        except OSError as error:
            message = f"The page {response.url} was read and can't be kept in {folder}: {error.strerror}."
            raise StoreError(message) from error


def file_of(url: str) -> str:
    """Give the name that a page is kept under: `host/path`, in which nothing leads out of the folder."""
    parts = urlsplit(url)
    host = quote(parts.netloc.rpartition("@")[2].lower(), safe="-._[]") or "unknown"
    steps = [quote(step, safe="-_~!$'()+,;=@.%") for step in parts.path.split("/") if step not in {"", ".", ".."}]
    if not steps or parts.path.endswith("/"):
        steps.append("index.html")
    if parts.query:
        steps[-1] += f"@{hashlib.sha256(parts.query.encode()).hexdigest()[:16]}"
    short = [
        step
        if len(step) <= _NAME_MAX_CHARS
        else f"{step[:_NAME_MAX_CHARS]}~{hashlib.sha256(step.encode()).hexdigest()[:16]}"
        for step in steps
    ]
    # A page may be a folder's name, too (`/a` beside `/a/b`): files end in a mark that no folder has.
    return "/".join([host.replace(":", "_"), *(f"{step}.d" for step in short[:-1]), short[-1]])


@contextmanager
def _handlers_kept() -> Generator[None]:
    """Scrapy takes Ctrl-C and SIGTERM for itself and keeps them: whoever crawls gets its own handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, kept, strict=True):
            if handler is not None:  # what no Python set can't be set again
                signal.signal(number, handler)


def _nobody(_progress: Progress) -> None:
    """Watch nothing."""
