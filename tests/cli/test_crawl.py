"""`farthing crawl`: a real Scrapy crawl of a real shop, settled on the devnet."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from marketplace import Market, User, interrupt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.world.facilitator_client import RemoteFacilitator

if TYPE_CHECKING:
    from tests.local_services import LocalServices

PAGES = 6
PRICE = 1_000


class Site(Market):  # type: ignore[misc]  # folders of tests are no packages
    """A site of free pages that link to priced ones; one is dear, one is closed to robots, one fails."""

    async def handle(self, request: Request) -> Response:
        path = request.url.path
        self.served.append(path)
        if path == "/robots.txt":
            return PlainTextResponse("User-agent: *\nDisallow: /closed\n")
        if path == "/broken":
            return PlainTextResponse("no", 500)
        links = [f"/p/{number}" for number in range(PAGES)] if path == "/" else ["/"]
        if path == "/":
            links += ["/dear", "/closed", "/broken", "http://127.0.0.2:1/elsewhere"]
        return HTMLResponse("".join(f'<a href="{link}">{link}</a>' for link in links))


@pytest.fixture(scope="module")
def site(local: LocalServices) -> Site:
    made = Site(local)
    facilitator = RemoteFacilitator(local.facilitator_url)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    def make(url: str) -> Any:
        seller = Seller(
            pay_to=made.payee,
            network=local.devnet.network,
            facilitator=facilitator,
            base_url=url,
            store=local.path("seller.sqlite3"),
            networks=local.networks,
        )
        local.at_end(seller.close)
        seller.price("GET /p/{number}", "$0.001")
        seller.price("GET /dear", "$5")
        return PaymentMiddleware(
            Starlette(routes=[Route("/{path:path}", made.handle)], lifespan=lifespan), seller=seller
        )

    made.url = local.serve(make)
    return made


@pytest.fixture
def crawler(site: Site, tmp_path: Path) -> User:
    site.served.clear()
    return site.user(tmp_path)


def test_a_crawl_reads_all_and_pays_for_each_page_once(crawler: User, site: Site) -> None:
    done = crawler.run("crawl", crawler.url("/"), "--budget", "1", "--output", "pages", "--yes", "--json")
    assert done.code == 0, done.stderr

    assert (done.json["pages"], done.json["bought"]) == (PAGES + 1, PAGES)
    assert done.json["refusals"] == {"price_over_limit": 1, "http_500": 1}
    assert [(each["amount"], each["price"]) for each in done.json["spent"]] == [(str(PAGES * PRICE), "0.006")]
    # The chain and the journal say the same.
    assert crawler.spent == PAGES * PRICE
    assert sorted(each.state for each in crawler.journal()) == ["settled"] * PAGES
    # robots.txt is respected, and no other host is asked.
    assert "/closed" not in site.served
    assert sorted(path for path in site.served if path.startswith("/p/")) == [f"/p/{n}" for n in range(PAGES)]
    listed = [json.loads(line) for line in (crawler.folder / "pages" / "pages.ndjson").read_text("utf-8").splitlines()]
    assert len(listed) == PAGES + 1
    for page in listed:
        assert (crawler.folder / "pages" / page["file"]).stat().st_size == page["size_bytes"]
    assert sum(page.get("state") == "settled" for page in listed) == PAGES


def test_B2_the_budget_ends_the_crawl(crawler: User) -> None:
    done = crawler.run("crawl", crawler.url("/"), "--budget", "0.003", "--yes", "--json")
    assert done.code == 3, done.stderr
    assert done.json["reason"] == "budget_spent"
    assert crawler.spent <= 3 * PRICE
    # The next crawl has a budget of its own.
    again = crawler.run("crawl", crawler.url("/p/0"), "--budget", "0.003", "--pages", "1", "--yes", "--json")
    assert again.code == 0, again.stderr


def test_nobody_to_ask_and_no_yes_is_no(crawler: User) -> None:
    done = crawler.run("crawl", crawler.url("/"), "--budget", "1")
    assert done.code == 2
    assert "--yes" in done.stderr
    assert crawler.spent == 0


def test_a_person_sees_how_far_it_is(crawler: User) -> None:
    done = crawler.on_terminal("crawl", crawler.url("/"), "--budget", "1", keys={"[y/N]": "y\n"})
    assert done.code == 0, done.screen
    assert f"{PAGES} bought for 0.006 USDC" in done.screen


@pytest.mark.parametrize("url", ["example.com", "ftp://example.com/", "http://"])
def test_a_page_that_is_none_is_named(crawler: User, url: str) -> None:
    done = crawler.run("crawl", url, "--budget", "1", "--yes")
    assert done.code == 2
    assert "no page to start from" in done.stderr


AGENT = ("--agent", "https://crawler.example")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (AGENT, "name the clearing network"),
        (("--network", "clearing:example"), "say whose, by --agent"),
        (("--agent-key-env", "KEY"), "--agent https://"),
        ((*AGENT, "--network", "clearing:example"), "FARTHING_AGENT_KEY is not set"),
        ((*AGENT, "--network", "clearing:example", "--agent-key-file", "none"), "none"),
        ((*AGENT, "--network", "clearing:example", "--agent-key-file", "a", "--agent-key-env", "B"), "Only one of"),
        (("--agent", "crawler", "--network", "clearing:example", "--agent-key-env", "AGENT_KEY"), "agent's origin"),
        (
            (*AGENT, "--network", "clearing:example", "--agent-key-env", "AGENT_KEY", "--directory", "x"),
            "directories may be fetched",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_B7_an_agent_without_its_network_or_key_is_a_mistake_that_is_named(
    crawler: User, options: tuple[str, ...], says: str
) -> None:
    crawler.environment["AGENT_KEY"] = "07" * 32
    done = crawler.run("crawl", crawler.url("/"), "--budget", "1", "--yes", *options)
    assert done.code == 2, done.stdout
    assert says in done.stderr
    assert "07" * 32 not in done.stderr


def test_B1_ctrl_c_leaves_nothing_half_done(crawler: User, site: Site) -> None:
    process = crawler.start("crawl", crawler.url("/"), "--budget", "1", "--yes", "--json", "--delay", "0.2")
    while "/p/0" not in site.served and process.poll() is None:
        signal.sigtimedwait([], 0.02)
    done = interrupt(process)
    assert done.code == 130, done.stderr
    assert crawler.spent == sum(each.amount for each in crawler.journal() if each.state == "settled")
    assert all(each.state == "settled" for each in crawler.journal())
