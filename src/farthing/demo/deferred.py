"""`farthing demo deferred`: a crawl on credit, from the first promise to the last reconciled book.

A crawler reads thousands of pages of two publishers and signs a promise for each; the clearing house closes its window
and issues one statement; the crawler's auditor checks it against the journal and pays once, in USDC; the publishers
are paid out.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from farthing.buyer.audit_flow import Conclusion
from farthing.clients.statements import Auditor
from farthing.demo import deferred_parts, parts
from farthing.demo.deferred_books import (
    SETTLED,
    Books,
    Facts,
    bought,
    compare,
    promises_of,
    transfers_by_receiver,
)
from farthing.demo.deferred_parts import NETWORK, PRICE, Crawled, House
from farthing.demo.deferred_sites import NAMES, SitesOpened
from farthing.demo.deferred_story import DeferredStory
from farthing.demo.reconcile import show_address, transfers
from farthing.demo.run import ENVIRONMENT, interruptible, node_of
from farthing.demo.shop import networks_with
from farthing.errors import ConfigError
from farthing.evm.signatures import PrivateKey
from farthing.money import show_atomic
from farthing.protocol.signed_statements import open_statement
from farthing.protocol.statements import Statement
from farthing.services.devnet import Devnet, NodeName, start_devnet
from farthing.world.keys import LocalSigner

PAGES_DEFAULT: Final = 2_000
PAGES_MIN: Final = 2
# A front page has a link for each of its site's articles.
PAGES_MAX: Final = 20_000
_DECIMALS: Final = 6
_PRICE_ATOMIC: Final = 1_000
# The crawler may spend twice what the pages cost, and owes no more than that and two edges' leases.
_ROOM: Final = 2
_LEASES_ATOMIC: Final = 20_000_000
# Payees as offers name them, by the publishers' order.
_PAYEES: Final = ("gull", "harbour")
# What the auditor says of a statement that the clearing house has a payment for.
_PAID: Final = frozenset({"paid", "settled"})
# What a wait may take on a loaded machine: uploads, a payment, payouts; each takes a second or two.
_WAIT_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.25


def run_deferred(*, pages: int = PAGES_DEFAULT, node: str = "py-evm", as_json: bool = False) -> int:
    """Run it; give 0 where journal, statement, chain and balances agree, else 1. Raises `ConfigError`."""
    chosen = node_of(node)
    if not PAGES_MIN <= pages <= PAGES_MAX:
        message = f"--pages {pages}: from {PAGES_MIN} to {PAGES_MAX:,}."
        raise ConfigError(message)
    story = DeferredStory(Console(soft_wrap=True))
    begun = time.monotonic()
    with interruptible(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-demo-")))
        result = _Town(stack, folder, story, chosen, pages).run()
    result["seconds"] = parts.seconds_since(begun)
    if as_json:
        print(json.dumps(result), flush=True)
    return 0 if result["reconciled"] else 1


class _Town:
    """Everybody in it, in the order of their coming."""

    def __init__(self, stack: ExitStack, folder: Path, story: DeferredStory, node: NodeName, pages: int) -> None:
        self._stack = stack
        self._folder = folder
        self._story = story
        self._node: NodeName = node
        self._pages = pages
        self._environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        self._agent_key = secrets.token_bytes(32)
        self._signer = LocalSigner(secrets.token_bytes(32))
        self._publishers = {payee: PrivateKey(secrets.token_bytes(32)).address for payee in _PAYEES}
        self._auditor: Auditor
        self._devnet: Devnet
        self._house: House
        self._sites: SitesOpened
        self._edges: tuple[str, ...] = ()

    def run(self) -> dict[str, Any]:
        """Tell the whole story, and give its figures."""
        self._open()
        devnet, signer = self._devnet, self._signer
        cost = self._pages * _PRICE_ATOMIC
        devnet.faucet(signer.address, usdc=show_atomic(cost * _ROOM, _DECIMALS))
        accounts = {"crawler": signer.address, "treasury": self._house.treasury, **self._publishers}
        before = {name: devnet.usdc_balance(address) for name, address in accounts.items()}

        crawled = self._crawl(cost)
        statements = self._close_window()
        self._story.chapter("The payer audits and pays", "one authorisation in all")
        self._auditor = self._stack.enter_context(self._hire())
        for statement in statements:
            self._pay(statement)
        self._wait_paid_out()
        # The journal learns of it as it learns of everything: the house names a transaction.
        settled = [self._auditor.pay(each.id) for each in statements]

        after = {name: devnet.usdc_balance(address) for name, address in accounts.items()}
        books = self._compare(crawled, statements, settled, before, after)
        for transaction in books.transactions:
            receipt = devnet.rpc("eth_getTransactionReceipt", transaction)
            moved = [(show_address(each.from_), show_address(each.to), each.value) for each in transfers(receipt)]
            self._story.settled(receipt, moved)
        self._story.balances(before, after)
        self._story.reconciled(books)
        seconds = float(crawled.said["seconds"])
        return {
            "pages": crawled.bought,
            "commitments": books.sums[1].commitments,
            "statements": len(statements),
            "transactions": len(books.transactions),
            "pages_per_second": round(crawled.bought / seconds, 1) if seconds else 0.0,
            "spent": show_atomic(before["crawler"] - after["crawler"], _DECIMALS),
            "asset": "USDC",
            "reconciled": books.agree and crawled.bought == self._pages,
        }

    # The cast

    def _open(self) -> None:
        story, folder, stack = self._story, self._folder, self._stack
        story.stage(
            f"starting a chain ({self._node}), two sites, a clearing house and two edges, on free loopback ports"
        )
        articles = (self._pages - self._pages // 2, self._pages // 2)
        wait_sites = stack.enter_context(deferred_parts.sites(folder, articles, self._agent_key, self._environment))
        self._devnet = devnet = stack.enter_context(start_devnet(self._node))
        story.ready("chain", devnet.url, f"{devnet.network}, USDC at {devnet.usdc}")
        wallet, wallet_key = devnet.accounts[1]
        wait_facilitator = stack.enter_context(
            parts.facilitator(
                folder=folder,
                network=devnet.network,
                rpc_url=devnet.url,
                usdc=devnet.usdc,
                wallet_key=wallet_key,
                environment=self._environment,
            )
        )
        self._sites = wait_sites()
        for name, url, count in zip(NAMES, self._sites.sites, articles, strict=True):
            story.ready("site", url, f"{name}, {count:,} articles; it knows of no payments")
        story.ready("directory", self._sites.agent, "the crawler's public key, signed by it")
        facilitator_url, _, _ = wait_facilitator()
        story.ready("facilitator", facilitator_url, f"hot wallet {wallet}")
        ports = stack.enter_context(deferred_parts.reserved_ports(len(_PAYEES)))
        domains = tuple(f"127.0.0.1:{port}" for port in ports)
        self._house = stack.enter_context(
            deferred_parts.clearing(
                folder=folder,
                devnet=devnet,
                facilitator=facilitator_url,
                domains=domains,
                environment=self._environment,
            )
        )
        story.ready("clearing", self._house.url, f"{NETWORK}, treasury {self._house.treasury}")
        credit = self._pages * _PRICE_ATOMIC * _ROOM + _LEASES_ATOMIC
        account = {"payer": self._sites.agent, "creditLimit": str(credit), "currency": "USD"}
        self._house.ask("POST", "/payers", account)
        self._open_edges(ports, domains)
        story.ready("crawler", self._signer.address, f"promises as {self._sites.agent}, pays in USDC from here")

    def _open_edges(self, ports: tuple[int, ...], domains: tuple[str, ...]) -> None:
        house = self._house
        waits: list[Callable[[], str]] = []
        for number, (payee, port, domain) in enumerate(zip(_PAYEES, ports, domains, strict=True)):
            opened = {"payee": payee, "domain": domain, "address": self._publishers[payee]}
            deferred_parts.show_proof(self._folder, number, house.ask("POST", "/payees", opened)["challenge"])
            name = f"edge-{payee}"
            token = house.ask("POST", "/tokens", {"name": name, "role": "edge", "subject": payee})["token"]
            config = deferred_parts.edge_config(
                name=name,
                folder=self._folder,
                port=port,
                site=self._sites.sites[number],
                payee=payee,
                clearing=house.url,
                agent=self._sites.agent,
            )
            waits.append(
                self._stack.enter_context(
                    deferred_parts.edge(
                        config, name=name, folder=self._folder, token=token, environment=self._environment
                    )
                )
            )
        self._edges = tuple(wait() for wait in waits)
        for payee, url, site, name in zip(_PAYEES, self._edges, self._sites.sites, NAMES, strict=True):
            house.ask("POST", f"/payees/{payee}/prove")
            self._story.ready("edge", url, f"in front of {site}, {PRICE} an article; {name} has proved its domain")

    # The plot

    def _crawl(self, cost: int) -> Crawled:
        story = self._story
        story.chapter("The crawl", "farthing crawl, a Scrapy: a promise a page")
        with story.crawling(self._pages) as watch:
            crawled = deferred_parts.crawl(
                self._edges,
                folder=self._folder,
                agent=self._sites.agent,
                agent_key=self._agent_key,
                budget=show_atomic(cost * _ROOM, _DECIMALS),
                environment=self._environment,
                watch=watch,
            )
        seconds = float(crawled.said["seconds"])
        story.detail("read", f"{len(crawled.pages):,} pages, {crawled.bought:,} bought, in {seconds:.1f} s")
        for reason, count in crawled.said["refusals"].items():
            story.detail("not read", f"{count:,}: {reason}")
        return crawled

    def _close_window(self) -> list[Statement]:
        story, house = self._story, self._house
        story.chapter("The window closes", "by the operator; else once a day")
        self._wait(lambda: not any(deferred_parts.health(url)["waiting"] for url in self._edges), "the edges' uploads")
        story.detail("edges", "all that they logged is uploaded")
        house.ask("POST", "/window/close")
        found: list[Statement] = []
        for each in house.ask("GET", "/statements"):
            answer = house.ask("GET", f"/statements/{each['statement']}")
            statement, *_ = open_statement(answer["jws"])
            story.statement(answer["status"], msgspec.to_builtins(statement))
            found.append(statement)
        return found

    def _pay(self, statement: Statement) -> None:
        self._story.audited(self._auditor.audit(statement.id))
        conclusion = self._auditor.pay(statement.id)
        self._story.concluded(conclusion)
        if conclusion.outcome not in _PAID:
            message = f"The statement {statement.id} was not paid: {conclusion.outcome} {conclusion.reason}."
            raise parts.PartFailed(message)

    def _hire(self) -> Auditor:
        asked = {"name": "crawler", "role": "payer", "subject": self._sites.agent}
        token = self._house.ask("POST", "/tokens", asked)["token"]
        ceiling = show_atomic(self._pages * _PRICE_ATOMIC * _ROOM, _DECIMALS)
        return Auditor(
            self._house.url,
            token,
            payer=self._sites.agent,
            network=NETWORK,
            journal=deferred_parts.journal_path(self._folder),
            signer=self._signer,
            networks=networks_with(self._devnet.network, self._devnet.usdc),
            rail_networks=[self._devnet.network],
            per_statement=ceiling,
            per_window=ceiling,
            treasury=self._house.treasury,
        )

    def _wait_paid_out(self) -> None:
        self._story.chapter("Settlement", "only the chain says that money moved")

        def even() -> bool:
            # Finality needs blocks, and nobody else makes any here.
            self._devnet.mine(1)
            statements = self._house.ask("GET", "/statements")
            payouts = self._house.ask("GET", "/lists/payouts")["entries"]
            return (
                all(each["state"] == SETTLED for each in statements)
                and {each["name"] for each in payouts if each["state"] == SETTLED} == set(_PAYEES)
                and not self._house.ask("GET", "/balances?pending=1")
            )

        self._wait(even, "the payment and the payouts")
        self._story.detail("state", "the statement and both payouts are settled")

    def _compare(
        self,
        crawled: Crawled,
        statements: list[Statement],
        settled: list[Conclusion],
        before: dict[str, int],
        after: dict[str, int],
    ) -> Books:
        house, devnet = self._house, self._devnet
        facts = Facts(
            kept=bought(crawled.pages),
            promised=promises_of(deferred_parts.journal_path(self._folder)),
            lines=tuple(line for each in statements for line in house.lines(each.id)),
            net=sum(int(each.net) for each in statements),
            settled_by=tuple(each.transaction for each in settled if each.outcome == SETTLED),
            publishers=self._publishers,
            paid=before["crawler"] - after["crawler"],
            earned={payee: after[payee] - before[payee] for payee in _PAYEES},
            transfers_in=transfers_by_receiver(devnet, self._signer.address),
            transfers_out=transfers_by_receiver(devnet, house.treasury),
            house={name: int(amount) for name, amount in house.ask("GET", "/balances").items()},
            pending={name: int(amount) for name, amount in house.ask("GET", "/balances?pending=1").items()},
            treasury=house.treasury.lower(),
        )
        return compare(facts)

    def _wait(self, so: Callable[[], bool], what: str) -> None:
        """Look until it is so. Raises `PartFailed`."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not so():
            if time.monotonic() > deadline:
                message = f"{what[:1].upper()}{what[1:]} did not come about within {_WAIT_SECONDS:.0f} s."
                raise parts.PartFailed(message)
            time.sleep(_LOOK_SECONDS)
