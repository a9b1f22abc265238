"""A payer's default, told so that it can be told again from the beginning after any crash, as `story.py` is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from town import DOLLAR, NETWORK, NOON, Crawler, House, pack

from farthing.clearing import flows, paying
from farthing.clearing.guarantee import CoverDefaults, FundReserve, GuaranteePayee, TakeReserve
from farthing.clearing.intake import read_upload
from farthing.clearing.settlement import Movement, OpenPayouts, RecordMovements
from farthing.clearing.store import ListStatements, ProvePayee, RegisterPayee
from farthing.evm.signatures import PrivateKey

DAY = 86_400
CHAIN = "eip155:84532"
# Every effect of the reserve that writes, and what of the other money follows it.
WRITES = (
    "GuaranteePayee", "RecordMovements", "FundReserve", "IssueStatement", "CoverDefaults", "PlanPayouts",
    "StoreSignedPayout", "RecordMovements#2", "RecordMovements#3", "CoverDefaults#2", "TakeReserve", "PlanPayouts#2",
    "RecordMovements#4",
)  # fmt: skip


def tell(house: House) -> None:
    """A deposit, a day that nobody pays for, its cover and payout, the late payment; the operator takes all out."""
    crawler = Crawler()
    house.now = NOON
    house.open(crawler)
    house.ask(RegisterPayee("ourselves", "us.example", "USD", PrivateKey(b"\x03" * 32).address, "c", NOON))
    house.ask(ProvePayee("news", "challenge", NOON))
    house.ask(ProvePayee("ourselves", "c", NOON))
    house.ask(GuaranteePayee("news", guaranteed=True))
    report(house, moved("0xfd", 5 * DOLLAR, ""))
    house.ask(FundReserve(CHAIN, "0xfd", 1, "USD", house.rules, NOON))
    body = pack([crawler.record, *(crawler.commit(f"/{n}", amount=DOLLAR) for n in range(3))])
    house.run(flows.take(house.desk, read_upload(body, NETWORK), frozenset({"news"})))
    house.now = NOON + DAY
    house.run(flows.close(house.desk))
    house.now = NOON + 32 * DAY
    cover(house)
    pay_out(house)
    (record,) = house.ask(ListStatements())
    report(house, moved("0xaa", record.payable, record.reference))
    cover(house)
    house.ask(TakeReserve("all", "ourselves", 5 * DOLLAR, house.rules, house.now))
    pay_out(house)


def cover(house: House) -> None:
    house.ask(CoverDefaults("USD", house.rules, house.now, house.now))


def report(house: House, *movements: Movement) -> None:
    house.ask(RecordMovements(CHAIN, "USD", movements, 20, house.rules, house.now))


def moved(transaction: str, amount: int, reference: str) -> Movement:
    return Movement(CHAIN, transaction, 1, 10, incoming=True, counterparty="0xP", amount=amount, reference=reference)


def pay_out(house: House) -> None:
    house.run(paying.prepare_payouts(house.desk, house.desk.rails["USD"]))
    paid = [
        Movement(CHAIN, f"0x{each.payout}", 0, 30, False, each.address, each.amount, each.reference)  # noqa: FBT003
        for each in house.ask(OpenPayouts(9))
    ]
    report(house, *paid)


if __name__ == "__main__":
    house = House(sys.argv[1])
    tell(house)
    house.close()
