"""A statement as a page for people: no script, no style from elsewhere, every stranger's text escaped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from html import escape
from typing import Final

from farthing.money import show_atomic
from farthing.protocol.statements import Statement, StatementLine, StatementStatus

# Lines that are shown; all of them are in the files that the page points to.
LINES_SHOWN: Final = 200
# What may be loaded by the page: nothing.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.facts td,td.u{overflow-wrap:anywhere}"
)


def statement_page(statement: Statement, status: StatementStatus, lines: Iterable[StatementLine]) -> bytes:
    """Write the page, with the first lines of the statement."""
    money = _money(statement)
    facts = [
        ("Payer", escape(statement.payer)),
        ("Window", f"{_day(statement.window.opened)} to {_day(statement.window.closed)}"),
        ("Lines", f"{statement.count:,}"),
        ("Gross", money(statement.gross)),
        ("Adjustments", money(statement.adjustments)),
        ("Net", money(statement.net)),
        ("Disputed", money(status.disputed)),
        ("To pay", money(status.payable)),
        ("State", escape(status.state)),
        ("Due", _day(statement.due)),
        ("Disputes until", _day(statement.dispute_until)),
        ("Pay to", f"{escape(statement.rail.pay_to)} on {escape(statement.rail.network)}"),
        ("Nonce", escape(statement.rail.reference)),
        ("Merkle root", escape(statement.root)),
    ]
    shown = [_row(line, money) for line in lines]
    rest = statement.count - len(shown)
    more = f"<p>{rest:,} more in the file of lines.</p>" if rest > 0 else ""
    name = escape(statement.id)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}"><title>Statement {name}</title>'
        f'<style>{_STYLE}</style><h1>Statement {name}</h1><table class="facts">'
        + "".join(f"<tr><th>{what}</th><td>{value}</td></tr>" for what, value in facts)
        + '</table><h2>Lines</h2><table><tr><th>Time</th><th>Payee</th><th>Resource</th><th class="n">Charged</th></tr>'
        + "".join(shown)
        + f"</table>{more}</html>"
    )
    return page.encode()


def _money(statement: Statement) -> Callable[[str], str]:
    def write(amount: str) -> str:
        sign = "-" if amount.startswith("-") else ""
        return f"{sign}{show_atomic(int(amount.lstrip('-')), statement.decimals)} {escape(statement.currency)}"

    return write


def _row(line: StatementLine, money: Callable[[str], str]) -> str:
    note = f"<br><small>{escape(line.adjustment)}</small>" if line.adjustment else ""
    return (
        f"<tr><td>{_moment(int(line.time))}</td><td>{escape(line.payee)}</td>"
        f'<td class="u">{escape(line.resource)}{note}</td><td class="n">{money(line.charged)}</td></tr>'
    )


def _day(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _moment(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
