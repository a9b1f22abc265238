"""What the demo shows in the terminal: every step of a purchase as it happens, in plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farthing.demo.reconcile import Line
from farthing.money import show_atomic
from farthing.protocol.codec import ReceivedOffers

# Long enough for a line of JSON, short enough to stay one or two lines.
_BODY_SHOWN_CHARS = 160
# Of a payment id or a transaction hash, enough to tell them apart.
_NAME_SHOWN_CHARS = 14


class Story:
    """Tells the demo's story on a console. It prints what happened and never what should have."""

    def __init__(self, console: Console, *, symbol: str = "USDC", decimals: int = 6) -> None:
        """Tell amounts in `symbol` of `decimals`."""
        self.console = console
        self._symbol = symbol
        self._decimals = decimals

    def money(self, atomic: int) -> str:
        """Write an amount as people read it."""
        return f"{show_atomic(atomic, self._decimals)} {self._symbol}"

    def stage(self, text: str) -> None:
        """Say what is being started or done."""
        self.console.print(f"[dim]·[/dim] {text}", highlight=False)

    def ready(self, name: str, where: str, note: str = "") -> None:
        """Say that a part is up, and where."""
        self.console.print(f"[green]✓[/green] {name:<12} {escape(where)}  [dim]{escape(note)}[/dim]", highlight=False)

    def purchase(self, number: int, title: str, note: str) -> None:
        """Open the account of one purchase."""
        self.console.print()
        self.console.rule(f"[bold]{number}[/bold]  {escape(title)}  [dim]{escape(note)}[/dim]", align="left")

    def request(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """Show a request as it leaves, with the size of its payment."""
        payment = headers.get("payment-signature")
        carried = f"  [magenta]PAYMENT-SIGNATURE[/magenta] ({len(payment):,} bytes)" if payment else ""
        self._line("cyan", "→", f"{method} {escape(url)}{carried}")

    def response(self, status: int, phrase: str, headers: Mapping[str, str]) -> None:
        """Show an answer's first line, and the payment headers that it carries."""
        carried = [
            f"[magenta]{name.upper()}[/magenta] ({len(headers[name]):,} bytes)"
            for name in ("payment-required", "payment-response")
            if name in headers
        ]
        self._line("cyan", "←", "  ".join([f"{status} {phrase}", *carried]))

    def body(self, body: str) -> None:
        """Show the start of what was bought."""
        self._detail("body", body if len(body) <= _BODY_SHOWN_CHARS else body[:_BODY_SHOWN_CHARS] + "…")

    def offers(self, received: ReceivedOffers) -> None:
        """Show a 402's decoded offers."""
        for offer in received.offers:
            terms = offer.requirements
            flow = (terms.extra or {}).get("paymentFlow", "authorization")
            self._detail(
                "offer",
                f"{terms.scheme} on {terms.network}, {flow}: {self.money(terms.atomic)} ({terms.amount} atomic units)",
            )
            self._detail("", f"asset {terms.asset}, pay to {terms.pay_to}, within {terms.max_timeout_seconds} s")

    def signing(self, typed: Mapping[str, Any]) -> None:
        """Show what is signed: the EIP-712 domain and every field."""
        domain, message = typed["domain"], typed["message"]
        self._line("yellow", "✎", f"signs EIP-712 {typed['primaryType']}")
        self._detail("domain", ", ".join(f"{name} {value}" for name, value in domain.items()))
        for name, value in message.items():
            self._detail("", f"{name:<12} {value}")

    def facilitator(self, text: str) -> None:
        """Show a line of the facilitator's own log."""
        self._line("blue", "⚖", f"facilitator: {escape(text)}")

    def settled(self, receipt: Mapping[str, Any], transfers: list[tuple[str, str, int]]) -> None:
        """Show the settling transaction as the chain has it: block, gas, Transfer logs."""
        self._line("green", "⛓", f"transaction {receipt['transactionHash']}")
        block, gas = int(receipt["blockNumber"], 16), int(receipt["gasUsed"], 16)
        self._detail("block", f"{block}, gas used {gas:,}, status {int(receipt['status'], 16)}")
        for sender, receiver, value in transfers:
            self._detail("Transfer", f"{sender} → {receiver}  {self.money(value)}")

    def balances(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Show each account's balance before and after, as read from the chain."""
        table = Table(title="Balances, read from the chain", title_justify="left", title_style="bold", box=None)
        for column in ("account", "before", "after", "change"):
            table.add_column(column, justify="left" if column == "account" else "right")
        for name, old in before.items():
            change = after[name] - old
            shown = ("+" if change > 0 else "-" if change < 0 else "") + self.money(abs(change))
            table.add_row(name, self.money(old), self.money(after[name]), shown)
        self.console.print()
        self.console.print(table)

    def reconciliation(self, lines: list[Line], *, agree: bool) -> None:
        """Show, for each payment, what journal, ledger and chain say."""
        table = Table(title="Reconciliation", title_justify="left", title_style="bold", box=None)
        for column in ("payment", "transaction", "journal", "ledger", "Transfer log"):
            table.add_column(column, justify="left" if column in ("payment", "transaction") else "right")
        for line in lines:
            amounts = (
                "nothing" if each is None else self.money(each) for each in (line.journal, line.ledger, line.chain)
            )
            names = (each[:_NAME_SHOWN_CHARS] + "…" if each else "none" for each in (line.payment_id, line.transaction))
            table.add_row(*names, *amounts, style=None if line.agrees else "red")
        self.console.print()
        self.console.print(table)
        verdict = (
            "[green]✓[/green] journal = ledger = Transfer logs"
            if agree
            else "[red]✗ journal, ledger and Transfer logs disagree[/red]"
        )
        self.console.print(verdict, highlight=False)

    def _line(self, colour: str, sign: str, text: str) -> None:
        self.console.print(f"  [{colour}]{sign}[/{colour}] {text}", highlight=False, soft_wrap=True)

    def _detail(self, name: str, text: str) -> None:
        self.console.print(f"      [dim]{name:<9}[/dim] {escape(text)}", highlight=False, soft_wrap=True)
