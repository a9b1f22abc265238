"""What `farthing demo deferred` shows in the terminal, in plain lines, and the crawl's progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from farthing.buyer.audit_flow import Audit, Conclusion
from farthing.demo.deferred_books import Books
from farthing.demo.story import Story

# Where no terminal shows a bar, so many lines tell how far the crawl is.
_LINES_OF_PROGRESS: Final = 4


class DeferredStory(Story):
    """Tells of a crawl on credit. It prints what happened and never what should have."""

    def __init__(self, console: Console) -> None:
        """Tell it on `console`."""
        super().__init__(console)
        self._chapters = 0

    def chapter(self, title: str, note: str = "") -> None:
        """Open a chapter."""
        self._chapters += 1
        self.purchase(self._chapters, title, note)

    def detail(self, name: str, text: str) -> None:
        """Say one thing."""
        self.console.print(f"  [dim]{name:<12}[/dim] {escape(text)}", highlight=False)

    @contextmanager
    def crawling(self, pages: int) -> Generator[Callable[[int], None]]:
        """Show how far the crawl is; the callable is told the pages so far."""
        if self.console.is_terminal:
            columns = (TextColumn("  crawling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task("", total=pages)
                yield lambda done: bar.update(task, completed=min(done, pages))
            return
        step = max(1, pages // _LINES_OF_PROGRESS)
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            if done // step > told:
                told = done // step
                self.detail("pages", f"{min(done, pages):,} of {pages:,}")

        yield tell

    def statement(self, status: Mapping[str, Any], statement: Mapping[str, Any]) -> None:
        """Show a statement."""
        self._line("blue", "§", f"statement {statement['id']} for {escape(statement['payer'])}")
        self._detail("lines", f"{statement['count']:,}, {self.money(int(statement['net']))}")
        self._detail("root", f"{statement['root']}")
        self._detail("state", f"{status['state']}, {self.money(int(status['payable']))} to pay")

    def audited(self, audit: Audit) -> None:
        """Show what the payer's auditor found."""
        if audit.fault is not None:
            self.detail("refused", f"{audit.fault.code}: {audit.fault.detail}")
            return
        judged = f"{len(audit.disputes):,} disputed" if audit.disputes else "all as promised"
        self.detail("audit", f"signature, root and {audit.count:,} lines against the journal: {judged}")
        for each in audit.disputes:
            self.detail("disputed", f"{each.line}: {each.reason}")

    def concluded(self, conclusion: Conclusion) -> None:
        """Show what came of a statement."""
        told = f" {conclusion.reason} {conclusion.detail}".rstrip()
        self.detail(conclusion.outcome, f"{self.money(conclusion.amount)}, one EIP-3009 authorisation{told}")

    def reconciled(self, books: Books) -> None:
        """Show what each book says, and whether they agree."""
        table = Table(title="Reconciliation", title_justify="left", title_style="bold", box=None)
        for column in ("book", "commitments", "amount"):
            table.add_column(column, justify="left" if column == "book" else "right")
        for each in books.sums:
            table.add_row(
                each.book, "" if each.commitments is None else f"{each.commitments:,}", self.money(each.amount)
            )
        self.console.print()
        self.console.print(table)
        for fault in books.faults:
            self.console.print(f"[red]✗[/red] {escape(fault)}", highlight=False)
        if books.agree:
            self.console.print(
                "[green]✓[/green] journal = statement = Transfer logs = publishers' balances", highlight=False
            )
