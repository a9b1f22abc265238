"""A day of the clearing house, told so that it can be told again from the beginning after any crash.

Run as a program it tells the story over the store that it is given, and is killed where `FARTHING_CRASH_AT` says.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from town import DOLLAR, NETWORK, NOON, Crawler, House, leaves, pack

from farthing.clearing import flows, paying
from farthing.clearing.intake import read_upload
from farthing.clearing.settlement import AcceptStatement, DecideDispute, Movement, OpenPayouts, RecordMovements
from farthing.clearing.statements import read_line
from farthing.clearing.store import FindStatement, ListStatements, ProvePayee
from farthing.protocol.statements import DisputedLine

DAY = 86_400
CHAIN = "eip155:84532"
# Every effect of the story that writes.
WRITES = (
    "TakeUpload", "CloseWindow", "RecordCheck", "BuildRuns", "IssueStatement", "MarkIssued", "OpenDisputes",
    "DecideDispute", "AcceptStatement", "InstructStatement", "RecordMovements", "PlanPayouts", "StoreSignedPayout",
)  # fmt: skip


def crawlers() -> list[Crawler]:
    return [Crawler(f"https://crawler-{number}.example", bytes([number + 1]) * 32) for number in range(2)]


def bodies() -> list[bytes]:
    """Three uploads, of which two have lines in common, and one line that its payer never signed."""
    import msgspec  # noqa: PLC0415

    first, second = crawlers()
    lines = [each.commit(f"/{number}", amount=DOLLAR) for number in range(6) for each in (first, second)]
    forged = msgspec.structs.replace(first.commit("/forged"), signature=first.commit("/other").signature)
    records = [first.record, second.record]
    return [
        pack([*records, *lines[:8]], sequence=1),
        pack(lines[4:], sequence=2),
        pack([*(first.commit(f"/more/{number}", amount=DOLLAR) for number in range(3)), forged], sequence=3),
    ]


def tell(house: House) -> None:
    """Tell it, whatever of it has happened already."""
    house.now = NOON
    house.open(*crawlers())
    house.ask(ProvePayee("news", "challenge", NOON))
    for body in bodies():
        upload = read_upload(body, NETWORK)
        # The sample looks at another line than the forged one.
        house.run(flows.take(house.desk, upload, frozenset({"news"})))
    house.now = NOON + DAY
    house.run(flows.close(house.desk))
    for record in house.ask(ListStatements()):
        line = max(read_line(each).id for each in leaves(house, record.statement))
        disputed = house.run(flows.dispute(house.desk, record, (DisputedLine(line, "duplicate"),)))
        if record.state == "issued":
            for each in disputed:
                decision = DecideDispute(each.dispute, granted=True, note="", rules=house.rules, now_seconds=house.now)
                house.ask(decision)
            held = house.ask(FindStatement(record.statement)).disputed
            house.ask(AcceptStatement(record.statement, "{}", NOON + 9 * DAY, held))
    house.run(paying.instruct_accepted(house.desk))
    pay(house)
    house.run(paying.prepare_payouts(house.desk, house.desk.rails["USD"]))
    pay_out(house)


def pay(house: House) -> None:
    """The chain has all payments that were instructed; it is read in two looks that overlap."""
    movements = tuple(
        Movement(CHAIN, f"0x{number}", 0, 10, True, "0xP", record.payable, record.reference)  # noqa: FBT003
        for number, record in enumerate(house.ask(ListStatements()))
        if record.state in {"instructed", "settled"} and record.payable
    )
    for look in (movements[:1], movements):
        house.ask(RecordMovements(CHAIN, "USD", look, 20, house.rules, house.now))


def pay_out(house: House) -> None:
    movements = tuple(
        Movement(CHAIN, f"0xo{number}", 0, 30, False, each.address, each.amount, each.reference)  # noqa: FBT003
        for number, each in enumerate(house.ask(OpenPayouts(9)))
        if each.state == "signed"
    )
    house.ask(RecordMovements(CHAIN, "USD", movements, 40, house.rules, house.now))


def main() -> None:
    house = House(sys.argv[1])
    tell(house)
    house.close()
    if len(sys.argv) > 2:
        time.sleep(60)


if __name__ == "__main__":
    main()
