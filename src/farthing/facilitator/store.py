"""The facilitator's store, as effects: each is one atomic step, and its answer says what it changed.

`farthing.world.facilitator_store` performs them over SQLite. Times are Unix seconds, amounts atomic units, hashes and
addresses `0x` text. A moment is always handed in: the store has no clock.
"""

from __future__ import annotations

import msgspec

from farthing.flow import Effect


class PaymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One payment as it is on record.

    `caller` is the bearer token's name, `claimant` the call that is told of success (empty: nobody waits), `told` says
    that it was. `recorded_block` is the newest block that the verification saw: somebody else's transaction in it, or
    in an older one, is not this settlement. `transaction` is the settling transaction, or the newest version of ours
    on its way, and `wallet` and `nonce` the name of the latter. `alone` says that it shares its transaction with none.
    """

    payment_id: str
    state: str
    scheme: str
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    valid_before: int
    fingerprint: str
    requirements_print: str
    created_at: int
    recorded_block: int
    gas_limit: int
    alone: bool = False
    caller: str = ""
    idempotency_key: str = ""
    claimant: str = ""
    claim_until: int = 0
    told: bool = False
    attempts: int = 0
    transaction: str = ""
    block_number: int | None = None
    block_hash: str = ""
    log_index: int | None = None
    gas_used: int | None = None
    reason: str = ""
    message: str = ""
    wallet: str = ""
    nonce: int | None = None


class PaymentBody(msgspec.Struct, frozen=True):
    """What was sent to `/settle`, as JSON: enough to read the payment again after a restart."""

    payment: bytes
    requirements: bytes


class FindRecord(Effect["PaymentRecord | None"], frozen=True):
    """Find a payment by its payment id."""

    payment_id: str


class FindRecordByTransaction(Effect["PaymentRecord | None"], frozen=True):
    """Find the payment that a transaction hash settled, or is to settle: the only one. None where it has several."""

    transaction: str


class FindRecords(Effect["tuple[PaymentRecord, ...]"], frozen=True):
    """Find several payments at once; the ones that are not on record are left out."""

    payment_ids: tuple[str, ...]


class LoadBodies(Effect["dict[str, PaymentBody]"], frozen=True):
    """Load what was sent to `/settle` for each of these payments."""

    payment_ids: tuple[str, ...]


class FindIdentified(Effect["str | None"], frozen=True):
    """Find the payment that a payment-identifier is bound to, by its scope; None also where that one was refused."""

    scope: str


class IdentifierTaken(msgspec.Struct, frozen=True):
    """Nothing was recorded: the payment-identifier is bound to another payment, which was settled or may be."""


class RecordPayment(Effect["PaymentRecord | IdentifierTaken"], frozen=True):
    """Put a verified payment on record as RECEIVED, unless its identity is known; the answer is what is on record.

    `identifier` is the scope of its payment-identifier, bound in the same step; empty where it has none.
    """

    record: PaymentRecord
    body: PaymentBody
    identifier: str = ""


class TakePlace(Effect["PaymentRecord | None"], frozen=True):
    """Become the one caller that is told of success, where nobody is. None: somebody is, or was told already.

    The place is free where it was given up, and where its holder's time is over and it was told nothing.
    """

    payment_id: str
    caller: str
    idempotency_key: str
    claimant: str
    now_seconds: int
    claim_until: int


class GivePlaceUp(Effect[bool], frozen=True):
    """Stop being the one that is told. False: success was told to this claimant in the meantime."""

    payment_id: str
    claimant: str


class Tell(Effect[bool], frozen=True):
    """Record that `claimant` is told of success now. False: it lost its place."""

    payment_id: str
    claimant: str


class Lease(msgspec.Struct, frozen=True):
    """A wallet's lease: who holds it shows in `held`; `epoch` grows with each change of hands.

    `first_nonce` is the chain's count when the wallet was first used, None before; `next_nonce` the outbox's maximum
    plus one, or `first_nonce`. `stopped` says why the wallet must not be used, and is empty where it may. `wanted_at`
    is when a process last asked for it that has no wallet, 0 if none did.
    """

    held: bool
    epoch: int
    first_nonce: int | None
    next_nonce: int | None
    stopped: str = ""
    wanted_at: int = 0


class AcquireLease(Effect[Lease], frozen=True):
    """Take or renew the lease on a wallet, where it is free, over, or held by `owner` already.

    Where it is not, and `wanting` says that `owner` has no other, its holder is asked for it: it gives it up if it has
    another.
    """

    network: str
    wallet: str
    owner: str
    now_seconds: int
    until_seconds: int
    wanting: bool = False


class ReleaseLease(Effect[None], frozen=True):
    """Give the lease back, so that another process need not wait until it is over."""

    network: str
    wallet: str
    owner: str


class OpenWallet(Effect[bool], frozen=True):
    """Note the chain's count as the wallet's first nonce, once. False: the lease is lost, or it was noted before."""

    network: str
    wallet: str
    epoch: int
    first_nonce: int


class StopWallet(Effect[None], frozen=True):
    """Note why a wallet must not be used any more."""

    network: str
    wallet: str
    reason: str


class Version(msgspec.Struct, frozen=True):
    """One signed version of a transaction: all versions have one nonce and the same members. Fees in wei.

    One that `cancels` settles no member: it is a transfer to self that takes the nonce's place.
    """

    number: int
    raw: str
    hash: str
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    signed_at: int
    cancels: bool = False


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction of the outbox; with network and wallet, `nonce` is its name."""

    nonce: int
    state: str
    gas_limit: int
    members: tuple[str, ...]
    versions: tuple[Version, ...] = ()
    block_number: int | None = None
    block_hash: str = ""

    @property
    def cancelling(self) -> bool:
        """Whether its newest version is a cancellation."""
        return bool(self.versions) and self.versions[-1].cancels


class Refused(msgspec.Struct, frozen=True):
    """A payment will not be settled; `transaction` names the evidence where it is one."""

    payment_id: str
    reason: str
    message: str
    transaction: str = ""


class LoadWaiting(Effect["tuple[PaymentRecord, ...]"], frozen=True):
    """Load the payments that wait for a transaction (RECEIVED and READY), oldest first."""

    network: str
    count_max: int


class PlanTransactions(Effect["tuple[OutboxEntry, ...] | None"], frozen=True):
    """Build transactions for payments that wait: one for each of `groups`, nonces in a row. None: no lease.

    `expired` are refused in the same commit: payments whose window or limit ran out while they waited. A payment that
    does not wait any more is passed over, and a group of which nothing is left uses no nonce.
    """

    network: str
    wallet: str
    epoch: int
    now_seconds: int
    groups: tuple[tuple[str, ...], ...]
    expired: tuple[Refused, ...] = ()


class SignedVersion(msgspec.Struct, frozen=True):
    """A version of the transaction with this nonce, to be stored before it is broadcast."""

    nonce: int
    version: Version


class StoreSigned(Effect["frozenset[int]"], frozen=True):
    """Store signed versions, under the lease; the answer are the nonces whose version was stored.

    Version 1 moves BUILT to SIGNED, a later one SENT to SIGNED, one that cancels SENT to CANCELLING.
    """

    network: str
    wallet: str
    epoch: int
    versions: tuple[SignedVersion, ...]


class MarkSent(Effect[None], frozen=True):
    """Note that these nonces' newest versions were broadcast. Needs no lease: stored bytes may be sent by anybody."""

    network: str
    wallet: str
    nonces: tuple[int, ...]


class LoadOutbox(Effect["tuple[OutboxEntry, ...]"], frozen=True):
    """Load the transactions that are not DONE, oldest first."""

    network: str
    wallet: str
    count_max: int


class LoadDone(Effect["tuple[OutboxEntry, ...]"], frozen=True):
    """Load the transactions that are DONE in blocks above a height, newest first, without their versions' bytes."""

    network: str
    wallet: str
    above_block: int
    count_max: int


class LoadLingering(Effect["tuple[PaymentRecord, ...]"], frozen=True):
    """Load payments that are IN_BATCH and whose transaction is DONE, oldest first.

    They are the wallet's own, and those of wallets that nobody works with any more: stopped, or their lease is over.
    """

    network: str
    wallet: str
    now_seconds: int
    count_max: int


class LoadConfirmed(Effect["tuple[PaymentRecord, ...]"], frozen=True):
    """Load payments that are CONFIRMED and not yet FINAL, of the same wallets as `LoadLingering`.

    Those of the newest blocks first, where blocks may have been lost; or, with `upto_block`, those of the oldest first
    that stand at that height or below, after the (block number, payment id) of `after`.
    """

    network: str
    wallet: str
    now_seconds: int
    count_max: int
    upto_block: int | None = None
    after: tuple[int, str] = (-1, "")


class FailedPayer(msgspec.Struct, frozen=True):
    """A payer whose settling calls failed lately; `alone` of them shared their transaction with no other."""

    network: str
    payer: str
    alone: int


class LoadFailedPayers(Effect["tuple[FailedPayer, ...]"], frozen=True):
    """Load the payers with a settling call that failed since then, those that failed last first."""

    since_seconds: int
    count_max: int


class Mined(msgspec.Struct, frozen=True):
    """A version of the transaction with this nonce is in a block. Gas in units, its price in wei."""

    nonce: int
    transaction: str
    block_number: int
    block_hash: str
    gas_used: int
    gas_price: int


class Confirmed(msgspec.Struct, frozen=True):
    """A payment is spent as signed, at the network's depth, by this transaction."""

    payment_id: str
    transaction: str
    block_number: int
    block_hash: str
    log_index: int


class RecordChain(Effect["ChainRecorded"], frozen=True, kw_only=True):
    """Record what one look at the chain showed, in one commit; ledger entries go with the moves that they belong to.

    `live` are the claimants that wait in this process: a payment confirmed while its claimant is live counts as told.
    """

    network: str
    wallet: str
    now_seconds: int
    live: frozenset[str] = frozenset()
    mined: tuple[Mined, ...] = ()
    finished: tuple[Mined, ...] = ()
    dropped: tuple[int, ...] = ()
    confirmed: tuple[Confirmed, ...] = ()
    released: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    lost: tuple[str, ...] = ()
    final: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to record."""
        return not (
            self.mined
            or self.finished
            or self.dropped
            or self.confirmed
            or self.released
            or self.refused
            or self.lost
            or self.final
        )


class ChainRecorded(msgspec.Struct, frozen=True):
    """The payments that moved, by the move: what another process had recorded before is not among them."""

    confirmed: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    released: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


class CountPayments(Effect["dict[str, int]"], frozen=True):
    """Count payments by state: what `/metrics` and `/healthz` show."""
