"""A person who opens a priced URL in a browser sees a page: Playwright on the system's Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import peers
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, sync_playwright

from farthing.servers.asgi import PaymentMiddleware
from farthing.servers.seller import Seller
from farthing.world.facilitator_client import RemoteFacilitator

if TYPE_CHECKING:
    from tests.local_services import LocalServices
    from tests.peers.peers import Shop

DESCRIPTION = 'Tomorrow\'s weather for <b>Oslo</b> & "Bergen" <script>document.title = "taken"</script>'
LONG_PATH = "/report/" + "a-rather-long-name-without-any-space" * 6
# The narrowest telephones have some 320 pixels, most 360 to 430; then a tablet, then a desk.
WIDTHS = [320, 400, 768, 1400]
# Chromium as root in a container: no sandbox of its own, no graphics card, little shared memory.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("FARTHING_REQUIRE_ALL") == "1":
            pytest.fail("there is no chromium (and FARTHING_REQUIRE_ALL=1 is set)")
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def shop(local: LocalServices) -> Shop:
    """A seller with a cheap route, a dear one that settles first, and one with a long name."""
    shop: Shop = peers.Shop(payee=local.wallet().address)

    def make(url: str) -> Any:
        seller = Seller(
            pay_to=shop.payee,
            network=local.devnet.network,
            facilitator=RemoteFacilitator("http://127.0.0.1:9"),  # nobody asks it: nobody pays here
            base_url=url,
            store=local.path("seller.sqlite3"),
            networks=local.networks,
        )
        local.at_end(seller.close)
        seller.price(f"GET {peers.PATH}", "$0.01", description=DESCRIPTION)
        seller.price("GET /dear", "$1234.5", payment_flow="upfront")
        seller.price("GET /report/{name}", "$0.002", description="D" * 300)
        return PaymentMiddleware(FastAPI(), seller=seller)

    shop.url = local.serve(make)
    return shop


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose trouble is collected in `page.trouble`."""
    context = browser.new_context()
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    opened.on("console", lambda said: trouble.append(f"console: {said.text}"))
    opened.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
    yield opened
    # Chromium itself notes the status 402 in the console, and nothing else is to be noted.
    assert [each for each in trouble if "status of 402" not in each] == []
    context.close()


def open_page(page: Page, url: str) -> None:
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 402
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "payment-required" in answer.headers
    assert [each for each in fetched if each not in {url, url.rsplit("/", 1)[0] + "/favicon.ico"}] == []


def test_a_browser_shows_what_it_costs(page: Page, shop: Shop) -> None:
    open_page(page, shop.report)
    assert page.title() == "Payment required: 0.01 USDC"
    assert page.get_by_role("heading", level=1).inner_text() == "This costs 0.01 USDC."
    text = page.inner_text("main")
    assert DESCRIPTION in text
    assert shop.report in text
    assert shop.payee in text
    assert "Farthing devnet" in text
    assert "test money" in text
    assert page.locator("script, iframe, form, img, link").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", [peers.PATH, "/dear", LONG_PATH], ids=["plain", "dear", "long"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_nothing_scrolls_sideways(
    page: Page, shop: Shop, width: int, path: str, scheme: Any
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    open_page(page, shop.url + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate("""
        () => [...document.querySelectorAll("main *")]
            .filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline")
            .map(each => each.tagName + ": " + each.textContent.slice(0, 40))
    """)
    assert cut == []
    if folder := os.environ.get("FARTHING_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{path.strip('/')[:12]}-{width}-{scheme}.png", full_page=True)


def test_the_text_can_be_read_against_its_ground(page: Page, shop: Shop) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1, in light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        open_page(page, shop.report)
        worst = page.evaluate("""
            () => {
                const channels = text => text.match(/[\\d.]+/g).map(Number);
                const linear = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
                const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
                const ground = each => {
                    for (; each; each = each.parentElement) {
                        const found = channels(getComputedStyle(each).backgroundColor);
                        if (found.length < 4 || found[3] > 0) return found;
                    }
                    return [255, 255, 255];
                };
                return Math.min(...[...document.querySelectorAll("main *")].map(each => {
                    const [a, b] = [light(channels(getComputedStyle(each).color)), light(ground(each))];
                    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                }));
            }
        """)
        assert worst >= 4.5, scheme


def test_a_page_without_scripts_is_the_same_page(browser: Browser, shop: Shop) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_page(page, shop.report)
    assert page.get_by_role("heading", level=1).inner_text() == "This costs 0.01 USDC."
    context.close()
