"""The assertions on balances and transfers say what is wrong, not only that something is."""

from __future__ import annotations

import ssl

import httpx2
import pytest

from farthing.clients.httpx import PayingTransport
from farthing.testing import Account, Books, Town
from farthing.testing.town import Shop

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def buy(town: Town, shop: Shop, account: Account, times: int = 1) -> None:
    with (
        town.buyer(account) as buyer,
        httpx2.Client(transport=PayingTransport(buyer, inner=httpx2.HTTPTransport(verify=NO_TLS))) as client,
    ):
        for _ in range(times):
            assert client.get(shop.price_url).status_code == 200


def test_what_was_paid_is_read_from_the_chain(town: Town, books: Books) -> None:
    shop, payer = town.shop(), town.account(usdc=1)
    books.assert_transfers()  # money from the faucet is no transfer
    buy(town, shop, payer, times=2)
    books.assert_paid(shop.payee, "0.02", times=2)
    books.assert_paid(payer.address, 0)
    books.assert_transfers((payer.address, shop.payee, "0.01"), (payer.address.lower(), shop.payee, "$0.01"))
    books.assert_balance(payer.address, "0.98")
    first, second = books.transfers(payer=payer.address)
    assert (first.amount, first.payee, len(first.transaction)) == (10_000, shop.payee, 66)
    assert first.block_number < second.block_number
    Books(town.devnet).assert_transfers()


def test_what_is_wrong_is_explained(town: Town, books: Books) -> None:
    shop, payer = town.shop(), town.account(usdc=1)
    buy(town, shop, payer, times=2)
    with pytest.raises(AssertionError) as caught:
        books.assert_paid(shop.payee, "0.01")
    said = str(caught.value)
    assert f"{shop.payee} should have got $0.010000, and got $0.020000 in 2" in said
    assert f"too much by $0.010000: {payer.address} paid $0.010000 2 times" in said
    assert said.count("0x") > 4
    with pytest.raises(AssertionError, match=r"too little by \$0\.980000"):
        books.assert_paid(shop.payee, 1)
    with pytest.raises(AssertionError, match="in 1 transfers, and got"):
        books.assert_paid(shop.payee, "0.02", times=1)
    with pytest.raises(AssertionError, match="nothing"):
        books.assert_paid(town.account().address, "0.01")
    with pytest.raises(AssertionError) as caught:
        books.assert_transfers((payer.address, shop.payee, "0.01"), (payer.address, payer.address, "3"))
    said = str(caught.value)
    assert f"missing: {payer.address} -> {payer.address}: $3.000000" in said
    assert f"not expected: {payer.address} -> {shop.payee}: $0.010000, in 0x" in said
    with pytest.raises(AssertionError, match=r"should have \$1\.000000, and has \$0\.980000 \(-\$0\.020000 apart\)"):
        books.assert_balance(payer.address, 1)
