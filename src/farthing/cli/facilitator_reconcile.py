"""`farthing facilitator reconcile`: what became of every payment that is not over, for the facilitator's operator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from farthing.errors import StoreError

if TYPE_CHECKING:
    from farthing.facilitator.reconcile import Finding
    from farthing.services.facilitator.reconciling import Reconciliation

EXIT_FOUND_OUT: Final = 0
EXIT_DISAGREES: Final = 1
# As for purchases: somebody must look again.
EXIT_COULD_NOT: Final = 5
_WORDS: Final = {"settled": "settled", "not_settled": "not settled", "could_not": "could not find out"}


def reconcile(
    *,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", dir_okay=False, help="The service's own configuration.")
    ],
    everything: Annotated[bool, typer.Option("--all", help="Look at payments that are over, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
) -> None:
    """Find out from the chain what became of every payment that is not over, and compare with the ledger.

    Changes nothing and needs no key; a service may run beside it. Each answer comes with its evidence: transaction,
    block and log. Exit codes: 0 all found out and the ledger agrees, 1 it does not, 5 some could not be found out.

    \b
    Examples:
      farthing facilitator reconcile --config farthing.toml
      farthing facilitator reconcile --config farthing.toml --all --json
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.services.facilitator.config import load_config  # noqa: PLC0415 - heavy parts only when run
    from farthing.services.facilitator.reconciling import Reconciliation  # noqa: PLC0415

    loaded = load_config(config)
    if "://" not in loaded.store and not Path(loaded.store).exists():
        raise StoreError(f"There is no store at {loaded.store}.")
    raise typer.Exit(asyncio.run(_tell(Reconciliation(loaded), everything=everything, as_json=as_json)))


async def _tell(reconciliation: Reconciliation, *, everything: bool, as_json: bool) -> int:
    counts = dict.fromkeys(_WORDS, 0)
    disagreeing = 0
    async for finding in reconciliation.run(everything=everything):
        counts[finding.verdict] += 1
        disagreeing += not finding.agrees
        print(json.dumps(_as_json(finding)) if as_json else _as_text(finding), flush=True)
    if not as_json:
        found = ", ".join(f"{count} {_WORDS[verdict]}" for verdict, count in counts.items())
        books = f"{disagreeing} differ from the ledger" if disagreeing else "the ledger agrees"
        print(f"{found}; {books}." if any(counts.values()) else "Nothing is open.")
    if disagreeing:
        return EXIT_DISAGREES
    return EXIT_COULD_NOT if counts["could_not"] else EXIT_FOUND_OUT


def _as_json(finding: Finding) -> dict[str, object]:
    record = finding.record
    return {
        "payment_id": record.payment_id,
        "verdict": finding.verdict,
        "why": finding.why,
        "state": record.state,
        "network": record.network,
        "asset": record.asset,
        "payer": record.payer,
        "pay_to": record.pay_to,
        "amount": str(record.amount),
        "transaction": finding.transaction,
        "block_number": finding.block_number,
        "log_index": finding.log_index,
        "final": finding.final,
        "booked": str(finding.booked),
        "agrees": finding.agrees,
    }


def _as_text(finding: Finding) -> str:
    record = finding.record
    lines = [
        f"{record.payment_id}  {_WORDS[finding.verdict]}  {record.amount} of {record.asset} from {record.payer}",
        f"  {finding.why}",
    ]
    if finding.transaction:
        block = "" if finding.block_number is None else f", block {finding.block_number}"
        log = "" if finding.log_index is None else f", log {finding.log_index}"
        lines.append(f"  Transaction {finding.transaction}{block}{log}{', final' if finding.final else ''}.")
    if not finding.agrees:
        lines.append(f"  THE LEDGER DIFFERS: it has {finding.booked}, the payment is on record as {record.state}.")
    return "\n".join(lines)
