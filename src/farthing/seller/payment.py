"""The payment as a handler sees it."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from farthing.money import from_atomic
from farthing.networks import KNOWN
from farthing.protocol.messages import PaymentRequirements


class Payment(msgspec.Struct, frozen=True):
    """What a request was paid with. `amount` is in atomic units of `asset`; addresses are EIP-55.

    In the `authorization` flow the payment is verified and claimed while the handler runs, and settled after it; in
    the `upfront` flow it is settled.
    """

    payment_id: str
    payer: str
    pay_to: str
    amount: int
    asset: str
    network: str
    requirements: PaymentRequirements

    @property
    def price(self) -> Decimal | None:
        """The amount in units of the asset, where its decimals are known."""
        token = KNOWN.token(self.network, self.asset)
        return None if token is None else from_atomic(self.amount, token.decimals)
