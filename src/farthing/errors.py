"""The errors of Farthing, one tree, below every floor of the house.

```
FarthingError
├── ConfigError                 a mistake in the program or its configuration, found at start-up
│   └── PriceError              a price that the asset can't express exactly
├── ProtocolError               a message that does not say what the protocol demands; has the JSON path
│   ├── LocalProtocolError      we were about to send it: a bug or a bad argument on this side
│   └── RemoteProtocolError     the other side sent it
├── PaymentError                a purchase that did not end with the resource (the buyer's side)
│   ├── PolicyRefused           the buyer's own policy said no; nothing was signed
│   ├── NoAcceptableOffer       no offer that this buyer has a mechanism, a network or an asset for
│   ├── BodyNotReplayable       the request's body can be sent only once; nothing was signed
│   ├── PaymentRefused          the seller refused the payment; it may still be open until its window ends
│   └── PaymentUnknown          nobody has said yet whether the payment settled; never pay again, ask
├── SignerError                 a key that can't be read or a signer that did not sign
├── NodeError                   trouble with a chain node: never a verdict on a payment
│   ├── NodeUnavailable         no endpoint answered in time, or what came was not an answer
│   └── NodeRefused             the node answered with an error of its own (code, message, data)
├── FacilitatorUnavailable      a facilitator did not answer a verification: never a verdict either
│   └── RateLimited             too much was asked of it in a while: the same again, later
└── StoreError                  the store can't be read or written (full, locked, of another schema)
    └── MaybeWritten            the answer to a commit was lost: whether it was written is unknown
```
"""

from __future__ import annotations

from typing import Any


class FarthingError(Exception):
    """The root: `except FarthingError` catches whatever Farthing raises on purpose."""


class ConfigError(FarthingError):
    """A mistake in the program or its configuration. The message says what, where, and what to do."""


class PriceError(ConfigError):
    """A price that can't be expressed exactly in the asset's atomic units. It is refused, never rounded."""


class ProtocolError(FarthingError):
    """A message that does not say what the protocol demands.

    `path` is the JSON path of the field at fault (`$.accepted.amount`; `$` is the whole message).
    """

    def __init__(self, message: str, *, path: str = "$") -> None:
        """Say what is wrong with the field at `path`."""
        super().__init__(message if path == "$" else f"{message} (at {path})")
        self.message = message
        self.path = path


class LocalProtocolError(ProtocolError):
    """We were about to send a message that breaks the protocol."""


class RemoteProtocolError(ProtocolError):
    """The other side sent a message that breaks the protocol."""


class PaymentError(FarthingError):
    """A purchase that did not end with the resource. A 402 is never handed to the caller as success.

    `reason` is a stable code for programs; `offer` the offer that it is about, where there is one;
    `payment_id` names the payment in the journal, where one was signed; `advice` says what to do next; `approval_id`
    is what somebody can agree to, where that is what it lacks.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        advice: str = "",
        offer: object | None = None,
        payment_id: str = "",
        transaction: str = "",
        approval_id: str = "",
    ) -> None:
        """Say what happened, its code, and what to do next."""
        super().__init__(f"{message} {advice}".rstrip())
        self.reason = reason
        self.advice = advice
        self.offer = offer
        self.payment_id = payment_id
        self.transaction = transaction
        self.approval_id = approval_id


class PolicyRefused(PaymentError):
    """The buyer's own policy said no before anything was signed."""


class NoAcceptableOffer(PaymentError):
    """The seller offers nothing that this buyer can pay."""


class BodyNotReplayable(PaymentError):
    """The request's body can be sent only once, so it can't be sent again with a payment; nothing was signed."""


class PaymentRefused(PaymentError):
    """The seller refused the payment. That is no evidence: it keeps its place in the budget until there is some."""


class PaymentUnknown(PaymentError):
    """Nobody has said yet whether the payment settled. Never pay again: present the same payload, or ask."""


class SignerError(FarthingError):
    """A key that can't be read, or a signer that did not sign. Never holds key material."""


class NodeError(FarthingError):
    """Trouble with a chain node. It is never a verdict on a payment."""


class NodeUnavailable(NodeError):
    """No endpoint answered in time, or what came was not an answer."""


class NodeRefused(NodeError):
    """The node answered a call with a JSON-RPC error of its own."""

    def __init__(self, message: str, *, code: int, data: Any = None) -> None:
        """Keep the node's own words: JSON-RPC 2.0, section 5.1."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.data = data


class FacilitatorUnavailable(FarthingError):
    """A facilitator did not answer a verification. It is never a verdict on the payment."""


class RateLimited(FacilitatorUnavailable):
    """A caller or a payer asked for more than it gets in a while. The same may be sent again after some seconds."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        """Say whose limit it is, and in how many seconds there is room again."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreError(FarthingError):
    """The store can't be read or written: full, locked for too long, or of another schema."""


class MaybeWritten(StoreError):
    """The answer to a commit was lost: it may be on record. Any other `StoreError` of a write says that it is not."""
