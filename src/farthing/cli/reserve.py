"""`farthing clearing reserve` and `guarantee`: money that stands ready for payers' defaults, and for whom."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from farthing.cli.clearing_house import HERE, TOKEN_VARIABLE, AsJson, House, Token, Url, moment, money, show, units
from farthing.errors import ConfigError


def reserve(
    *,
    fund: Annotated[
        str, typer.Option(metavar="TRANSACTION", help="Move a deposit in suspense to the reserve (0x…, or 0x…:LOG).")
    ] = "",
    take: Annotated[str, typer.Option(metavar="PRICE", help="Take so much out, like 5.00.")] = "",
    to: Annotated[
        str, typer.Option(metavar="PAYEE", help="With --take: the account of your own that they are paid out to.")
    ] = "",
    request: Annotated[
        str, typer.Option(metavar="NAME", help="With --take: your name for it; again under it, nothing more is taken.")
    ] = "",
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Show the reserve, and what was paid out of it; or put money in, or take some out.

    \b
    Examples:
      farthing clearing reserve                              what is in it, what payers owe to it, each cover
      farthing clearing reserve --fund 0x5f2e…               a transfer to the treasury, once the house has seen it
      farthing clearing reserve --take 5.00 --to ourselves --request 2026-12
    """  # noqa: D301 - click's mark for lines that are not to be joined
    if bool(take) != bool(to) or bool(take) != bool(request) or (fund and take):
        raise ConfigError("--take PRICE, --to PAYEE and --request NAME go together, and without --fund.")
    house = House(url, token_env)
    if fund:
        transaction, log_index = _movement(house, fund)
        house.ask("POST", "/reserve/fund", {"transaction": transaction, "logIndex": log_index})
    if take:
        payee = house.ask("GET", f"/payees/{quote(to, safe='')}")
        amount = units(take, payee["currency"])
        house.ask("POST", "/reserve/take", {"amount": amount, "payee": to, "request": request})
    show(house.ask("GET", "/reserve"), reserve_line, as_json=as_json)
    show(house.entries("covers"), _cover_line, as_json=as_json)


def reserve_line(entry: dict[str, Any]) -> str:
    """Write how a reserve stands, for people."""
    currency = entry["currency"]
    return (
        f"reserve  {money(entry['reserve'], currency)}, payers owe it {money(entry['recourse'])}; guaranteed "
        f"{money(entry['guaranteed'])}, of that in default and not covered {money(entry['uncovered'])}"
    )


def _movement(house: House, text: str) -> tuple[str, int]:
    """Read a movement's name; without a log, find the one transfer of that transaction that is in suspense."""
    transaction, _, log = text.lower().partition(":")
    if log:
        if not (log.isascii() and log.isdecimal()):
            raise ConfigError(f"--fund {text}: behind the colon stands the number of the transfer's log.")
        return transaction, int(log)
    free = [each["log_index"] for each in house.entries("suspense") if each["transaction_hash"] == transaction]
    if len(free) != 1:
        what = "has seen no such deposit (yet)" if not free else f"has seen several: say which ({transaction}:LOG)"
        raise ConfigError(f"--fund {text}: the clearing house {what}.")
    return transaction, free[0]


def guarantee(
    payee: Annotated[str, typer.Argument(help="The payee's name.")],
    *,
    off: Annotated[bool, typer.Option("--off", help="No more: what was guaranteed before stays so.")] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Guarantee a payee: its shares of the statements that are issued from now on are covered by the reserve.

    \b
    Examples:
      farthing clearing guarantee news
      farthing clearing guarantee news --off
    """  # noqa: D301 - click's mark for lines that are not to be joined
    answer = House(url, token_env).ask("POST", f"/payees/{quote(payee, safe='')}/guarantee", {"guaranteed": not off})
    show([answer], _guarantee_line, as_json=as_json)


def _guarantee_line(entry: dict[str, Any]) -> str:
    stands = "guaranteed from the next statements on" if entry["guaranteed"] else "not guaranteed any more"
    return f"{entry['payee']}  {stands}"


def _cover_line(entry: dict[str, Any]) -> str:
    amount = money(entry["amount"], entry["currency"])
    said = f"cover  {moment(entry['covered_at'])}  {amount} to {entry['name']} for {entry['directory']}"
    return f"{said}, statement {entry['statement']} ({entry['state']})"
