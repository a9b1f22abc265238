"""The states of a payment and of a transaction, and the moves between them, as tables.

The store derives its conditional statements from these tables, and `docs/facilitator.md` its diagrams
(`python -m farthing.facilitator.states`; a test fails when they drift): a move that is not here can't be made.
"""

from __future__ import annotations

from typing import Final

import msgspec


class State(msgspec.Struct, frozen=True):
    """A state as it is recorded: what is known, and what the process is about to do because of it."""

    name: str
    meaning: str
    effect: str = ""


class Move(msgspec.Struct, frozen=True):
    """A move from any of `sources` to `target`, made by one conditional statement; `when` says on what evidence."""

    name: str
    sources: tuple[str, ...]
    target: str
    when: str


class Machine(msgspec.Struct, frozen=True):
    """A table of states and the moves between them. The first state is where a record begins."""

    title: str
    states: tuple[State, ...]
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        """Refuse a table that names a state it does not have, or a move twice."""
        names = {state.name for state in self.states}
        used = {name for move in self.moves for name in (*move.sources, move.target)}
        if used - names or len({move.name for move in self.moves}) != len(self.moves):
            message = f"{self.title}: unknown states {sorted(used - names)}, or two moves of one name."
            raise ValueError(message)

    def move(self, name: str) -> Move:
        """Find a move by its name."""
        return next(move for move in self.moves if move.name == name)

    @property
    def start(self) -> str:
        """The state in which a record begins."""
        return self.states[0].name

    @property
    def ends(self) -> frozenset[str]:
        """The states that nothing leaves."""
        return frozenset(state.name for state in self.states) - {name for move in self.moves for name in move.sources}


RECEIVED: Final = "received"
READY: Final = "ready"
IN_BATCH: Final = "in_batch"
CONFIRMED: Final = "confirmed"
FINAL: Final = "final"
REFUSED: Final = "refused"

PAYMENT: Final = Machine(
    title="payment",
    states=(
        State(RECEIVED, "verified and on record, with its fingerprint, caller and the block that was seen"),
        State(READY, "may be put into a transaction", "the submitter chooses members"),
        State(IN_BATCH, "member of a transaction", "the chain is followed by the payment identity"),
        State(CONFIRMED, "spent as signed, at the network's depth; in the ledger", "the caller is told"),
        State(FINAL, "spent as signed, in a finalised block"),
        State(REFUSED, "will not be settled here; the reason and the evidence are on record"),
    ),
    moves=(
        Move("admit", (RECEIVED,), READY, "the window is long enough still"),
        Move("expire", (RECEIVED, READY), REFUSED, "the window or a limit ran out while it waited"),
        Move("join", (READY,), IN_BATCH, "in one database transaction with the transaction's own row"),
        Move("confirm", (IN_BATCH,), CONFIRMED, "spent and matching, at depth k"),
        Move("release", (IN_BATCH,), READY, "the call failed, unspent, window open"),
        Move(
            "refuse",
            (IN_BATCH,),
            REFUSED,
            "spent otherwise, cancelled, spent before it came here, or unspent in a finalised block past validBefore",
        ),
        Move("finalise", (CONFIRMED,), FINAL, "its block is finalised"),
        Move("lose", (CONFIRMED,), IN_BATCH, "its block was lost; the ledger is reversed"),
    ),
)

BUILT: Final = "built"
SIGNED: Final = "signed"
SENT: Final = "sent"
CANCELLING: Final = "cancelling"
MINED: Final = "mined"
DONE: Final = "done"

TRANSACTION: Final = Machine(
    title="transaction",
    states=(
        State(BUILT, "wallet, wallet nonce, members and lease epoch", "sign"),
        State(SIGNED, "bytes and hash of a version", "broadcast; whatever the node answers counts as sent"),
        State(SENT, "broadcast", "poll for a receipt of any version"),
        State(CANCELLING, "a transfer to self at the same nonce, signed and stored", "broadcast; poll as for SENT"),
        State(MINED, "a version is in a block", "count confirmations"),
        State(DONE, "at depth k; every member was judged by its evidence"),
    ),
    moves=(
        Move("sign", (BUILT,), SIGNED, "under the wallet's lease"),
        Move("send", (SIGNED,), SENT, "after the broadcast, whatever the node said"),
        Move("replace", (SENT,), SIGNED, "stuck: same members, same nonce, higher fee under the cap"),
        Move(
            "cancel",
            (SENT, CANCELLING),
            CANCELLING,
            "stuck, and the members' windows are over, or the operator said to give up at the fee cap",
        ),
        # A receipt may be seen before the broadcast is on record: after a crash, or through the shared watch.
        Move("mine", (SIGNED, SENT, CANCELLING), MINED, "a receipt of any version is seen"),
        Move("finish", (SIGNED, SENT, CANCELLING, MINED), DONE, "a receipt of any version at depth k"),
        Move("drop", (MINED, DONE), SENT, "its block was lost: the same bytes again"),
    ),
)


def mermaid(machine: Machine) -> str:
    """Draw a table of states as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {machine.start.upper()}"]
    lines += [
        f"    {source.upper()} --> {move.target.upper()}: {move.name}"
        for move in machine.moves
        for source in move.sources
    ]
    lines += [f"    {state.name.upper()} --> [*]" for state in machine.states if state.name in machine.ends]
    return "\n".join(lines)


def tables(machine: Machine) -> str:
    """Write a table of states as Markdown: the states, then the moves."""
    lines = ["| state | what is on record | what happens next |", "|---|---|---|"]
    lines += [f"| {state.name.upper()} | {state.meaning} | {state.effect} |" for state in machine.states]
    lines += ["", "| move | from | to | when |", "|---|---|---|---|"]
    lines += [
        f"| {move.name} | {_upper(move.sources)} | {move.target.upper()} | {move.when} |" for move in machine.moves
    ]
    return "\n".join(lines)


def as_markdown() -> str:
    """Write both machines as `docs/facilitator.md` has them."""
    parts: list[str] = []
    for machine in (PAYMENT, TRANSACTION):
        parts += [f"### One {machine.title}", f"```mermaid\n{mermaid(machine)}\n```", tables(machine)]
    return "\n\n".join(parts) + "\n"


def _upper(names: tuple[str, ...]) -> str:
    return ", ".join(name.upper() for name in names)


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
