"""A facilitator made from PyPI `x402` behind our seller: it settles, its refusals are told, its lost answer is unknown.

It takes no idempotency keys and has no `/payments`, as most facilitators. After an answer that was lost on the way our
seller therefore says `settlement_pending` to whoever comes back, serves nothing and settles nothing, for good: only
somebody who reads the chain can end that (`docs/seller.md`, "The books").
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import official_facilitator
import peers
import pytest
from eth_account import Account
from official_facilitator import EXPIRED, FUNDS, SIGNATURE, shop_of, signed, way_to
from web3 import Web3
from web3.types import Nonce, TxParams
from x402.http.utils import decode_payment_required_header

from farthing.clients.requests import paying_session
from farthing.errors import PaymentUnknown
from farthing.protocol.codec import decode_payment, decode_settlement
from farthing.protocol.facilitator import Refused, Settled
from farthing.seller.states import State
from farthing.world.facilitator_client import RemoteFacilitator

if TYPE_CHECKING:
    import httpx
    from tests.local_services import LocalServices, Wallet
    from tests.peers.official_facilitator import Official
    from tests.peers.peers import Shop

REPORT = {"report": "fair and warm"}
DOORS = ["our ASGI", "our WSGI", "our ASGI, upfront", "our WSGI, upfront"]
ABI: list[dict[str, Any]] = [
    {
        "name": "transfer",
        "type": "function",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "to", "type": "address"}, {"name": "value", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bool"}],
    }
]


@pytest.fixture(scope="module")
def served(local: LocalServices) -> Official:
    """The official facilitator, one for all tests of this file."""
    official: Official = official_facilitator.serve_official(local)
    return official


@pytest.fixture
def official(served: Official) -> Official:
    """The official facilitator; what it said before is forgotten."""
    served.said.clear()
    return served


def refused_at(local: LocalServices, shop: Shop, answer: httpx.Response) -> str:
    """A 402 that says why in both headers, with nothing served and nothing paid; the answer is the reason."""
    assert answer.status_code == 402
    settlement = decode_settlement(answer.headers["payment-response"])
    reason = settlement.error_reason or ""
    assert not settlement.success
    assert reason in answer.text
    assert REPORT["report"] not in answer.text
    assert peers.transfers(local, shop.payee) == []
    assert local.devnet.usdc_balance(shop.payee) == 0
    return reason


@pytest.mark.parametrize("name", DOORS)
def test_a_purchase_settled_by_the_official_facilitator(local: LocalServices, official: Official, name: str) -> None:
    shop = shop_of(local, name, official.url)
    wallet = local.wallet(usdc="0.05")
    with peers.our_buyer(local, wallet) as buyer, paying_session(buyer) as session:
        answer = session.get(shop.report, timeout=peers.TIMEOUT_SECONDS)
        assert (answer.status_code, answer.json()) == (200, REPORT)
        assert [each.state for each in buyer.journal.purchases()] == ["settled"]
    settlement = decode_settlement(answer.headers["payment-response"])
    receipt = local.devnet.rpc("eth_getTransactionReceipt", settlement.transaction)
    assert (settlement.success, receipt["status"]) == (True, "0x1")
    peers.assert_paid(local, shop, wallet)
    assert local.devnet.usdc_balance(wallet.address) == 50_000 - peers.AMOUNT
    assert official.said == [("/verify", ""), ("/settle", "")]
    (entry,) = shop.seller.store.ledger()
    assert (entry.transaction, entry.amount) == (settlement.transaction, peers.AMOUNT)


def test_S1_ten_copies_with_the_official_facilitator_behind_get_one_200(
    local: LocalServices, official: Official
) -> None:
    shop = shop_of(local, "our ASGI", official.url)
    wallet = local.wallet(usdc="1")
    answers = peers.send_copies(shop, signed(shop, wallet), 10)
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    peers.assert_paid(local, shop, wallet)
    assert official.said.count(("/settle", "")) == 1


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI, upfront"])
def test_the_official_facilitators_refusals_are_clear_402s(local: LocalServices, official: Official, name: str) -> None:
    shop = shop_of(local, name, official.url)
    poor, rich = local.wallet(), local.wallet(usdc="1")
    headers = {
        FUNDS: signed(shop, poor),
        SIGNATURE: signed(shop, rich, spoilt=True),
        # Our own door says this one, by the same name, before it asks anybody.
        EXPIRED: signed(shop, rich, window_seconds=-5),
    }
    for reason, header in headers.items():
        (answer,) = peers.send_copies(shop, header, 1)
        assert refused_at(local, shop, answer) == reason
        # Such a payment can't be settled, so that another may be signed.
        assert reason in (decode_payment_required_header(answer.headers["payment-required"]).error or "")
    assert shop.served == 0
    assert official.said == [("/verify", FUNDS), ("/verify", SIGNATURE)]
    assert shop.seller.store.payments() == ()
    assert local.devnet.usdc_balance(rich.address) == 1_000_000


def test_our_client_reads_each_of_the_official_facilitators_verdicts(local: LocalServices, official: Official) -> None:
    shop = shop_of(local, "our ASGI", official.url)
    poor, rich = local.wallet(), local.wallet(usdc="1")
    cases = {
        signed(shop, rich, spoilt=True): SIGNATURE,
        signed(shop, rich, window_seconds=-5): EXPIRED,
        signed(shop, poor): FUNDS,
    }
    good = signed(shop, rich)

    async def story() -> None:
        remote = RemoteFacilitator(official.url)
        supported = await remote.supported()
        assert ("exact", local.devnet.network) in {(each.scheme, each.network) for each in supported.kinds}
        for header, reason in cases.items():
            payment = decode_payment(header)
            assert payment.accepted is not None
            verdict = await remote.verify(payment, payment.accepted)
            assert (verdict.is_valid, verdict.invalid_reason) == (False, reason)
            outcome = await remote.settle(payment, payment.accepted, idempotency_key="k")
            assert isinstance(outcome, Refused)
            # It does not look at the balance again before it settles: then the chain says no, under a name of its own.
            assert outcome.reason == ("transaction_failed" if reason == FUNDS else reason)
        payment = decode_payment(good)
        assert payment.accepted is not None
        assert (await remote.verify(payment, payment.accepted)).is_valid
        assert isinstance(await remote.settle(payment, payment.accepted, idempotency_key="k"), Settled)
        await remote.aclose()

    asyncio.run(story())
    assert peers.transfers(local, shop.payee) == [(rich.address.lower(), peers.AMOUNT)]
    assert local.devnet.usdc_balance(rich.address) == 1_000_000 - peers.AMOUNT


def spend(local: LocalServices, wallet: Wallet, to: str, amount: int) -> None:
    """Have the wallet send money away by itself."""
    web3 = Web3(Web3.HTTPProvider(local.devnet.url))
    token = web3.eth.contract(address=Web3.to_checksum_address(local.devnet.usdc), abi=ABI)
    price: TxParams = {
        "from": Web3.to_checksum_address(wallet.address),
        "nonce": Nonce(0),
        "gas": 100_000,
        "gasPrice": web3.eth.gas_price,
    }
    transaction = token.functions.transfer(Web3.to_checksum_address(to), amount).build_transaction(price)
    raw = Account.from_key(wallet.key).sign_transaction(transaction).raw_transaction
    receipt = web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))
    assert receipt["status"] == 1


@pytest.mark.parametrize("name", ["our ASGI", "our WSGI"])
def test_S2_money_that_is_gone_when_the_official_facilitator_settles_buys_nothing(
    local: LocalServices, official: Official, name: str
) -> None:
    shop = shop_of(local, name, official.url)
    wallet, elsewhere = local.wallet(usdc="0.01", eth="1"), local.wallet()
    shop.meanwhile = lambda: spend(local, wallet, elsewhere.address, peers.AMOUNT)
    header = signed(shop, wallet)
    (answer,) = peers.send_copies(shop, header, 1)
    assert refused_at(local, shop, answer) == "transaction_failed"
    assert "payment-required" not in answer.headers
    transaction = decode_settlement(answer.headers["payment-response"]).transaction
    assert local.devnet.rpc("eth_getTransactionReceipt", transaction)["status"] == "0x0"
    # The authorisation lives on. When the money is back, the same payment still buys nothing, and is not settled.
    local.devnet.faucet(wallet.address, usdc="0.01")
    (again,) = peers.send_copies(shop, header, 1)
    assert refused_at(local, shop, again) == "transaction_failed"
    assert (shop.served, official.said.count(("/settle", "transaction_failed"))) == (1, 1)
    assert local.devnet.usdc_balance(wallet.address) == peers.AMOUNT


LOSSES: list[tuple[str, Any]] = [
    ("our ASGI", "the whole answer"),
    ("our WSGI", "half of the answer"),
    ("our ASGI, upfront", "half of the answer"),
    ("our WSGI, upfront", "the whole answer"),
]


@pytest.mark.parametrize(("name", "lost"), LOSSES, ids=[f"{lost} is lost to {name}" for name, lost in LOSSES])
def test_S2_a_lost_answer_of_a_facilitator_without_keys_is_unknown_and_never_settled_again(
    local: LocalServices, official: Official, name: str, lost: Any
) -> None:
    way = way_to(local, official)
    shop = shop_of(local, name, way.url)
    wallet = local.wallet(usdc="1")
    header = signed(shop, wallet)
    way.lose = lost
    for _ in range(3):
        (answer,) = peers.send_copies(shop, header, 1)
        assert answer.status_code == 402
        assert decode_settlement(answer.headers["payment-response"]).error_reason == "settlement_pending"
        assert "payment-required" not in answer.headers
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["type"] == "urn:farthing:problem:settlement-pending"
        assert REPORT["report"] not in answer.text
    # It was settled once, and what was worked before it was worked once; whoever reads the books finds it by its name.
    assert way.settlements == 1
    assert peers.transfers(local, shop.payee) == [(wallet.address.lower(), peers.AMOUNT)]
    assert local.devnet.usdc_balance(wallet.address) == 1_000_000 - peers.AMOUNT
    assert shop.served == (0 if "upfront" in name else 1)
    (row,) = shop.seller.store.payments(State.UNKNOWN)
    assert (row.payment_id, row.amount) == (answer.json()["paymentId"], peers.AMOUNT)
    assert shop.seller.store.ledger() == ()

    # Nobody else is kept waiting by it.
    (other,) = peers.send_copies(shop, signed(shop, local.wallet(usdc="1")), 1)
    assert (other.status_code, way.settlements) == (200, 2)


def test_B1_our_buyer_pays_once_where_the_answer_of_a_facilitator_without_keys_was_lost(
    local: LocalServices, official: Official
) -> None:
    way = way_to(local, official)
    shop = shop_of(local, "our ASGI", way.url)
    wallet = local.wallet(usdc="1")
    way.lose = "the whole answer"
    with peers.our_buyer(local, wallet) as buyer, paying_session(buyer) as session:
        for _ in range(2):
            with pytest.raises(PaymentUnknown) as caught:
                session.get(shop.report, timeout=peers.TIMEOUT_SECONDS)
            assert caught.value.payment_id
        assert [each.state for each in buyer.journal.purchases()] == ["unknown"]
    assert way.settlements == 1
    assert peers.transfers(local, shop.payee) == [(wallet.address.lower(), peers.AMOUNT)]
    assert local.devnet.usdc_balance(wallet.address) == 1_000_000 - peers.AMOUNT
