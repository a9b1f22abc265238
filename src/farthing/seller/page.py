"""The page that a person sees on a 402: what it costs, in words, and how a program pays. Self-contained, no scripts."""

from __future__ import annotations

from html import escape
from typing import Final

from farthing.money import show_atomic
from farthing.networks import KNOWN, Networks
from farthing.protocol.messages import PaymentRequired, PaymentRequirements
from farthing.seller.pricing import PAYMENT_FLOW

# A page is read by people: the first few offers are enough, and the header has them all.
_OFFERS_SHOWN: Final = 8

# What a 402 says to who has not paid at all (the specification's own words); a person needs no such reason.
UNPAID: Final = "PAYMENT-SIGNATURE header is required"

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#17181c;--soft:#5d6068;--line:#e3e4e8;--paper:#fff;--back:#f5f5f2;--mark:#b4531f}
@media(prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#a0a3ad;--line:#33353c;--paper:#1c1d22;--back:#121317;
--mark:#f0a070}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;
display:grid;place-items:center;min-height:100vh;padding:1.5rem}
main{background:var(--paper);border:1px solid var(--line);border-radius:14px;max-width:40rem;width:100%;min-width:0;
padding:2rem;overflow-wrap:anywhere}
.status{color:var(--mark);font-weight:600;letter-spacing:.06em;text-transform:uppercase;font-size:.78rem;margin:0}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0 .6rem}
h2{font-size:1rem;margin:1.8rem 0 .5rem}
p{margin:.4rem 0}
.soft,td small{color:var(--soft)}
code,pre{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
pre{background:var(--back);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow:auto;
white-space:pre-wrap}
table{border-collapse:collapse;width:100%}
td{border-top:1px solid var(--line);padding:.6rem 0;vertical-align:top}
td:first-child{white-space:nowrap;font-weight:600;padding-right:1.2rem}
td small{display:block;overflow-wrap:anywhere}
.why{border-left:3px solid var(--mark);padding-left:.8rem}
"""


def page_headers() -> list[tuple[str, str]]:
    """Give the headers that keep the page what it is: nothing loads, nothing runs, nobody frames it."""
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [("content-security-policy", policy), ("referrer-policy", "no-referrer")]


def price_in_words(offer: PaymentRequirements, networks: Networks = KNOWN) -> str:
    """Say what an offer costs, as a person reads it: `0.01 USDC`."""
    token = networks.token(offer.network, offer.asset)
    if token is None:
        return f"{offer.amount} atomic units"
    return f"{show_atomic(offer.atomic, token.decimals)} {token.symbol}"


def _row(offer: PaymentRequirements, networks: Networks) -> str:
    network = networks.find(offer.network)
    name = offer.network if network is None else network.name
    test = " (test money)" if network is not None and network.testnet else ""
    when = "before the answer is made" if (offer.extra or {}).get(PAYMENT_FLOW) == "upfront" else "once it is ready"
    return (
        f"<tr><td>{escape(price_in_words(offer, networks))}</td><td>on {escape(name)}{test}, {when}"
        f"<small>{escape(offer.network)} · asset {escape(offer.asset)}</small>"
        f"<small>to {escape(offer.pay_to)} · scheme {escape(offer.scheme)}, "
        f"within {offer.max_timeout_seconds} seconds</small></td></tr>"
    )


def render_page(message: PaymentRequired, networks: Networks = KNOWN) -> bytes:
    """Render a 402 for a person. Every text is escaped; an offer that we can't name is shown by its raw values."""
    resource = message.resource
    offers = message.accepts[:_OFFERS_SHOWN]
    price = price_in_words(offers[0], networks) if offers else "a payment"
    about = f"<p>{escape(resource.description)}</p>" if resource.description else ""
    refused = message.error if message.error != UNPAID else None
    why = f'<p class="why">{escape(refused)}</p>' if refused else ""
    program = escape(_program(resource.url, offers[0].network if offers else ""))
    rows = "".join(_row(each, networks) for each in offers)
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="robots" content="noindex"><title>Payment required: {escape(price)}</title>'
        f"<style>{_STYLE}</style></head><body><main>"
        f'<p class="status">402 · payment required</p><h1>This costs {escape(price)}.</h1>{about}'
        f"<p><code>{escape(resource.url)}</code></p>{why}"
        "<h2>What it costs</h2>"
        f"<table><tbody>{rows}</tbody></table>"
        "<h2>How to pay</h2>"
        '<p class="soft">Programs pay here by themselves, over x402 version 2: they read the offer in the header '
        "PAYMENT-REQUIRED of this answer, sign it, and ask again with PAYMENT-SIGNATURE. In Python, for example:</p>"
        f"<pre>{program}</pre>"
        '<p class="soft">Nothing on this page asks for a wallet, and nothing was charged.</p>'
        "</main></body></html>"
    )
    return html.encode("utf-8", "replace")


def _program(url: str, network: str) -> str:
    """Show a program that pays; `pip install "farthing[httpx]"` is all that it needs."""
    return f"""import httpx2
from farthing.clients import Buyer, Policy, signer_from_env
from farthing.clients.httpx import PayingTransport

policy = Policy(networks=[{network!r}])
buyer = Buyer(signer=signer_from_env("BUYER_KEY"), policy=policy,
              journal="journal.sqlite")
with httpx2.Client(transport=PayingTransport(buyer)) as client:
    print(client.get({url!r}).text)"""
