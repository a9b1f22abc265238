"""HTTP message signatures (RFC 9421): signature base, writing and reading of the two fields."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Final

import msgspec

from farthing.signatures.fields import (
    InnerList,
    Item,
    Params,
    SignatureInvalid,
    parse_dictionary,
    serialize_inner_list,
)
from farthing.signatures.keys import ALGORITHM, MessageSigner, PublicKey
from farthing.signatures.messages import (
    Component,
    Fields,
    HttpMessage,
    component,
    component_of,
    component_value,
    field_value,
)

SIGNATURE: Final = "signature"
SIGNATURE_INPUT: Final = "signature-input"

# A request has one signature of its own, and perhaps some of proxies on its way.
SIGNATURES_MAX: Final = 8
COMPONENTS_MAX: Final = 32

_TIMES: Final = frozenset({"created", "expires"})
_TEXTS: Final = frozenset({"nonce", "alg", "keyid", "tag"})


class SignatureParams(msgspec.Struct, frozen=True, kw_only=True):
    """A signature's parameters (RFC 9421, section 2.3), in the order in which they are written. Unix seconds."""

    created: int | None = None
    expires: int | None = None
    keyid: str | None = None
    alg: str | None = None
    nonce: str | None = None
    tag: str | None = None

    def to_params(self) -> Params:
        """The parameters that are there, in their order."""
        said = msgspec.structs.asdict(self)
        return {name: value for name, value in said.items() if value is not None}


class ReceivedSignature(msgspec.Struct, frozen=True):
    """A signature as it came: what it covers, its parameters, and `text`, the value of `@signature-params`."""

    label: str
    covered: tuple[Component, ...]
    params: SignatureParams
    text: str
    signature: bytes

    def covers(self, *wanted: str) -> bool:
        """Tell whether each of `wanted` is covered, parameters and all."""
        covered = {each.identity for each in self.covered}
        return all(component(each).identity in covered for each in wanted)


def signature_params(covered: Sequence[Component], params: SignatureParams) -> str:
    """Write the value of `@signature-params`."""
    items: list[Item] = [(each.name, dict(each.params)) for each in covered]
    return serialize_inner_list(items, params.to_params())


def signature_base(message: HttpMessage, covered: Sequence[Component], text: str) -> bytes:
    """Write what is signed (RFC 9421, section 2.5). Raises `SignatureInvalid` for a component that isn't there."""
    if len({each.identity for each in covered}) != len(covered):
        error = "the signature covers a component twice"
        raise SignatureInvalid(error)
    lines = [f"{each.identifier}: {component_value(message, each)}\n" for each in covered]
    return f'{"".join(lines)}"@signature-params": {text}'.encode("ascii")


def sign(
    message: HttpMessage, covered: Sequence[str], params: SignatureParams, signer: MessageSigner, *, label: str = "sig"
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Sign a message: the two header lines, Signature-Input and Signature."""
    components = [component(each) for each in covered]
    text = signature_params(components, params)
    signature = signer.sign(signature_base(message, components, text))
    return signature_lines(label, text, signature)


def signature_lines(label: str, text: str, signature: bytes) -> tuple[tuple[str, str], tuple[str, str]]:
    """Write the two header lines of one signature; `label` is a key of a dictionary."""
    # As `serialize` would write it (a test compares), at a tenth of the time.
    encoded = binascii.b2a_base64(signature, newline=False).decode("ascii")
    return ("Signature-Input", f"{label}={text}"), ("Signature", f"{label}=:{encoded}:")


def read_signatures(fields: Fields) -> tuple[ReceivedSignature, ...]:
    """Read a message's signatures. Raises `SignatureInvalid` where there is none, or any of them can't be read."""
    input_text, signature_text = field_value(fields, SIGNATURE_INPUT), field_value(fields, SIGNATURE)
    if input_text is None or signature_text is None:
        message = "the message has no Signature-Input and Signature"
        raise SignatureInvalid(message)
    inputs = parse_dictionary(input_text, what="Signature-Input")
    signatures = parse_dictionary(signature_text, what="Signature")
    if inputs.keys() != signatures.keys():
        message = "Signature-Input and Signature name different labels"
        raise SignatureInvalid(message)
    if len(inputs) > SIGNATURES_MAX:
        message = f"the message has {len(inputs)} signatures; the limit is {SIGNATURES_MAX}"
        raise SignatureInvalid(message)
    found: list[ReceivedSignature] = []
    for label, member in inputs.items():
        signature = signatures[label][0]
        if not isinstance(member[0], list):
            message = f"Signature-Input: {label!r} is no inner list"
            raise SignatureInvalid(message)
        if not isinstance(signature, bytes):
            message = f"Signature: {label!r} is no byte sequence"
            raise SignatureInvalid(message)
        found.append(_received(label, (member[0], member[1]), signature))
    return tuple(found)


def verify(message: HttpMessage, received: ReceivedSignature, key: PublicKey) -> bool:
    """Tell whether `key` signed what this signature covers. Times, coverage and replays are the caller's to judge.

    Raises `SignatureInvalid` where a covered component isn't there.
    """
    if received.params.alg not in {None, ALGORITHM}:
        return False
    return key.verifies(received.signature, signature_base(message, received.covered, received.text))


def _received(label: str, inner: InnerList, signature: bytes) -> ReceivedSignature:
    items, params = inner
    if len(items) > COMPONENTS_MAX:
        message = f"Signature-Input: {label!r} covers {len(items)} components; the limit is {COMPONENTS_MAX}"
        raise SignatureInvalid(message)
    for name, value in params.items():
        fits = (type(value) is int) if name in _TIMES else isinstance(value, str)
        if name in _TIMES | _TEXTS and not fits:
            message = f"Signature-Input: the parameter {name!r} of {label!r} is of another type"
            raise SignatureInvalid(message)
    known = {name: value for name, value in params.items() if name in _TIMES | _TEXTS}
    return ReceivedSignature(
        label,
        tuple(component_of(each) for each in items),
        msgspec.convert(known, SignatureParams),
        serialize_inner_list(items, params),
        signature,
    )
