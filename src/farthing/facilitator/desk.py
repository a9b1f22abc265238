"""What a facilitator takes: mechanisms, networks with their tokens, and limits. Plain data that the flows work with."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final

import msgspec

from farthing.facilitator.joining import JOINED_MAX
from farthing.mechanisms.interface import FacilitatorMechanism
from farthing.mechanisms.registry import Registry
from farthing.protocol.messages import SupportedKind, SupportedResponse
from farthing.protocol.payment_identifier import NAME

# A transfer by EIP-3009 takes about 80,000 gas on USDC (a proxy with cold slots); twice that is somebody's trick.
GAS_LIMIT_MAX: Final = 200_000
# A payer with code runs it at our cost: verifying a passkey's signature without a precompile takes some 330,000 gas,
# deploying a wallet some 250,000 (ERC-6492).
WALLET_GAS_LIMIT_MAX: Final = 750_000
# A seller that holds its client's request open waits about this long; the official client gives up after 90 s.
SETTLE_TIMEOUT_SECONDS: Final = 30
# A call that failed on chain cost us gas: so often it is tried before the payment is refused.
ATTEMPTS_MAX: Final = 3
# What `/supported` says among its extensions: a second `/settle` under one Idempotency-Key is answered as the first.
IDEMPOTENCY_KEYS: Final = "idempotency-key"
# Payments that are not over yet; beyond it a new one is told to come back. Each costs a few kilobytes and a poll.
OPEN_PAYMENTS_MAX: Final = 10_000
# What one key (a seller's bearer token) may ask for in a minute: several times what a process answers, so that it stops
# floods and no seller.
CALLER_REQUESTS_PER_MINUTE: Final = 120_000
# Payments of one payer in a minute, verified and settled each: fifty a second for an agent that buys by the page.
PAYER_REQUESTS_PER_MINUTE: Final = 3_000
# Gas that the payments of one payer may take in an hour, by their gas limits: some 10,000 settlements of 100,000.
PAYER_GAS_PER_HOUR_MAX: Final = 1_000_000_000
# The same for all payments that one key brings: some 200,000 settlements.
CALLER_GAS_PER_HOUR_MAX: Final = 20_000_000_000
# Calls of one payer that failed on chain and shared their transaction with nobody: a payment that was verified fails by
# its payer's doing (money moved away, code that refuses). After so many in an hour the payer waits.
PAYER_FAILURES_PER_HOUR_MAX: Final = 3
# The least time that a window must be open when the transaction is built, in seconds: a few blocks.
WINDOW_LEFT_MIN_SECONDS: Final = 4

_Count = Annotated[int, msgspec.Meta(ge=1)]
# Less than this would hold no payment of a contract wallet.
_HourlyGas = Annotated[int, msgspec.Meta(ge=1_000_000)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facilitator's bounds. Seconds and gas units; `wallet_gas_limit_max` is for payers with code.

    `joined_payments_max` payments share one transaction at most; with 1, none does. `cancel_at_fee_cap` gives a
    transaction up that is stuck at the fee cap; else only one whose members' windows are all over.

    `caller_…` are for a bearer token, `payer_…` for a payer; each process counts for itself. A payer's requests are
    counted once its payment was found good: verifications by token and payer, settlements by payer. Gas is counted by
    the payments' gas limits, by network. `payer_failures_per_hour_max` calls that failed alone have the payer wait.
    """

    settle_timeout_seconds: float = SETTLE_TIMEOUT_SECONDS
    gas_limit_max: int = GAS_LIMIT_MAX
    wallet_gas_limit_max: int = WALLET_GAS_LIMIT_MAX
    attempts_max: int = ATTEMPTS_MAX
    open_payments_max: int = OPEN_PAYMENTS_MAX
    window_left_min_seconds: int = WINDOW_LEFT_MIN_SECONDS
    joined_payments_max: Annotated[int, msgspec.Meta(ge=1, le=JOINED_MAX)] = JOINED_MAX
    cancel_at_fee_cap: bool = False
    caller_requests_per_minute: _Count = CALLER_REQUESTS_PER_MINUTE
    payer_requests_per_minute: _Count = PAYER_REQUESTS_PER_MINUTE
    payer_gas_per_hour_max: _HourlyGas = PAYER_GAS_PER_HOUR_MAX
    caller_gas_per_hour_max: _HourlyGas = CALLER_GAS_PER_HOUR_MAX
    payer_failures_per_hour_max: _Count = PAYER_FAILURES_PER_HOUR_MAX


class Desk(msgspec.Struct, frozen=True):
    """What this facilitator takes: its mechanisms, the assets by (network, address in lower case), and its limits.

    `signers` are the wallets that settle, by CAIP-2 pattern, as `/supported` shows them.
    """

    mechanisms: Registry[FacilitatorMechanism]
    assets: frozenset[tuple[str, str]]
    limits: Limits = Limits()
    signers: dict[str, tuple[str, ...]] = {}

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks on which something is settled here."""
        return _networks(self.assets)

    def supported(self) -> SupportedResponse:
        """Give the answer of `/supported`."""
        schemes = sorted({face.scheme for face in self.mechanisms.all()})
        kinds = tuple(
            SupportedKind(scheme=scheme, network=network)
            for scheme in schemes
            for network in self.networks
            if self.mechanisms.find(scheme, network) is not None
        )
        return SupportedResponse(kinds=kinds, extensions=(IDEMPOTENCY_KEYS, NAME), signers=self.signers)


# Asked for with each payment.
@lru_cache(maxsize=8)
def _networks(assets: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({network for network, _ in assets}))
