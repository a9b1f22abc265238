"""The payment as a handler sees it."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from farthing.protocol.messages import PaymentRequirements


class Payment(msgspec.Struct, frozen=True, gc=False):
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
    # The amount in units of the asset, where the table of networks knows its decimals.
    price: Decimal | None = None
