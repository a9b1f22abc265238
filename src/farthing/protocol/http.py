"""How x402 travels over HTTP: header names and the statuses. Source: `specs/transports-v2/http.md`."""

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

# What a browser's script must be allowed to send and to see (CORS), and what a paid answer varies on.
REQUEST_HEADERS = (PAYMENT_SIGNATURE,)
EXPOSED_HEADERS = (PAYMENT_REQUIRED, PAYMENT_RESPONSE)
