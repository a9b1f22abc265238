"""`verify_cpu`: the CPU time of a facilitator's verification of an EIP-3009 payment, from message to verdict.

The node's answers are canned; everything else is done: the scheme's payload parsed, terms compared, the digest made,
the signer recovered, the batch for the node built, its answers read and judged. The limit is the one thing that nobody
can leave out, libsecp256k1's recovery of a public key, called as barely as Python can.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench.figure import Figure
from bench.harness import Local, measure
from bench.official import BACKENDS
from bench.purchases import OFFER, PAYERS, AskNode, node_answers, purchases
from bench.secp256k1 import context, ffi, lib
from bench.worker import Worker
from farthing.flow import Effect, Now, drive
from farthing.mechanisms.exact_evm import ExactEvmFacilitator
from farthing.protocol.codec import decode_payment_json

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = 1.8


def bare() -> Callable[[int], object]:
    """The limit: parse the signature and recover the key, as two calls into the library."""
    work = [(made.signature[:64], made.signature[64] - 27, made.digest) for made in purchases(PAYERS, int(time.time()))]
    signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    public_key = ffi.new("secp256k1_pubkey *")

    def recover(index: int) -> None:
        compact, recovery_id, digest = work[index % PAYERS]
        lib.secp256k1_ecdsa_recoverable_signature_parse_compact(context, signature, compact, recovery_id)
        assert lib.secp256k1_ecdsa_recover(context, public_key, signature, digest) == 1

    return recover


def ours() -> Callable[[int], object]:
    """Our facilitator's face, driven."""
    now_seconds = int(time.time())
    payments = [decode_payment_json(made.payment_json) for made in purchases(PAYERS, now_seconds)]
    answers = node_answers(now_seconds)
    face = ExactEvmFacilitator()

    def perform(effect: Effect[Any]) -> Any:
        if type(effect) is AskNode:
            return answers
        assert type(effect) is Now
        return now_seconds

    def verify(index: int) -> None:
        found = drive(face.verify(payments[index % PAYERS], OFFER), perform)
        assert found.response.is_valid, found.response

    return verify


def run() -> list[Figure]:
    """Measure."""
    with (
        Worker("bench.official", "verify", BACKENDS["native"]) as native,
        Worker("bench.official", "verify", BACKENDS["coincurve"]) as coincurve,
    ):
        found = measure({"limit": Local(bare()), "ours": Local(ours()), "official": native, "coincurve": coincurve})
    return [
        Figure(
            name="verify_cpu",
            ours=found["ours"],
            unit="µs",
            better="lower",
            limit=found["limit"],
            official=found["official"],
            official_coincurve=found["coincurve"],
            target=TARGET,
        )
    ]
