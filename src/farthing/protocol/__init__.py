"""The protocol x402, version 2: messages, their codec, and how they travel over HTTP. No I/O.

Source: the x402 specification, version 2 (`specs/x402-specification-v2.md` and `specs/transports-v2/http.md`).
"""
