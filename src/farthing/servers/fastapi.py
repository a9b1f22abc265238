"""The payment as a FastAPI dependency.

@app.get("/weather/{city}")
async def weather(city: str, paid_with: Annotated[Payment, Depends(payment)]) -> dict[str, str]: ...
"""

from __future__ import annotations

from fastapi import Request

from farthing.seller.payment import Payment
from farthing.servers.asgi import SCOPE_KEY, PaymentMiddleware
from farthing.servers.marks import Unpaid, current_payment
from farthing.servers.seller import Seller

__all__ = ["Payment", "PaymentMiddleware", "Seller", "current_payment", "payment"]


def payment(request: Request) -> Payment:
    """Give the payment that this request was paid with. Raises `Unpaid` where it has none: the route has no price."""
    found = request.scope.get(SCOPE_KEY)
    if not isinstance(found, Payment):
        message = (
            f"{request.method} {request.url.path} was not paid for: price it with Seller.price or @seller.paid, and "
            "add PaymentMiddleware to the application."
        )
        raise Unpaid(message)
    return found
