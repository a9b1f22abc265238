"""`farthing clearing accounts|payer|payee|token`: who takes part, opened and changed by an operator."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from farthing.cli.clearing_house import (
    HERE,
    TOKEN_VARIABLE,
    AsJson,
    House,
    Token,
    Url,
    moment,
    money,
    seconds_of,
    show,
    units,
)
from farthing.cli.reserve import reserve_line
from farthing.cli.terminal import plain
from farthing.errors import ConfigError

Currency = Annotated[str, typer.Option("--currency", metavar="USD", help="The account's currency; it stays.")]


def accounts(*, url: Url = HERE, token_env: Token = TOKEN_VARIABLE, as_json: AsJson = False) -> None:
    """List payers, with what they owe and may, payees, with their domains, who has a token, and the reserve.

    \b
    Examples:
      farthing clearing accounts
      farthing clearing accounts --url https://clearing.example --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    house = House(url, token_env)
    show(house.entries("payers"), _payer_line, as_json=as_json, empty="No payers yet: see farthing clearing payer -h.")
    show(house.entries("payees"), _payee_line, as_json=as_json, empty="No payees yet: see farthing clearing payee -h.")
    show(house.ask("GET", "/reserve"), reserve_line, as_json=as_json)
    show(house.entries("tokens"), _token_line, as_json=as_json, empty="No tokens yet: see farthing clearing token -h.")


def payer(
    origin: Annotated[str, typer.Argument(metavar="ORIGIN", help="The origin of the agent's key directory.")],
    *,
    limit: Annotated[
        str, typer.Option("--limit", metavar="PRICE", help="What it may owe: opens the account, or changes it.")
    ] = "",
    currency: Currency = "USD",
    suspend: Annotated[str, typer.Option("--suspend", metavar="WHY", help="Give it no credit any more.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Give it credit again.")] = False,
    compromised: Annotated[
        str,
        typer.Option("--compromised", metavar="THUMBPRINT", help="Declare a key of its compromised; that stays."),
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="When that was: 2026-11-30T12:00:00Z, or Unix seconds.")
    ] = "",
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Open a payer's account, change its limit, suspend it, declare a key of its compromised; or show how it stands.

    A payer's own token declares its own keys.

    \b
    Examples:
      farthing clearing payer https://crawler.example --limit 100
      farthing clearing payer https://crawler.example --suspend "invoice of March unpaid"
      farthing clearing payer https://crawler.example --resume
      farthing clearing payer https://crawler.example --compromised poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U
      farthing clearing payer https://crawler.example
    """  # noqa: D301 - likewise
    if sum(map(bool, (limit, suspend, resume, compromised))) > 1:
        raise ConfigError("One of --limit, --suspend, --resume and --compromised at a time.")
    if since and not compromised:
        raise ConfigError("--since says since when a key is --compromised.")
    house = House(url, token_env)
    if limit:
        house.ask("POST", "/payers", {"payer": origin, "creditLimit": units(limit, currency), "currency": currency})
    elif suspend or resume:
        state = "suspended" if suspend else "active"
        house.ask("POST", "/payers/state", {"payer": origin, "state": state, "why": suspend})
    elif compromised:
        when = {"since": seconds_of(since)} if since else {}
        declared = house.ask("POST", "/payers/keys", {"payer": origin, "thumbprint": compromised, **when})
        show([declared], _declared_line, as_json=as_json)
        return
    show([house.ask("GET", f"/standing?payer={quote(origin, safe='')}")], _standing_line, as_json=as_json)


def payee(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The payee's name in offers.")],
    *,
    domain: Annotated[str, typer.Option("--domain", metavar="HOST", help="Opens the account, or changes it.")] = "",
    address: Annotated[str, typer.Option("--address", metavar="0x…", help="Where payouts go, on chain.")] = "",
    currency: Currency = "USD",
    prove: Annotated[
        bool, typer.Option("--prove", help="Look whether its domain shows the challenge; nothing is paid out before.")
    ] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Open a payee's account, look for the proof of its domain; or show how it stands.

    \b
    Examples:
      farthing clearing payee news --domain news.example --address 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
      farthing clearing payee news --prove
      farthing clearing payee news
    """  # noqa: D301 - likewise
    if bool(domain) != bool(address) or (prove and domain):
        raise ConfigError("--domain and --address open an account together; --prove comes after.")
    house = House(url, token_env)
    if domain:
        body = {"payee": name, "domain": domain, "address": address, "currency": currency}
        opened = house.ask("POST", "/payees", body)
        show([opened], _opened_line, as_json=as_json)
    elif prove:
        show([house.ask("POST", f"/payees/{quote(name, safe='')}/prove")], _opened_line, as_json=as_json)
    else:
        show([house.ask("GET", f"/payees/{quote(name, safe='')}")], _status_line, as_json=as_json)


def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is called; an edge's own name.")],
    *,
    role: Annotated[
        str, typer.Option("--role", metavar="edge|payer|payee|operator", help="Make a token of this role.")
    ] = "",
    subjects: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="WHO", help="A payer's origin; the payees that an edge bills for (repeatable)."),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the token back, for good.")] = False,
    url: Url = HERE,
    token_env: Token = TOKEN_VARIABLE,
    as_json: AsJson = False,
) -> None:
    """Make a token for an edge, a payer, a payee or an operator, or revoke one. It is shown this once.

    \b
    Examples:
      farthing clearing token news-1 --role edge --for news
      farthing clearing token crawler --role payer --for https://crawler.example
      farthing clearing token news-1 --revoke
    """  # noqa: D301 - likewise
    if bool(role) == revoke:
        raise ConfigError("--role ROLE makes a token, --revoke takes it back.")
    house = House(url, token_env)
    if revoke:
        house.ask("POST", f"/tokens/{quote(name, safe='')}/revoke")
        print(json.dumps({"name": name, "revoked": True}) if as_json else plain(f"{name} is revoked."))
        return
    made = house.ask("POST", "/tokens", {"name": name, "role": role, "subject": " ".join(subjects or ())})
    print(json.dumps(made) if as_json else made["token"])


def _payer_line(entry: dict[str, Any]) -> str:
    state = entry["state"] + (f" ({entry['why']})" if entry["why"] else "")
    owed = f"owes {money(entry['owed'])} of {money(entry['credit_limit'], entry['currency'])}"
    recourse = f", to the reserve {money(entry['recourse'])}" if int(entry["recourse"]) else ""
    return f"payer  {entry['directory']}  {state}  {owed}, prepaid {money(entry['prepaid'])}{recourse}"


def _payee_line(entry: dict[str, Any]) -> str:
    proved = f"proved {moment(entry['proved_at'])}" if entry["proved_at"] else "domain not proved"
    guaranteed = ", guaranteed" if entry["guaranteed"] else ""
    return f"payee  {entry['name']}  {entry['domain']}  {proved}  {entry['currency']} to {entry['address']}{guaranteed}"


def _token_line(entry: dict[str, Any]) -> str:
    revoked = f"  revoked {moment(entry['revoked_at'])}" if entry["revoked_at"] else ""
    subject = f" for {entry['subject']}" if entry["subject"] else ""
    return f"token  {entry['name']}  {entry['role']}{subject}  made {moment(entry['created_at'])}{revoked}"


def _standing_line(entry: dict[str, Any]) -> str:
    currency = entry["currency"]
    return (
        f"{entry['payer']}  {entry['state']}\n"
        f"  limit     {money(entry['creditLimit'], currency)}\n"
        f"  owed      {money(entry['owed'], currency)}\n"
        f"  leased    {money(entry['leased'], currency)}\n"
        f"  exposure  {money(entry['exposure'], currency)}\n"
        f"  prepaid   {money(entry['prepaid'], currency)}"
        + "".join(f"\n  key       {each} is compromised" for each in entry.get("compromised", ()))
    )


def _declared_line(entry: dict[str, Any]) -> str:
    return (
        f"{entry['payer']}  {entry['thumbprint']} is compromised\n"
        f"  since     {moment(entry['since'])}\n"
        f"  declared  {moment(entry['declared'])} by {entry['declaredBy']}\n"
        f"  billed    what edges took until {moment(entry['billedUntil'])}"
    )


def _opened_line(entry: dict[str, Any]) -> str:
    if entry["proved"]:
        return f"{entry['payee']}  {entry['domain']} is proved; payouts go to {entry['address']}."
    return (
        f"{entry['payee']}  {entry['domain']} has to show the challenge\n\n  {entry['challenge']}\n\n"
        f"at https://{entry['domain']}/.well-known/farthing-clearing, or in a text record of _farthing-clearing."
        f"{entry['domain']}. Then: farthing clearing payee {entry['payee']} --prove"
    )


def _status_line(entry: dict[str, Any]) -> str:
    currency = entry["currency"]
    names = ("accrued", "held", "cleared", "instructed", "paid", "borne")
    return "\n".join((entry["payee"], *(f"  {name:<11} {money(entry[name], currency)}" for name in names)))
