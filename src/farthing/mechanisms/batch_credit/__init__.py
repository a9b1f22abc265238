"""The scheme `batch-settlement` on credit: signed promises, settled once a window over a clearing network.

A payer is an agent that Web Bot Auth knows (the origin of its key directory). What it signs is the request itself,
payment header and all (`farthing.signatures.profile`): a *commitment*, whose id is `sha256:` and the hash of the
RFC 9421 signature base. Three faces:

    BatchCreditBuyer(agent)   makes payloads, binds them to their request, reads the seller's signed receipt
    BatchCreditSeller()       completes requirements; `verify_commitment` judges a request without asking anybody
    judge_line(line, key)     what anybody can ask of a billed commitment: that its payer signed all of it

and `CloudflareBuyer`, the buyer's face of `cloudflare:402`, whose signature is weaker.
"""

from __future__ import annotations

from farthing.mechanisms.batch_credit.buyer import Agent, BatchCreditBuyer
from farthing.mechanisms.batch_credit.cloudflare import CloudflareBuyer
from farthing.mechanisms.batch_credit.evidence import judge_line
from farthing.mechanisms.batch_credit.kept import (
    KeptCommitment,
    KeptReceipt,
    keep,
    pack_kept,
    unpack_kept,
    written_out,
)
from farthing.mechanisms.batch_credit.payload import (
    CLOUDFLARE,
    NETWORKS,
    SCHEME,
    CreditPayload,
    CreditTerms,
    read_terms,
)
from farthing.mechanisms.batch_credit.receipts import receipt_for, settlement_of, sign_receipt
from farthing.mechanisms.batch_credit.seller import BatchCreditSeller
from farthing.mechanisms.batch_credit.verify import SignedCommitment, UnknownKey, commitment_id, verify_commitment

__all__ = [
    "CLOUDFLARE",
    "NETWORKS",
    "SCHEME",
    "Agent",
    "BatchCreditBuyer",
    "BatchCreditSeller",
    "CloudflareBuyer",
    "CreditPayload",
    "CreditTerms",
    "KeptCommitment",
    "KeptReceipt",
    "SignedCommitment",
    "UnknownKey",
    "commitment_id",
    "judge_line",
    "keep",
    "pack_kept",
    "read_terms",
    "receipt_for",
    "settlement_of",
    "sign_receipt",
    "unpack_kept",
    "verify_commitment",
    "written_out",
]
