"""One run of `farthing crawl`: ask about the budget, crawl, show how far it is, and say how it ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from farthing.buyer import Policy
from farthing.cli.agents import AgentSource, open_agent
from farthing.cli.outcome import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_POLICY
from farthing.cli.signing import KeySource, open_signer
from farthing.cli.terminal import Terminal, plain
from farthing.cli.tokens import known_networks, payable_networks
from farthing.clients.buyer import Buyer
from farthing.clients.crawl import Crawl, Progress, Spending
from farthing.clients.memory import is_on_credit
from farthing.errors import ConfigError, PolicyRefused
from farthing.money import show_atomic
from farthing.networks import Networks

if TYPE_CHECKING:
    from farthing.buyer.policy import PriceText

_LINE_CHARS: Final = 100
# Scrapy's word for Ctrl-C and SIGTERM.
_INTERRUPTED: Final = "shutdown"
_BUDGET_SPENT: Final = "budget_spent"


class CrawlOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says, as it is written there."""

    urls: tuple[str, ...]
    budget: str
    price_max: str
    per_host: str | None
    output: Path | None
    hosts: tuple[str, ...]
    pages_max: int
    depth_max: int
    concurrency: int
    delay_seconds: float
    yes: bool
    networks: tuple[str, ...]
    tokens: tuple[str, ...]
    journal: str
    key: KeySource
    agent: AgentSource
    as_json: bool
    verbose: bool


def run_crawl(order: CrawlOrder) -> int:
    """Crawl, say how it ended, and give the exit code. Raises `FarthingError` for what can't be begun."""
    terminal = Terminal()
    networks = known_networks(order.tokens)
    policy = _policy(order, networks)
    crawl = Crawl(
        urls=order.urls,
        hosts=order.hosts,
        output=order.output,
        pages_max=order.pages_max,
        depth_max=order.depth_max,
        concurrency=order.concurrency,
        delay_seconds=order.delay_seconds,
        settings={"LOG_ENABLED": True, "LOG_LEVEL": "DEBUG"} if order.verbose else {},
    )
    hosts = ", ".join(sorted(crawl.allowed_hosts()))
    _agree(order, terminal, hosts)
    spending = Spending()
    with _buyer(order, policy, networks, terminal, spending) as buyer:
        bar = _Bar(terminal, networks, order.budget)
        progress = crawl.run(buyer, spending, bar.show)
        bar.end()
    code = _exit_code(progress)
    if order.as_json:
        sys.stdout.write(_as_json(progress, networks, code) + "\n")
    else:
        _say(terminal, progress, networks, order)
    return code


def _buyer(order: CrawlOrder, policy: Policy, networks: Networks, terminal: Terminal, spending: Spending) -> Buyer:
    agent = open_agent(order.agent)
    allowed = order.agent.directories
    directories = None
    if agent is not None and allowed:
        from farthing.world.directories import Directories  # noqa: PLC0415 - only who pays on credit

        directories = Directories(allowed=allowed)
    on_chain = any(not is_on_credit(each) for each in policy.networks)
    return Buyer(
        # Who pays by promises alone needs no wallet.
        signer=open_signer(order.key, terminal) if on_chain else None,
        policy=policy,
        journal=order.journal,
        networks=networks,
        agent=agent,
        directories=directories,
        watch=spending,
    )


def _policy(order: CrawlOrder, networks: Networks) -> Policy:
    per_host: PriceText | None = order.per_host
    payable = payable_networks(networks, order.networks)
    credit = [each for each in payable if is_on_credit(each)]
    if order.agent.origin and not credit:
        raise ConfigError("--agent pays on credit: name the clearing network, like --network clearing:example.")
    if credit and not order.agent.origin:
        message = f"{credit[0]} is paid by promises: say whose, by --agent https://… (the origin of its key directory)."
        raise ConfigError(message)
    policy = Policy(
        networks=payable,
        per_request=order.price_max,
        per_session=order.budget,
        per_host=per_host,
        total=None,
    )
    policy.check_against(networks)
    return policy


def _agree(order: CrawlOrder, terminal: Terminal, hosts: str) -> None:
    if order.yes:
        return
    if not terminal.can_ask:
        raise ConfigError("Nobody is there to be asked about the budget: say --yes to spend up to --budget.")
    if not terminal.confirms(f"Read {hosts}, and pay up to {order.budget} in all, {order.price_max} a page?"):
        raise PolicyRefused("You said no.", reason="declined", advice="Nothing was read.")


class _Bar:
    """The line that says how far it is, on a terminal."""

    def __init__(self, terminal: Terminal, networks: Networks, budget: str) -> None:
        self._shows = terminal.shows_progress
        self._networks = networks
        self._budget = budget

    def show(self, progress: Progress) -> None:
        if not self._shows:
            return
        spent = _spent(progress, self._networks) or "nothing"
        line = f"{progress.pages:,} pages, {progress.bought:,} bought, {spent} of {self._budget}"
        missed = progress.failed + progress.not_bought
        if missed:
            line += f", {missed:,} missed"
        print(f"\r{plain(line)[:_LINE_CHARS]:<{_LINE_CHARS}}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shows:
            print(f"\r{'':<{_LINE_CHARS}}\r", end="", file=sys.stderr, flush=True)


def _exit_code(progress: Progress) -> int:
    if progress.reason == _INTERRUPTED:
        return EXIT_INTERRUPTED
    if progress.reason == _BUDGET_SPENT:
        return EXIT_POLICY
    return EXIT_DONE if progress.pages else EXIT_FAILED


def _spent(progress: Progress, networks: Networks) -> str:
    parts: list[str] = []
    for (network, asset), amount in sorted(progress.spent.items()):
        token = networks.token(network, asset)
        parts.append(
            f"{amount} of {asset}" if token is None else f"{show_atomic(amount, token.decimals)} {token.symbol}"
        )
    return " and ".join(parts)


def _say(terminal: Terminal, progress: Progress, networks: Networks, order: CrawlOrder) -> None:
    why = {_INTERRUPTED: " Stopped by you.", _BUDGET_SPENT: f" The budget of {order.budget} is spent."}
    spent = _spent(progress, networks) or "nothing"
    terminal.say(
        f"Read {progress.pages:,} pages ({progress.size_bytes:,} bytes) in {progress.seconds:.1f} s; "
        f"{progress.bought:,} bought for {spent}.{why.get(progress.reason, '')}"
    )
    for reason, count in sorted(progress.refusals.items()):
        terminal.say(f"  {count:,} not read: {reason}")
    if order.output is not None and progress.pages:
        terminal.say(f"They are in {order.output}.")


def _as_json(progress: Progress, networks: Networks, code: int) -> str:
    spent = [
        {"network": network, "asset": asset, "amount": str(amount)}
        | ({} if token is None else {"price": show_atomic(amount, token.decimals), "symbol": token.symbol})
        for (network, asset), amount in sorted(progress.spent.items())
        for token in (networks.token(network, asset),)
    ]
    told = {
        "pages": progress.pages,
        "bought": progress.bought,
        "not_bought": progress.not_bought,
        "failed": progress.failed,
        "bytes": progress.size_bytes,
        "seconds": round(progress.seconds, 2),
        "spent": spent,
        "refusals": progress.refusals,
        "reason": progress.reason,
        "exit_code": code,
    }
    return msgspec.json.encode(told).decode()
