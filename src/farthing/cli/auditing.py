"""One run of `farthing statements`: ask the house, compare, ask the person, pay, and say what came of each."""

from __future__ import annotations

import json
import os
import signal
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from farthing.buyer.audit_flow import Audit, Conclusion
from farthing.buyer.audit_house import HouseAway, HouseRefused
from farthing.cli.home import farthing_home
from farthing.cli.outcome import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NETWORK,
    EXIT_POLICY,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
)
from farthing.cli.signing import KeySource, open_signer
from farthing.cli.terminal import Terminal, plain
from farthing.cli.tokens import known_networks
from farthing.clients.statements import Auditor
from farthing.errors import ConfigError
from farthing.money import show_atomic
from farthing.protocol.clearing import DECIMALS
from farthing.protocol.statements import StatementAnswer
from farthing.services.auditing import watch

if TYPE_CHECKING:
    from farthing.evm.signing import Signer

# Of the wrong lines of one statement, what is shown to a person; --json has all.
_LINES_SHOWN: Final = 10
_CODES: Final = {
    "settled": EXIT_DONE,
    "paid": EXIT_DONE,
    "nothing_to_pay": EXIT_DONE,
    "over_limit": EXIT_POLICY,
    "stopped": EXIT_POLICY,
    "held": EXIT_REFUSED,
    "refused": EXIT_REFUSED,
    "unknown": EXIT_UNKNOWN,
}
_WORDS: Final = {
    "settled": "settled",
    "paid": "paid; its rail has not reported it yet",
    "nothing_to_pay": "nothing to pay",
    "over_limit": "not paid: over your limit. If it is right: --max, --max-per-day",
    "stopped": "not paid: the kill switch is on. To go on: farthing payments resume",
    "held": "not paid: it is wrong as a whole, and left to you",
    "refused": "the house said no",
    "unknown": "nobody has said whether the payment arrived: run the same again, it presents the same one",
}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says, as it is written there."""

    url: str
    network: str
    agent: str
    token_env: str
    journal: str
    as_json: bool
    folder: Path | None = None
    tokens: tuple[str, ...] = ()
    treasury: str = ""
    house_keys: tuple[str, ...] = ()
    rails: tuple[str, ...] = ()
    price_max: str = "0"
    per_day: str = "0"
    accept_decisions: bool = False
    key: KeySource | None = None


class Errand:
    """One run; each way to run gives the exit code."""

    def __init__(self, source: Source) -> None:
        """Read what was given. Raises `ConfigError`."""
        missing = [name for name in ("url", "network", "agent") if not getattr(source, name)]
        if missing:
            raise ConfigError(
                f"Say which house and whose statements: --{' --'.join(missing)}, or the environment's variables "
                "(farthing statements --help)."
            )
        self._token = os.environ.get(source.token_env, "")
        if not self._token:
            raise ConfigError(f"Put the payer's token of the house into the environment variable {source.token_env}.")
        self._source = source
        self._terminal = Terminal()

    def _auditor(self, signer: Signer | None = None) -> Auditor:
        source = self._source
        return Auditor(
            source.url,
            self._token,
            payer=source.agent,
            network=source.network,
            journal=source.journal,
            signer=signer,
            networks=known_networks(source.tokens),
            rail_networks=source.rails or None,
            per_statement=source.price_max,
            per_window=source.per_day,
            treasury=source.treasury,
            house_keys=source.house_keys,
            folder=source.folder or farthing_home() / "statements",
            accept_decisions=source.accept_decisions,
        )

    def run_list(self) -> int:
        """List statements and where they stand."""
        with self._auditor() as auditor:
            try:
                found = auditor.statements()
            except (HouseAway, HouseRefused) as error:
                return self._trouble(error)
        for each in found:
            facts = msgspec.to_builtins(each)
            text = f"{each.statement}  {each.state:<10}  {_money(each.net)} {each.currency}"
            self._print(facts, f"{text}  to pay {_money(each.payable)}, disputed {_money(each.disputed)}")
        return EXIT_DONE

    def run_fetch(self, ids: tuple[str, ...], *, pages: bool) -> int:
        """Keep statements and their lines; with `pages` a page for people of each, too."""
        with self._auditor() as auditor:
            try:
                for name in ids or tuple(each.statement for each in auditor.statements()):
                    lines = auditor.house.lines_file(name)
                    answer = auditor.fetch(name)
                    signed = lines.with_suffix(".jws")
                    signed.write_text(answer.jws + "\n", "ascii")
                    facts = {"statement": name, "jws": str(signed), "lines": str(lines)}
                    if pages:
                        facts["page"] = str(_write_page(answer, lines))
                    self._print(facts, "  ".join(facts.values()))
            except (HouseAway, HouseRefused) as error:
                return self._trouble(error)
        return EXIT_DONE

    def run_audit(self, ids: tuple[str, ...]) -> int:
        """Compare statements with the journal."""
        code = EXIT_DONE
        with self._auditor() as auditor:
            try:
                for name in ids or tuple(each.statement for each in auditor.statements()):
                    found = auditor.audit(name)
                    self._print(_facts(found), _verdict(found))
                    if found.fault is not None:
                        code = EXIT_REFUSED
                    elif found.disputes and code == EXIT_DONE:
                        code = EXIT_FAILED
            except (HouseAway, HouseRefused) as error:
                return self._trouble(error)
        return code

    def run_pay(self, ids: tuple[str, ...], *, yes: bool) -> int:
        """Audit, ask, dispute, and pay."""
        if not yes and not self._terminal.can_ask:
            raise ConfigError("Nobody is there to be asked: say --yes to pay up to --max.")
        code = EXIT_DONE
        with self._auditor(self._signer()) as auditor:
            self._needs_treasury(auditor, attended=not yes)
            try:
                for name in ids or tuple(each.statement for each in auditor.statements()):
                    conclusion = auditor.pay(name) if yes else self._ask_and_pay(auditor, name)
                    if conclusion is None:
                        code = max(code, EXIT_POLICY)
                        continue
                    self._tell(conclusion)
                    code = max(code, _CODES[conclusion.outcome])
            except (HouseAway, HouseRefused) as error:
                return self._trouble(error)
        return code

    def run_watch(self, every_seconds: float) -> int:
        """Do so unattended, until SIGINT or SIGTERM."""
        ended = threading.Event()

        def end(*_: object) -> None:
            ended.set()

        with self._auditor(self._signer()) as auditor:
            self._needs_treasury(auditor, attended=False)
            before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            for number in before:
                signal.signal(number, end)
            try:
                ready = {"ready": True, "house": auditor.house.url, "account": auditor.plan.account}
                self._print(ready, f"Watching {auditor.house.url} for {auditor.plan.expected.payer}. Ctrl-C ends it.")
                watch(auditor, tell=self._tell, ended=ended, every_seconds=every_seconds)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        return EXIT_DONE

    def _signer(self) -> Signer:
        return open_signer(self._source.key or KeySource(), self._terminal)

    def _needs_treasury(self, auditor: Auditor, *, attended: bool) -> None:
        """Without a person the first treasury must be named: a statement's own word is not enough to pay it."""
        if attended or self._source.treasury or auditor.has_paid():
            return
        raise ConfigError(
            "Nothing was paid to this house before: name its treasury (--treasury 0x…), or pay once with a person at "
            "the terminal."
        )

    def _ask_and_pay(self, auditor: Auditor, name: str) -> Conclusion | None:
        found = auditor.look(name)
        if isinstance(found, Conclusion):
            return found
        self._terminal.say(_verdict(found))
        if found.fault is None and found.entry is not None:
            where = "" if found.rail is None else f" to {found.rail.pay_to} on {found.rail.network}"
            if not self._terminal.confirms(f"Pay up to {_money(found.entry.owed)}{where}?"):
                return None
        return auditor.settle(found)

    def _tell(self, conclusion: Conclusion) -> None:
        if not conclusion.statement and not conclusion.detail:
            return
        why = f" ({conclusion.detail or conclusion.reason})" if conclusion.detail or conclusion.reason else ""
        amount = f"{_money(conclusion.amount)}  " if conclusion.amount else ""
        text = f"{conclusion.statement}  {amount}{_WORDS[conclusion.outcome]}{why}"
        sums = {"amount": str(conclusion.amount), "disputed": str(conclusion.disputed)}
        self._print({**msgspec.to_builtins(conclusion), **sums}, text.strip())

    def _print(self, facts: dict[str, Any], text: str) -> None:
        print(json.dumps(facts) if self._source.as_json else plain(text), flush=True)

    def _trouble(self, error: HouseAway | HouseRefused) -> int:
        self._terminal.say(f"farthing: {error}")
        return EXIT_NETWORK if isinstance(error, HouseAway) else EXIT_REFUSED


def _money(amount: int | str) -> str:
    return show_atomic(int(amount), DECIMALS)


def _facts(found: Audit) -> dict[str, Any]:
    return {
        "statement": found.name,
        "in_order": found.fault is None,
        "fault": None if found.fault is None else msgspec.to_builtins(found.fault),
        "lines": found.count,
        "net": str(found.net),
        "owed": "0" if found.entry is None else str(found.entry.owed),
        "disputes": [{**msgspec.to_builtins(each), "amount": str(each.amount)} for each in found.disputes],
        "state": found.status.state,
    }


def _verdict(found: Audit) -> str:
    if found.fault is not None:
        return f"{found.name}  refused whole, {found.fault.code}: {found.fault.detail}"
    owed = 0 if found.entry is None else found.entry.owed
    said = [f"{found.name}  {found.count:,} lines, {_money(found.net)} asked, {_money(owed)} owed"]
    said += [f"  {each.line}  {each.reason}: {each.evidence}" for each in found.disputes[:_LINES_SHOWN]]
    if len(found.disputes) > _LINES_SHOWN:
        said.append(f"  … and {len(found.disputes) - _LINES_SHOWN:,} more (--json has all)")
    return "\n".join(said)


def _write_page(answer: StatementAnswer, lines: Path) -> Path:
    """Write the page from what was signed and its lines, so that no house's HTML is opened from this machine's disk."""
    from farthing.clearing.statements import read_line  # noqa: PLC0415
    from farthing.protocol.signed_statements import open_statement  # noqa: PLC0415 - heavy parts only when asked for
    from farthing.services.clearing.pages import LINES_SHOWN, statement_page  # noqa: PLC0415

    statement, *_ = open_statement(answer.jws)
    page = lines.with_suffix(".html")
    with lines.open("rb") as file:
        shown = [read_line(line.removesuffix(b"\n")) for line in islice(file, LINES_SHOWN)]
    page.write_bytes(statement_page(statement, answer.status, shown))
    return page
