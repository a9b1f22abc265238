"""Doors for sellers: what puts a price on the routes of an ASGI or WSGI application.

from farthing.servers import Seller
from farthing.servers.asgi import PaymentMiddleware      # Starlette, FastAPI, Litestar, any ASGI application
from farthing.servers.wsgi import PaidWSGI               # Flask, Django, any WSGI application
from farthing.servers.fastapi import payment             # the payment as a dependency
"""

from __future__ import annotations

from farthing.seller.payment import Payment
from farthing.seller.pricing import Amount, Facts, Terms
from farthing.seller.store import SellerPayment
from farthing.servers.marks import Unpaid, current_payment
from farthing.servers.seller import OfferTooLarge, Seller

__all__ = [
    "Amount",
    "Facts",
    "OfferTooLarge",
    "Payment",
    "Seller",
    "SellerPayment",
    "Terms",
    "Unpaid",
    "current_payment",
]
