"""Reconciliation: what became of a payment is found out by evidence, and what can't be keeps its place (SAFETY B1)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
from shop import SELLER, Shop, answering, cut, make_buyer, offer, required, response, settle

from farthing.buyer import NoAnswer, PaidAnswer, PaidRequest, PaymentDemand, Policy, describe_request
from farthing.buyer.reconcile import Finding
from farthing.clients import Buyer, Reconciliation
from farthing.clients.buyer import Exchange
from farthing.errors import ConfigError, PaymentError, PaymentUnknown
from farthing.evm.addresses import parse_address
from farthing.evm.calls import authorization_state, cancel_authorization_vrs, transfer_with_authorization_vrs
from farthing.evm.node import AskNode
from farthing.evm.signatures import PrivateKey
from farthing.evm.transactions import Transaction
from farthing.evm.typed_data import CancelAuthorization, Domain
from farthing.flow import Now
from farthing.mechanisms.exact_evm.payload import ExactDetail
from farthing.protocol.codec import decode_payment
from farthing.protocol.facilitator import PaymentStatus
from farthing.world.keys import LocalSigner

if TYPE_CHECKING:
    from tests.local_services import LocalServices

PRICE = 10**16
LATE = NoAnswer("ReadTimeout")
REFUSAL = PaidAnswer(402, response(success=False, transaction="", error_reason="insufficient_funds"))


class Town:
    """A buyer with money on a chain, whose payments this test settles or does not."""

    def __init__(self, local: LocalServices, folder: Path) -> None:
        self.local, self.devnet = local, local.devnet
        wallet = local.wallet(usdc="1")
        self.key = PrivateKey.from_hex(wallet.key)
        self.submitter = PrivateKey.from_hex(local.wallet(eth="1").key)
        self.payee = local.wallet().address
        policy = Policy(networks=[self.devnet.network], total="$0.10")
        self.buyer = Buyer(
            signer=LocalSigner.from_hex(wallet.key), policy=policy, journal=folder / "journal", networks=local.networks
        )
        self.journal = self.buyer.journal

    def unknown(self, name: str = "thing", *, answer: PaidAnswer | NoAnswer = LATE,
                signed_at: int = 0) -> PaidRequest:  # fmt: skip
        """Sign a payment that nobody answers for."""
        terms = offer(10_000, network=self.devnet.network, pay_to=self.payee, **self.local.asset)
        if signed_at:
            self.buyer.performer = self.buyer.performer.with_({Now: lambda _effect: signed_at})
        with Exchange(self.buyer, describe_request("GET", f"https://shop.example/{name}", b"")) as exchange:
            paid = exchange.blocking(exchange.pay(PaymentDemand(required(terms))))
            with pytest.raises(PaymentError):
                exchange.blocking(exchange.conclude(answer))
        self.buyer.performer = self.buyer.performer.with_({Now: lambda _effect: int(time.time())})
        return paid

    def detail(self, paid: PaidRequest) -> ExactDetail:
        """What was signed."""
        detail = SELLER.read(decode_payment(paid.header)).detail
        assert isinstance(detail, ExactDetail)
        return detail

    def settle(self, paid: PaidRequest) -> str:
        """Submit the payment, as anybody can."""
        detail = self.detail(paid)
        return self.send(transfer_with_authorization_vrs(detail.message, detail.signature))

    def cancel(self, paid: PaidRequest) -> str:
        """Use the nonce up without a payment."""
        message = CancelAuthorization(self.detail(paid).message.from_, self.detail(paid).message.nonce)
        domain = Domain("USDC", "2", self.devnet.chain_id, parse_address(self.devnet.usdc))
        return self.send(cancel_authorization_vrs(message, self.key.sign_typed_data(message.bind(domain))))

    def send(self, data: bytes) -> str:
        """Send a transaction to the token; its hash."""
        nonce = int(self.devnet.rpc("eth_getTransactionCount", self.submitter.address, "latest"), 16)
        transaction = Transaction(
            chain_id=self.devnet.chain_id, nonce=nonce, max_priority_fee_per_gas=10**9, max_fee_per_gas=10**11,
            gas_limit=200_000, to=parse_address(self.devnet.usdc), value=0, data=data,
        )  # fmt: skip
        sent = str(self.devnet.rpc("eth_sendRawTransaction", "0x" + transaction.sign(self.submitter).raw.hex()))
        assert self.devnet.wait_for_receipt(sent)["status"] == "0x1"
        return sent

    def reconcile(self, **ways: Any) -> list[Finding]:
        """Ask the chain, unless told otherwise."""
        return list(self.asking(**ways).blocking())

    def asking(self, **ways: Any) -> Reconciliation:
        ways = ways or {"nodes": {self.devnet.network: [self.devnet.url]}}
        return self.buyer.reconcile(**ways)

    @property
    def long_ago(self) -> int:
        """A time whose windows are over by the chain's clock."""
        return self.devnet.timestamp() - 3_600


@pytest.fixture
def town(local: LocalServices, tmp_path: Path) -> Iterator[Town]:
    made = Town(local, tmp_path)
    with made.buyer:
        yield made


def test_B1_what_was_settled_is_found_with_transaction_block_and_log(town: Town) -> None:
    paid = town.unknown()
    transaction = town.settle(paid)
    # In a block, and not final yet: no evidence.
    (early,) = town.reconcile()
    assert (early.verdict, early.state) == ("could_not", "unknown")
    assert "not final yet" in early.evidence[0].says
    town.devnet.mine(3)
    (found,) = town.reconcile()
    receipt = town.devnet.rpc("eth_getTransactionReceipt", transaction)
    proof = found.evidence[0]
    assert (found.verdict, found.state, found.transaction) == ("settled", "settled", transaction)
    assert (proof.block_number, proof.block_hash) == (int(receipt["blockNumber"], 16), receipt["blockHash"])
    assert proof.log_index in {int(log["logIndex"], 16) for log in receipt["logs"]}
    (entry,) = town.journal.purchases()
    assert (entry.state, entry.transaction, entry.delivered) == ("settled", transaction, False)
    assert msgspec.json.decode(entry.evidence)["who"] == "chain"
    assert town.journal.used() == PRICE
    assert town.reconcile() == []


@pytest.mark.parametrize("answer", [NoAnswer("ReadTimeout"), REFUSAL], ids=["unknown", "refused"])
def test_B1_unused_past_its_window_gives_the_place_back_and_allows_a_new_nonce(
    town: Town, answer: PaidAnswer | NoAnswer
) -> None:
    paid = town.unknown(answer=answer, signed_at=town.long_ago)
    assert town.journal.used() == PRICE
    town.devnet.mine(3)
    (found,) = town.reconcile()
    assert (found.verdict, found.state, town.journal.used()) == ("not_settled", "closed", 0)
    assert "past validBefore" in found.evidence[0].says
    again = town.unknown()
    assert town.detail(again).message.nonce != town.detail(paid).message.nonce
    assert not again.again


def test_B1_a_cancelled_authorisation_is_not_settled(town: Town) -> None:
    paid = town.unknown()
    transaction = town.cancel(paid)
    town.devnet.mine(3)
    (found,) = town.reconcile()
    assert (found.verdict, found.transaction, town.journal.used()) == ("not_settled", transaction, 0)
    assert "cancelled" in found.evidence[0].says


def test_B1_an_open_window_is_no_evidence_and_keeps_the_place(town: Town) -> None:
    paid = town.unknown()
    town.devnet.mine(3)
    (found,) = town.reconcile()
    assert (found.verdict, found.state, town.journal.used()) == ("could_not", "unknown", PRICE)
    assert town.unknown().header == paid.header


def test_B1_a_node_that_is_away_or_of_another_chain_is_no_evidence(town: Town) -> None:
    town.unknown(signed_at=town.long_ago)
    town.devnet.mine(3)
    away = {town.devnet.network: ["http://127.0.0.1:1"]}
    (found,) = town.reconcile(nodes=away)
    assert (found.verdict, town.journal.used()) == ("could_not", PRICE)
    (found,) = town.reconcile(nodes={"eip155:1": [town.devnet.url]})
    assert (found.verdict, found.evidence[0].says) == ("could_not", "There was nobody to ask.")


def lie(asking: Reconciliation, town: Town, *, used: bool) -> None:
    """Have the second node lie about every nonce."""
    real = asking._performer._handlers[AskNode]
    about = "0x" + authorization_state(b"\0" * 20, b"\0" * 32)[:4].hex()

    async def ask(effect: AskNode) -> Any:
        answers = await real(effect)
        if not effect.network.endswith("#1"):
            return answers
        flag = "0x" + (b"\0" * 31 + bytes([used])).hex()
        return tuple(
            flag if call.method == "eth_call" and call.params[0]["data"].startswith(about) else answer
            for call, answer in zip(effect.calls, answers, strict=True)
        )

    asking._performer = asking._performer.with_({AskNode: ask})


@pytest.mark.parametrize("signed_at", ["now", "long ago"])
def test_B1_nodes_that_disagree_prove_nothing(town: Town, signed_at: str) -> None:
    paid = town.unknown(signed_at=town.long_ago if signed_at == "long ago" else 0)
    if signed_at == "now":
        town.settle(paid)
        town.devnet.mine(3)
    town.devnet.mine(3)
    asking = town.asking(nodes={town.devnet.network: [town.devnet.url, town.devnet.url]})
    lie(asking, town, used=signed_at == "long ago")
    (found,) = asking.blocking()
    # "Not settled" must be said by each; for "settled" a node that is behind is no contradiction.
    assert found.verdict == ("could_not" if signed_at == "long ago" else "settled")
    assert town.journal.used() == PRICE


def test_B1_a_facilitator_names_the_transaction_and_its_refusal_is_no_evidence(town: Town) -> None:
    paid = town.unknown()
    town.unknown("other")

    class Desk:
        def __init__(self, **changes: Any) -> None:
            self.changes = changes

        async def find(self, payment_id: str) -> PaymentStatus | None:
            if payment_id != paid.payment_id:
                return None
            facts: dict[str, Any] = {
                "payment_id": payment_id, "state": "confirmed", "network": paid.network, "asset": town.devnet.usdc,
                "payer": paid.payer, "pay_to": town.payee, "amount": "10000", "transaction": "0x" + "cd" * 32,
                "block_number": 7,
            }  # fmt: skip
            return PaymentStatus(**facts | self.changes)

        verify = settle = supported = None

    def ask(**changes: Any) -> list[str]:
        found = town.reconcile(facilitator=Desk(**changes))
        return [each.verdict for each in sorted(found, key=lambda each: each.purchase.url, reverse=True)]

    for lies in (
        {"state": "refused", "reason": "insufficient_funds"},
        {"state": "in_batch"},
        {"amount": "9999"},
        {"pay_to": "0x" + "99" * 20},
        {"payment_id": "pay_other"},
        {"transaction": ""},
    ):
        assert ask(**lies) == ["could_not", "could_not"]
    assert town.journal.used() == 2 * PRICE
    assert ask() == ["settled", "could_not"]
    found = town.journal.find(paid.payment_id)
    assert found
    assert (found.state, found.transaction) == ("settled", "0x" + "cd" * 32)


def test_the_chain_s_word_counts_before_a_facilitator_s(town: Town) -> None:
    paid = town.unknown(signed_at=town.long_ago)
    town.devnet.mine(3)

    class Liar:
        async def find(self, payment_id: str) -> Any:
            return PaymentStatus(
                payment_id=payment_id, state="confirmed", network=paid.network, asset=town.devnet.usdc,
                payer=paid.payer, pay_to=town.payee, amount="10000", transaction="0x" + "cd" * 32,
            )  # fmt: skip

    nodes = {town.devnet.network: [town.devnet.url]}
    (found,) = town.reconcile(nodes=nodes, facilitator=Liar())
    assert (found.verdict, found.state) == ("not_settled", "closed")


def test_awaiting_finds_the_same(town: Town) -> None:
    town.unknown(signed_at=town.long_ago)
    town.devnet.mine(3)

    async def run() -> list[Finding]:
        return [each async for each in town.asking().awaiting()]

    assert [each.verdict for each in asyncio.run(run())] == ["not_settled"]


def test_nobody_to_ask_is_said(town: Town) -> None:
    with pytest.raises(ConfigError, match="nobody to ask"):
        Reconciliation(town.journal)


# The seller, asked by presenting the payment again.


def test_B1_the_seller_is_asked_with_the_same_payment_and_only_when_told(shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path) as buyer:
        shop.behaviours["/thing"] = cut
        open_one(buyer, shop)
        assert len(shop.paid()) == 1
        shop.behaviours["/thing"] = settle
        (found,) = buyer.reconcile(present=True).blocking()
        assert (found.verdict, found.state, found.body) == ("settled", "settled", b"the goods")
        assert len(set(shop.paid())) == len(shop.transfers) == 1
        assert list(buyer.reconcile(present=True).blocking()) == []


@pytest.mark.parametrize("status", [402, 404, 409, 500])
def test_B1_what_a_seller_says_against_a_payment_is_no_evidence(shop: Shop, tmp_path: Path, status: int) -> None:
    with make_buyer(tmp_path) as buyer:
        shop.behaviours["/thing"] = answering(status, b"no")
        open_one(buyer, shop)
        (found,) = buyer.reconcile(present=True).blocking()
        assert found.verdict == "could_not"
        assert buyer.journal.used() == PRICE
        # And it is open as before.
        assert len(buyer.journal.list_open()) == 1
        assert len(set(shop.paid())) == 1


def test_B5_a_request_with_a_body_is_not_presented(shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path) as buyer:
        open_one(buyer, shop, body=b"a question")
        (found,) = buyer.reconcile(present=True).blocking()
        assert (found.verdict, "had a body" in found.evidence[0].says) == ("could_not", True)
        assert shop.paid() == []


def test_B2_a_stopped_journal_presents_nothing(shop: Shop, tmp_path: Path) -> None:
    with make_buyer(tmp_path) as buyer:
        open_one(buyer, shop)
        buyer.journal.stop()
        (found,) = buyer.reconcile(present=True).blocking()
        assert "stopped" in found.evidence[0].says
        assert shop.paid() == []


def open_one(buyer: Buyer, shop: Shop, body: bytes = b"") -> None:
    """Leave a payment to the shop open; where it misbehaves, by sending it."""
    with Exchange(buyer, describe_request("GET", shop.url + "/thing", body)) as exchange:
        paid = exchange.blocking(exchange.pay(PaymentDemand(required(offer()))))
        if "/thing" in shop.behaviours:
            with httpx2.Client() as client, contextlib.suppress(httpx2.TransportError):
                client.get(shop.url + "/thing", headers={paid.wire.payment_header: paid.header})
        with pytest.raises(PaymentUnknown):
            exchange.blocking(exchange.conclude(LATE))
