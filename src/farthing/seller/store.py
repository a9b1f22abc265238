"""The seller's store as effects: each is one atomic step, and its answer says whether it was the one that did it.

`farthing.world.seller_store` performs them. A move is conditional on the state and on the owner's epoch: whoever lost
the lease has lost the epoch, and can change nothing any more.
"""

from __future__ import annotations

import msgspec

from farthing.flow import Effect
from farthing.seller.states import PaymentFlow, State


class Known(msgspec.Struct, frozen=True, gc=False):
    """What the store knows of a payment. Times in Unix seconds; `transaction` is empty until one is known."""

    payment_id: str
    fingerprint: str
    request_print: str
    state: State
    epoch: int
    lease_until: int
    valid_before: int
    flow: PaymentFlow
    idempotent: bool
    stores_response: bool
    runs: int
    transaction: str
    reason: str
    network: str
    payer: str
    # The facilitator's SettlementResponse as JSON, empty until settled.
    receipt: str
    # The store's own number of this claim; 0 where it has none.
    claim: int = 0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A verified payment that wants to be the one: everything that its row holds from the start."""

    payment_id: str
    fingerprint: str
    request_print: str
    state: State
    lease_until: int
    valid_before: int
    flow: PaymentFlow
    idempotent: bool
    stores_response: bool
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    resource: str
    claimed_at: int
    # The scope of the client's payment-identifier, which is bound in the same step; empty where there is none.
    identifier: str = ""


class IdentifierTaken(msgspec.Struct, frozen=True):
    """Nothing was claimed: the payment-identifier belongs to another payment that may be settled still, or was."""


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """The claim was made; `epoch` is the owner's, and `claim` the store's own number of it, by which it is found."""

    epoch: int
    claim: int = 0


class StoredResponse(msgspec.Struct, frozen=True, gc=False):
    """A response on record: its status, all its headers in order, and its body, inline or in a spool file."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    # The file's name beside the store, where the body is too large to be kept inline.
    spool: str = ""


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    """What a settlement moved: `amount` atomic units of `asset`, from `payer` to `pay_to`.

    An entry that takes another back, since the block of its transaction was lost, has `lost:` or `loss:` (for good)
    before the transaction.
    """

    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    transaction: str
    posted_at: int


class LookUp(Effect["Known | None"], frozen=True):
    """Find what is known of a payment."""

    payment_id: str


class FindIdentifier(Effect["str | None"], frozen=True):
    """Find the payment id that a payment-identifier was bound to, by its scope."""

    scope: str


class MakeClaim(Effect["Claimed | Known | IdentifierTaken"], frozen=True):
    """Claim a payment: a new row; or `over`, the row that was found, which may be claimed again.

    The answer is `Claimed`, or what is known now, where somebody else was first. A payment-identifier is bound in the
    same step; that of a payment of which nothing can be settled any more is bound anew.
    """

    claim: Claim
    over: Known | None = None


class Advance(Effect[bool], frozen=True):
    """Move a payment from `source` to `target`, if it is still there and `epoch` is still its owner's.

    `take_over` gives the row a new epoch (the old one plus one): the caller becomes the owner. `response` and `entry`
    are kept in the same transaction, `receipt` with the entry; `run` counts one more run of the handler; `keep` leaves
    a response where it is that would be dropped. `claim` is the store's number of the claim, where the caller knows
    it.
    """

    payment_id: str
    epoch: int
    source: State
    target: State
    lease_until: int = 0
    take_over: bool = False
    run: bool = False
    transaction: str = ""
    reason: str = ""
    receipt: str = ""
    response: StoredResponse | None = None
    entry: LedgerEntry | None = None
    claim: int = 0
    keep: bool = False


class Holds(Effect[bool], frozen=True):
    """Whether nobody can have taken this process for dead since it drew `number`, that of a claim or move.

    False: it may have been, or the number is another process's; by then it is on record that this one is alive, and
    whose the payment is can be asked. Raises `StoreError` where that can't be put on record.
    """

    number: int


class FetchResponse(Effect["StoredResponse | None"], frozen=True):
    """Fetch the response on record."""

    payment_id: str


class MarkDelivered(Effect[None], frozen=True):
    """Note that all bytes went out, and drop the kept response. Not waited for: a lost note costs one more delivery.

    `spooled` False says that there is no file to be dropped with it. `keep` keeps the response: a payment with an
    identifier is given it again.
    """

    payment_id: str
    epoch: int
    source: State
    claim: int = 0
    spooled: bool = True
    keep: bool = False


class Stale(msgspec.Struct, frozen=True):
    """A payment that nobody works on and that isn't where it belongs, with what its books need. `amount` is atomic."""

    known: Known
    asset: str
    pay_to: str
    amount: int


class FindStale(Effect["tuple[Stale, ...]"], frozen=True):
    """Find payments under way whose leases are over, and refused ones with `valid_before` under `closing_before`.

    The oldest first, at most `limit`.
    """

    now_seconds: int
    closing_before: int
    limit: int


class Archive(Effect[int], frozen=True):
    """Move payments that are over, with `valid_before` under this, out of the way: at most `limit`; gives how many.

    Of those that were delivered the claims in `delivered` alone, which are final.
    """

    valid_before: int
    limit: int
    delivered: tuple[int, ...] = ()


class TakesKeys(Effect[bool], frozen=True):
    """Whether the facilitator takes idempotency keys: a second `/settle` under one key is answered as the first was.

    It says so itself, among the extensions of `/supported`. Not known, or not said: no.
    """


class IsOurs(Effect["bool | None"], frozen=True):
    """Whether the settlement that was found at the facilitator is told to this store; None where that can't be told.

    `key_digest` is what the facilitator says of the key that it was asked under (`PaymentStatus`). Where it takes no
    keys, what is found is taken as ours: there is nothing to tell two stores apart by.
    """

    payment_id: str
    key_digest: str


class SellerPayment(msgspec.Struct, frozen=True):
    """One row of the seller's books, as `list_payments` gives it. Amount in atomic units, times in Unix seconds."""

    payment_id: str
    state: State
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: int
    resource: str
    transaction: str
    reason: str
    claimed_at: int
