"""`sign_cpu`: the CPU time of a buyer between a 402 and the paid request: decode the header, sign, encode the header.

The limit is libsecp256k1's recoverable signature with its serialisation, called as barely as Python can.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from bench.figure import Figure
from bench.harness import Local, measure
from bench.official import BACKENDS
from bench.purchases import RandomBytes, key, offer_header
from bench.secp256k1 import context, ffi, lib
from bench.worker import Worker
from farthing.evm.signing import SignTypedData
from farthing.flow import Effect, Now, drive
from farthing.mechanisms.exact_evm import ExactEvmBuyer
from farthing.mechanisms.registry import Registry
from farthing.protocol.codec import decode_payment_required, encode_payment, pack_json

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = 2.0
_DIGESTS = 1024


def bare() -> Callable[[int], object]:
    """The limit: sign and serialise, as two calls into the library."""
    secret = os.urandom(32)
    digests = [os.urandom(32) for _ in range(_DIGESTS)]
    signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    compact = ffi.new("unsigned char[64]")
    recovery_id = ffi.new("int *")

    def sign(index: int) -> bytes:
        digest = digests[index % _DIGESTS]
        assert lib.secp256k1_ecdsa_sign_recoverable(context, signature, digest, secret, ffi.NULL, ffi.NULL) == 1
        lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(context, compact, recovery_id, signature)
        return bytes(ffi.buffer(compact)) + bytes((recovery_id[0],))

    return sign


def ours() -> Callable[[int], object]:
    """Our buyer's face, driven: header in, header out."""
    header = offer_header()
    signer = key(0)
    payer = signer.address
    registry = Registry([ExactEvmBuyer()])

    def perform(effect: Effect[Any]) -> Any:
        kind = type(effect)
        if kind is Now:
            return int(time.time())
        if kind is RandomBytes:
            return os.urandom(effect.size_bytes)  # type: ignore[attr-defined]
        assert kind is SignTypedData
        return signer.sign_typed_data(effect.message)  # type: ignore[attr-defined]

    def pay(_: int) -> str:
        received = decode_payment_required(header)
        for offer in received.offers:
            face = registry.find(offer.requirements.scheme, offer.requirements.network)
            if face is None or face.passes_over(offer.requirements) is not None:
                continue
            prepared = drive(face.pay(offer.requirements, payer=payer, nonce=None), perform)
            return pack_json(
                encode_payment(
                    accepted=offer.raw,
                    payload=prepared.payload,
                    resource=received.resource_raw,
                    extensions=received.extensions,
                )
            )
        raise AssertionError

    return pay


def run() -> list[Figure]:
    """Measure."""
    with (
        Worker("bench.official", "sign", BACKENDS["native"]) as native,
        Worker("bench.official", "sign", BACKENDS["coincurve"]) as coincurve,
    ):
        found = measure({"limit": Local(bare()), "ours": Local(ours()), "official": native, "coincurve": coincurve})
    return [
        Figure(
            name="sign_cpu",
            ours=found["ours"],
            unit="µs",
            better="lower",
            limit=found["limit"],
            official=found["official"],
            official_coincurve=found["coincurve"],
            target=TARGET,
        )
    ]
