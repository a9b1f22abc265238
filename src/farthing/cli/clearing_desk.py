"""`farthing clearing window|statements|disputes|payouts|suspense|books|audit|proof`: an operator's daily work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer

from farthing.cli.clearing_house import HERE, TOKEN_VARIABLE, AsJson, House, Token, Url, moment, money, show
from farthing.cli.terminal import plain
from farthing.errors import ConfigError


def window(
    *,
    close: Annotated[
        bool, typer.Option("--close", help="Close the open window now, and issue its statements.")
    ] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List the clearing windows, or close the one that is open.

    \b
    Examples:
      farthing clearing window            which are open, closed, issued
      farthing clearing window --close    close the open one now, and issue its statements
    """  # noqa: D301 - click's mark for lines that are not to be joined
    house = House(url, token_env)
    if close:
        show([house.ask("POST", "/window/close")], lambda said: f"closed {said['closed'] or 'none'}", as_json=as_json)
    show(house.entries("windows"), _window_line, as_json=as_json)


def statements(
    *,
    state: Annotated[str, typer.Option(help="Only those that are issued, accepted, instructed or settled.")] = "",
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List statements and where they stand.

    \b
    Examples:
      farthing clearing statements
      farthing clearing statements --state issued --json
    """  # noqa: D301 - likewise
    found = _statements(House(url, token_env), state)
    show(found, _statement_line, as_json=as_json, empty="No such statement.")


def _statements(house: House, state: str) -> Iterator[dict[str, Any]]:
    after = ""
    while page := house.ask("GET", f"/statements?state={quote(state)}&after={quote(after)}"):
        yield from page
        after = page[-1]["statement"]


def payouts(*, url: Url = HERE, token_env: Token = TOKEN_VARIABLE, as_json: AsJson = False) -> None:
    """List payouts to payees.

    \b
    Examples:
      farthing clearing payouts
      farthing clearing payouts --json
    """  # noqa: D301 - likewise
    show(House(url, token_env).entries("payouts"), _payout_line, as_json=as_json, empty="No payouts yet.")


def disputes(
    dispute: Annotated[str, typer.Argument(metavar="[DISPUTE]", help="The one to decide.")] = "",
    *,
    grant: Annotated[bool, typer.Option("--grant", help="The payer is right: the line is not charged.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="The charge stands.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="WHY", help="Why, for the payer and the audit log.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="List those that are decided, too.")] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List the disputes that wait for a decision, or decide one.

    \b
    Examples:
      farthing clearing disputes
      farthing clearing disputes DISPUTE --grant --note "the edge was down"
      farthing clearing disputes --all --json
    """  # noqa: D301 - likewise
    if bool(dispute) != (grant != reject) or (grant and reject):
        raise ConfigError("A dispute is decided by --grant or --reject, and its id.")
    house = House(url, token_env)
    if dispute:
        body = {"granted": grant, "note": note}
        show([house.ask("POST", f"/disputes/{quote(dispute, safe='')}", body)], _decided_line, as_json=as_json)
        return
    found = (each for each in house.entries("disputes") if everything or each["state"] == "open")
    show(found, _dispute_line, as_json=as_json, empty="No dispute waits for a decision.")


def suspense(
    movement: Annotated[str, typer.Argument(metavar="[MOVEMENT]", help="TRANSACTION:LOG, as listed.")] = "",
    *,
    to: Annotated[str, typer.Option("--to", metavar="ORIGIN", help="The payer whose balance it becomes.")] = "",
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """List money that came and is nobody's yet, or give it to a payer's balance.

    \b
    Examples:
      farthing clearing suspense
      farthing clearing suspense 0x6e48…:3 --to https://crawler.example
    """  # noqa: D301 - likewise
    transaction, _, log_index = movement.rpartition(":")
    if bool(movement) != bool(to) or (movement and not (transaction and log_index.isdecimal())):
        raise ConfigError("Money in suspense is given away by its TRANSACTION:LOG and --to ORIGIN.")
    house = House(url, token_env)
    if movement:
        house.ask("POST", "/suspense", {"transaction": transaction, "logIndex": int(log_index), "payer": to})
        print(json.dumps({"movement": movement, "payer": to}) if as_json else plain(f"{movement} is {to}'s balance."))
        return
    show(house.entries("suspense"), _suspense_line, as_json=as_json, empty="Nothing is in suspense.")


def books(
    *,
    pending: Annotated[bool, typer.Option("--pending", help="What is promised, not what is posted.")] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Sum the books, account by account: credits less debits. All of them come to zero.

    \b
    Examples:
      farthing clearing books
      farthing clearing books --pending --json
    """  # noqa: D301 - likewise
    sums: dict[str, int] = House(url, token_env).ask("GET", f"/balances?pending={'1' if pending else ''}")
    entries = [{"account": name, "balance": str(amount)} for name, amount in sorted(sums.items())]
    show(entries, lambda entry: f"{money(entry['balance']):>18}  {entry['account']}", as_json=as_json)
    if not as_json:
        print(f"{money(sum(sums.values())):>18}  in all")


def audit(*, url: Url = HERE, token_env: Token = TOKEN_VARIABLE, as_json: AsJson = False) -> None:
    """Show who changed what that is not in the books, the newest last.

    \b
    Examples:
      farthing clearing audit
      farthing clearing audit --json
    """  # noqa: D301 - likewise
    show(House(url, token_env).entries("audit"), _audit_line, as_json=as_json, empty="Nothing was changed yet.")


def proof(
    statement: Annotated[str, typer.Argument(help="The statement's id.")],
    line: Annotated[str, typer.Argument(help="The line's id: sha256:… or adjustment:….")],
    *,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
) -> None:
    """Prove that a line is in a statement, with the payer's own signature: one JSON object, for any verifier.

    \b
    Examples:
      farthing clearing proof STATEMENT LINE    names as `farthing clearing statements` and its lines give them
    """  # noqa: D301 - likewise
    found = House(url, token_env).ask("GET", f"/statements/{quote(statement)}/proofs/{quote(line)}")
    print(json.dumps(found, indent=2))


def _window_line(entry: dict[str, Any]) -> str:
    until = entry["closed_at"] or entry["closes_at"]
    return f"window {entry['number']}  {entry['state']:<6}  {moment(entry['opened_at'])} to {moment(until)}"


def _statement_line(entry: dict[str, Any]) -> str:
    currency = entry["currency"]
    transaction = f"  {entry['transaction']}" if entry.get("transaction") else ""
    sums = f"net {money(entry['net'])}, to pay {money(entry['payable'], currency)}"
    return (
        f"{entry['statement']}  {entry['state']:<10}  {sums}  due {moment(entry['due'])}  {entry['payer']}{transaction}"
    )


def _payout_line(entry: dict[str, Any]) -> str:
    amount = money(entry["amount"], entry["currency"])
    return (
        f"{entry['payout']}  {entry['state']:<8}  {amount}  {entry['name']}  {entry['transaction_hash'] or ''}".rstrip()
    )


def _dispute_line(entry: dict[str, Any]) -> str:
    amount = money(entry["amount"], entry["currency"])
    said = f"\n  evidence: {entry['evidence']}" if entry["evidence"] else ""
    note = f"\n  note: {entry['note']}" if entry["note"] else ""
    return (
        f"{entry['dispute']}  {entry['state']}  {entry['reason']}  {amount}  {entry['payee']}  {entry['resource']}\n"
        f"  statement {entry['statement']}, line {entry['line']}{said}{note}"
    )


def _decided_line(entry: dict[str, Any]) -> str:
    return f"{entry['dispute']}  {entry['state']}  {entry['reason']}  {money(entry['amount'])}  {entry['payee']}"


def _suspense_line(entry: dict[str, Any]) -> str:
    return f"{entry['movement']}  {money(entry['amount'])}  from {entry['counterparty']} on {entry['network']}"


def _audit_line(entry: dict[str, Any]) -> str:
    return f"{moment(entry['at'])}  {entry['who']}  {entry['what']}  {entry['subject']}  {entry['detail']}".rstrip()
