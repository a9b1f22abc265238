"""The official package (PyPI `x402`) on the same work; runs in a worker, since its elliptic curve is chosen on import.

`x402` signs and recovers through eth-keys, which takes its backend from `ECC_BACKEND_CLASS`: pure Python where only
what `x402[evm]` asks for is installed, libsecp256k1 where coincurve is there too.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from bench.purchases import CHAIN_ID, OFFER, key, offer_header, purchases
from farthing.protocol.codec import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = {
    "native": {"ECC_BACKEND_CLASS": "eth_keys.backends.NativeECCBackend"},
    "coincurve": {"ECC_BACKEND_CLASS": "eth_keys.backends.CoinCurveECCBackend"},
}

# Enough that each verification is another payment; its windows stay open for as long as a bench runs.
_PAYMENTS = 256
# A payment is made to be open long after the bench ended: the package reads the clock itself.
_WINDOW_AHEAD_SECONDS = 240


def verify() -> Callable[[int], object]:
    """The facilitator's scheme, with canned node answers."""
    from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme  # noqa: PLC0415 - slow, and per process
    from x402.schemas import PaymentPayload, PaymentRequirements  # noqa: PLC0415 - likewise

    class Signer:
        """What the package asks of a node, answered at once."""

        def get_addresses(self) -> list[str]:
            return [key(0).address]

        def get_chain_id(self) -> int:
            return CHAIN_ID

        def get_code(self, address: str) -> bytes:
            # The asset is a contract, the payer is none.
            return b"\x60" if address == OFFER.asset else b""

        def read_contract(self, *_: Any) -> None:
            return None

    made = purchases(_PAYMENTS, int(time.time()) + _WINDOW_AHEAD_SECONDS)
    payments = [PaymentPayload.model_validate_json(each.payment_json) for each in made]
    requirements = PaymentRequirements.model_validate_json(encode_json(OFFER))
    scheme: Any = ExactEvmScheme(signer=Signer())  # type: ignore[arg-type]

    def once(index: int) -> None:
        found = scheme.verify(payments[index % _PAYMENTS], requirements)
        assert found.is_valid, found

    return once


def sign() -> Callable[[int], object]:
    """The client: header in, header out."""
    from eth_account import Account  # noqa: PLC0415 - slow, and per process
    from x402.client import x402ClientSync  # noqa: PLC0415 - likewise
    from x402.http.utils import (  # noqa: PLC0415 - likewise
        decode_payment_required_header,
        encode_payment_signature_header,
    )
    from x402.mechanisms.evm.exact.client import ExactEvmScheme  # noqa: PLC0415 - likewise

    header = offer_header()
    client: Any = x402ClientSync()
    # The key of key(0): both sides sign with the same one.
    client.register(OFFER.network, ExactEvmScheme(Account.from_key(_secret())))
    assert json.loads(encode_json(OFFER))["scheme"] == "exact"

    def once(_: int) -> str:
        return encode_payment_signature_header(client.create_payment_payload(decode_payment_required_header(header)))

    return once


def _secret() -> bytes:
    import hashlib  # noqa: PLC0415 - the one place that needs it

    return hashlib.sha256(b"farthing bench 0").digest()
