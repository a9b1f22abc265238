"""How x402 travels over HTTP: header names and the statuses. Source: `specs/transports-v2/http.md`.

Doors ask `farthing.protocol.versions` which of its headers a request or an answer has.
"""

from __future__ import annotations

PAYMENT_REQUIRED = "PAYMENT-REQUIRED"
PAYMENT_SIGNATURE = "PAYMENT-SIGNATURE"
PAYMENT_RESPONSE = "PAYMENT-RESPONSE"
# Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), scoped by bearer token: SAFETY F1's "same key".
IDEMPOTENCY_KEY = "Idempotency-Key"

STATUS_OK = 200
STATUS_BAD_REQUEST = 400
STATUS_PAYMENT_REQUIRED = 402
STATUS_CONFLICT = 409
STATUS_SERVICE_UNAVAILABLE = 503
