"""The table of hostile modes: what it counts, beside the official client in the same run."""

from __future__ import annotations

from bench import hostile

from farthing.testing import SellerMode, Town


def test_B1_ours_pays_once_where_a_buyer_that_signs_anew_pays_three_times(town: Town) -> None:
    mode = SellerMode.BAD_GATEWAY_AFTER_SETTLING
    ours, official = (hostile.buy(town, mode, who) for who in hostile.BUYERS.values())
    assert (ours.signed, ours.transfers) == (1, 1)
    assert ours.told[:2] == ("PaymentUnknown(http_502)",) * 2
    # What the official client did is told, not asserted, but for what the table needs: it is counted on the chain.
    assert official.signed >= official.transfers >= 1
    assert "signed" in official.to_text()
    assert hostile.doubled([ours]) == 0


def test_the_official_client_buys_where_nothing_is_wrong(town: Town) -> None:
    row = hostile.buy(town, SellerMode.BEHAVE, hostile.ask_with_official)
    assert (row.signed, row.transfers, row.told) == (1, 1, ("200",))
