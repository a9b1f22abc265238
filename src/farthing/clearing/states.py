"""What can stand in the clearing house's store, as tables: states of windows, leases, statements, disputes, payouts.

The store moves a record only along these tables, by one conditional statement each; `docs/clearing.md` shows them
(`python -m farthing.clearing.states`; a test fails when they drift).
"""

from __future__ import annotations

from typing import Final

import msgspec

OPEN: Final = "open"
CLOSED: Final = "closed"
ISSUED: Final = "issued"
LAPSED: Final = "lapsed"
ACCEPTED: Final = "accepted"
INSTRUCTED: Final = "instructed"
SETTLED: Final = "settled"
GRANTED: Final = "granted"
REJECTED: Final = "rejected"
PLANNED: Final = "planned"
SIGNED: Final = "signed"
ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"


class Move(msgspec.Struct, frozen=True):
    """A move from any of `sources` to `target`; `when` says on what evidence."""

    name: str
    sources: tuple[str, ...]
    target: str
    when: str


class Machine(msgspec.Struct, frozen=True):
    """A kind of record, the states that it can be in (the first is where it begins), and the moves between them."""

    title: str
    states: dict[str, str]
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        """Refuse a table that names a state it does not have, or a move twice."""
        used = {name for move in self.moves for name in (*move.sources, move.target)}
        if used - set(self.states) or len({move.name for move in self.moves}) != len(self.moves):
            message = f"{self.title}: unknown states {sorted(used - set(self.states))}, or two moves of one name."
            raise ValueError(message)

    def move(self, name: str) -> Move:
        """Find a move by its name."""
        return next(move for move in self.moves if move.name == name)


WINDOW: Final = Machine(
    "window",
    {
        OPEN: "uploads that commit now belong to it",
        CLOSED: "its lines are fixed; every signature is checked, and statements are being made",
        ISSUED: "every payer of it has its statement",
    },
    (
        Move("close", (OPEN,), CLOSED, "its time is over, or an operator says so; the next one opens with it"),
        Move("issue", (CLOSED,), ISSUED, "all its uploads are checked and all its statements are on record"),
    ),
)

LEASE: Final = Machine(
    "credit lease",
    {
        OPEN: "what it may still spend counts against the payer's credit, also after its time is over",
        CLOSED: "its edge gave it back, and every line of it has come",
        LAPSED: "never closed; older than the late limit, so that no line of it could be billed any more",
    },
    (
        Move("close", (OPEN,), CLOSED, "the edge names count and sum of its lines, and they are here"),
        Move("lapse", (OPEN,), LAPSED, "expired, and the late limit is over"),
    ),
)

STATEMENT: Final = Machine(
    "statement",
    {
        ISSUED: "signed; lines can be disputed until the date it names",
        ACCEPTED: "the payer's payment for all that is not disputed is on record, and not handed to the rail yet",
        INSTRUCTED: "handed to the rail, whose report is awaited",
        SETTLED: "the rail reported the money; payees' shares are cleared",
    },
    (
        Move("accept", (ISSUED, ACCEPTED), ACCEPTED, "a payment that fits: amount, treasury, nonce, window, signature"),
        Move("instruct", (ACCEPTED,), INSTRUCTED, "recorded before the rail is asked"),
        Move(
            "settle",
            (ISSUED, ACCEPTED, INSTRUCTED),
            SETTLED,
            "the rail's own report; or nothing is asked for (any more)",
        ),
        Move("return", (INSTRUCTED,), ACCEPTED, "the rail's report that this payment can't settle any more"),
    ),
)

DISPUTE: Final = Machine(
    "dispute",
    {
        OPEN: "the line's amount is held",
        GRANTED: "the payer is right: a reversing entry; on the next statement as an adjustment",
        REJECTED: "the charge stands: due on the next statement where it was not paid",
    },
    (
        Move(
            "grant",
            (OPEN,),
            GRANTED,
            "an operator says so; not_delivered without the edge's `sent`: at once, if not paid out",
        ),
        Move("reject", (OPEN,), REJECTED, "an operator says so"),
    ),
)

PAYOUT: Final = Machine(
    "payout",
    {
        PLANNED: "the amount is taken from what is cleared; not signed yet",
        SIGNED: "the treasury's authorisation is on record; it is handed to the facilitator, again after a restart",
        SETTLED: "the chain has it",
    },
    (
        Move("sign", (PLANNED, SIGNED), SIGNED, "always under the same nonce, so that only one can settle"),
        Move("settle", (PLANNED, SIGNED), SETTLED, "the chain's logs: the nonce and its transfer"),
    ),
)

MACHINES: Final = (WINDOW, LEASE, STATEMENT, DISPUTE, PAYOUT)


def as_markdown() -> str:
    """Write the tables as the documentation shows them."""
    parts = ["<!-- made by `python -m farthing.clearing.states`; do not edit -->"]
    for machine in MACHINES:
        parts += ["", f"### {machine.title.capitalize()}", "", "| state | what is on record |", "|---|---|"]
        parts += [f"| {name.upper()} | {meaning} |" for name, meaning in machine.states.items()]
        parts += ["", "| move | from | to | when |", "|---|---|---|---|"]
        parts += [
            f"| {move.name} | {', '.join(move.sources).upper()} | {move.target.upper()} | {move.when} |"
            for move in machine.moves
        ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
