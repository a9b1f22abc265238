"""The reason codes of payments on credit: Cloudflare's where it has one, since clients know them."""

from __future__ import annotations

from typing import Final

# The payer may not buy here (suspended, or not known to the clearing house).
BLOCKED: Final = "blocked"
# Another price, asset, payee or network than the offer's.
PRICE_NOT_ACCEPTABLE: Final = "price_not_acceptable"
# Over the credit limit, or no credit to be had; the reason stands in `extra`.
PAYMENT_FAILED: Final = "payment_failed"
# The HTTP message signature is missing, broken, too old, or covers too little.
INVALID_SIGNATURE: Final = "invalid_signature"
# No key of that name in the agent's directory.
SIGNATURE_AGENT_UNKNOWN: Final = "signature_agent_unknown"
# The PAYMENT-SIGNATURE header does not say what it must.
INVALID_PAYMENT_SIGNATURE: Final = "invalid_payment_signature"
# Our own: this very signature has been here before.
REPLAYED: Final = "commitment_replayed"
