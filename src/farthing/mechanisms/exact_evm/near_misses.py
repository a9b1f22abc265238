"""What a signature was made for, when it is not for what it came with: the near misses, each tried by recovering.

A signature that does not recover to the payer says nothing by itself. But of all that could have been signed instead,
few things are likely: the token's name as people write it, another version, the testnet's chain id, a price in another
unit, two members in each other's place. Whichever of them recovers to the payer *is* what was signed: that an unlike
message recovers to it by chance has a probability of 2^-160.

Pure: no clock, no node. `tests/mechanisms/test_near_misses.py` signs with each mutation and sees it named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from farthing.evm.addresses import ZERO_ADDRESS, checksum_address, parse_address
from farthing.evm.keccak import keccak256
from farthing.evm.signatures import SIGNATURE_SIZE_BYTES, SignatureInvalid, recover_address
from farthing.evm.typed_data import Domain, ReceiveWithAuthorization, TransferWithAuthorization, TypedDataInvalid
from farthing.mechanisms.exact_evm.payload import ExactDetail
from farthing.networks import KNOWN, Networks, eip155_chain_id

_PERMIT2: Final = parse_address("0x000000000022D473030F116dDEE9F6B43aC78BA3")
_VERSIONS: Final = ("1", "2", "3", "1.0", "")
_NAMES: Final = ("USDC", "USD Coin", "USDC.e", "Bridged USDC", "USD//C", "USDT", "Tether USD", "EURC", "")
# By how much an amount is off where somebody took the decimals for others, or wrote the whole units.
_DECIMALS_OFF: Final = tuple(range(1, 19))
_MILLISECONDS: Final = 1000
_WORD: Final = 32
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_PERSONAL: Final = b"\x19Ethereum Signed Message:\n32"
_TYPED: Final = b"\x19\x01"


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed in the place of what came: `what` names the field or the mistake, for programs."""

    what: str
    signed: str
    expected: str
    says: str


class _Guess(msgspec.Struct, frozen=True):
    """One thing that may have been signed: its digest, or the signature as it should have been written."""

    what: str
    signed: str
    expected: str
    says: str
    digest: bytes
    signature: bytes


def find_near_miss(
    detail: ExactDetail,
    expected: Domain,
    *,
    pay_to: bytes | None = None,
    amount: int | None = None,
    networks: Networks = KNOWN,
) -> NearMiss | None:
    """Find what the payer signed, where it is not `detail.message` under `expected`; None where nothing likely fits.

    `pay_to` and `amount` are the offer's, where the payment says otherwise. Only an account's signature of 65 bytes can
    be looked into; that of a contract wallet is its code's business.
    """
    if len(detail.signature) != SIGNATURE_SIZE_BYTES:
        return None
    for guess in _guesses(detail, expected, pay_to, amount, networks):
        try:
            signer = recover_address(guess.digest, guess.signature)
        except SignatureInvalid:
            continue
        if signer == detail.message.from_:
            return NearMiss(what=guess.what, signed=guess.signed, expected=guess.expected, says=guess.says)
    return None


def _guesses(
    detail: ExactDetail, expected: Domain, pay_to: bytes | None, amount: int | None, networks: Networks
) -> Iterator[_Guess]:
    """Everything that is tried, the likely before the unlikely, one change before two."""
    yield from _one_domain_member(detail, expected, networks)
    yield from _other_messages(detail, expected, pay_to, amount)
    yield from _missing_domain_members(detail, expected)
    yield from _other_ways_to_sign(detail, expected)
    yield from _whole_domains(detail, expected, networks)


def _guess(detail: ExactDetail, domain: Domain, message: TransferWithAuthorization, said: tuple[str, str, str, str]
           ) -> Iterator[_Guess]:  # fmt: skip
    try:
        digest = message.digest(domain)
    except TypedDataInvalid:
        return
    yield _Guess(*said, digest, detail.signature)


# The domain.


def _one_domain_member(detail: ExactDetail, expected: Domain, networks: Networks) -> Iterator[_Guess]:
    tokens = [token for network in networks for token in networks.tokens(network.caip2)]
    names = dict.fromkeys((*_NAMES, *(token.eip712_name for token in tokens), *(token.symbol for token in tokens)))
    for name in names:
        domain = msgspec.structs.replace(expected, name=name)
        yield from _domain_guess(detail, domain, "domain.name", repr(name), repr(expected.name))
    for version in dict.fromkeys((*_VERSIONS, *(token.eip712_version for token in tokens))):
        domain = msgspec.structs.replace(expected, version=version)
        yield from _domain_guess(detail, domain, "domain.version", repr(version), repr(expected.version))
    chains = (chain for network in networks if (chain := eip155_chain_id(network.caip2)) is not None)
    for chain_id in dict.fromkeys((1, 0, 1337, 31337, *chains)):
        domain = msgspec.structs.replace(expected, chain_id=chain_id)
        yield from _domain_guess(detail, domain, "domain.chainId", str(chain_id), str(expected.chain_id))
    message = detail.message
    contracts = (message.to, message.from_, _PERMIT2, ZERO_ADDRESS, *(parse_address(token.address) for token in tokens))
    for contract in dict.fromkeys(contracts):
        domain = msgspec.structs.replace(expected, verifying_contract=contract)
        said = checksum_address(contract), checksum_address(expected.verifying_contract)
        yield from _domain_guess(detail, domain, "domain.verifyingContract", *said)


def _domain_guess(detail: ExactDetail, domain: Domain, what: str, signed: str, expected: str) -> Iterator[_Guess]:
    says = f"It was signed with {what} {signed}; the token's is {expected}."
    yield from _guess(detail, domain, detail.message, (what, signed, expected, says))


def _whole_domains(detail: ExactDetail, expected: Domain, networks: Networks) -> Iterator[_Guess]:
    """Other tokens' domains as a whole, and two or three members wrong at once."""
    for network in networks:
        chain_id = eip155_chain_id(network.caip2)
        for token in networks.tokens(network.caip2) if chain_id is not None else ():
            contract = parse_address(token.address)
            said = f"{token.symbol} on {network.name} ({network.caip2})"
            for name in dict.fromkeys((token.eip712_name, expected.name)):
                for version in dict.fromkeys((token.eip712_version, expected.version)):
                    for chain in dict.fromkeys((chain_id or 0, expected.chain_id)):
                        domain = Domain(name, version, chain, contract)
                        says = f"It was signed for another token's domain: {said}."
                        yield from _guess(detail, domain, detail.message, ("domain", said, _shown(expected), says))
    for name in _NAMES:
        for version in _VERSIONS:
            domain = msgspec.structs.replace(expected, name=name, version=version)
            signed = f"name {name!r} and version {version!r}"
            says = (
                f"It was signed with the domain's {signed}; the token has {expected.name!r} and {expected.version!r}."
            )
            yield from _guess(detail, domain, detail.message, ("domain", signed, _shown(expected), says))


def _shown(domain: Domain) -> str:
    return f"{domain.name!r}, version {domain.version!r}, chain {domain.chain_id}"


def _missing_domain_members(detail: ExactDetail, expected: Domain) -> Iterator[_Guess]:
    """EIP712Domain with a member left out: what a library makes of a domain that was not given whole."""
    members = (
        ("name", "string", keccak256(expected.name.encode("utf-8", "surrogatepass"))),
        ("version", "string", keccak256(expected.version.encode("utf-8", "surrogatepass"))),
        ("chainId", "uint256", expected.chain_id.to_bytes(_WORD, "big")),
        ("verifyingContract", "address", bytes(12) + expected.verifying_contract),
    )
    for left_out in range(1, 1 << len(members)):
        kept = [member for at, member in enumerate(members) if not left_out >> at & 1]
        missing = [member[0] for at, member in enumerate(members) if left_out >> at & 1]
        type_hash = keccak256(f"EIP712Domain({','.join(f'{kind} {name}' for name, kind, _ in kept)})".encode())
        separator = keccak256(type_hash + b"".join(value for _, _, value in kept))
        digest = keccak256(_TYPED + separator + detail.message.struct_hash())
        names = " and ".join(missing)
        says = f"It was signed with a domain that has no {names}; EIP-3009 tokens have all four members."
        yield _Guess(f"domain.{missing[0]}", "missing", _shown(expected), says, digest, detail.signature)


# The message.


def _other_messages(
    detail: ExactDetail, expected: Domain, pay_to: bytes | None, amount: int | None
) -> Iterator[_Guess]:
    message = detail.message

    def told(what: str, signed: object, came: object) -> tuple[str, str, str, str]:
        return what, str(signed), str(came), f"It was signed with {what} {signed}; the payment says {came}."

    if pay_to is not None:
        said = told("to", checksum_address(pay_to), checksum_address(message.to))
        yield from _guess(detail, expected, msgspec.structs.replace(message, to=pay_to), said)
    values = [] if amount is None else [amount]
    values += [message.value * 10**power for power in _DECIMALS_OFF]
    values += [message.value // 10**power for power in _DECIMALS_OFF if message.value % 10**power == 0]
    values += [message.value + 1, max(0, message.value - 1), 0, 2**256 - 1]
    for value in dict.fromkeys(values):
        changed = msgspec.structs.replace(message, value=value)
        yield from _guess(detail, expected, changed, told("value", value, message.value))
    swaps = (
        ("from and to", {"from_": message.to, "to": message.from_}),
        ("validAfter and validBefore", {"valid_after": message.valid_before, "valid_before": message.valid_after}),
        ("value and validBefore", {"value": message.valid_before, "valid_before": message.value}),
        ("value and validAfter", {"value": message.valid_after, "valid_after": message.value}),
    )
    for what, members in swaps:
        says = f"It was signed with {what} in each other's place."
        changed = msgspec.structs.replace(message, **members)
        yield from _guess(detail, expected, changed, (f"swapped {what}", "swapped", "as named", says))
    yield from _other_times(detail, expected)
    received = ReceiveWithAuthorization(*(getattr(message, name) for name in message.__struct_fields__))
    says = "It was signed as ReceiveWithAuthorization; x402 takes TransferWithAuthorization."
    try:
        digest = received.digest(expected)
    except TypedDataInvalid:
        return
    names = ("ReceiveWithAuthorization", "TransferWithAuthorization")
    yield _Guess("primaryType", *names, says, digest, detail.signature)


def _other_times(detail: ExactDetail, expected: Domain) -> Iterator[_Guess]:
    message = detail.message
    after, before = message.valid_after, message.valid_before
    times = (
        ("validBefore", {"valid_before": before * _MILLISECONDS}, "milliseconds"),
        ("validBefore", {"valid_before": before // _MILLISECONDS}, "seconds where milliseconds came"),
        ("validAfter", {"valid_after": after * _MILLISECONDS}, "milliseconds"),
        ("validAfter", {"valid_after": 0}, "0"),
        ("validAfter and validBefore", {"valid_after": after * _MILLISECONDS, "valid_before": before * _MILLISECONDS},
         "milliseconds"),
    )  # fmt: skip
    for what, members, signed in times:
        says = f"It was signed with {what} as {signed}; the payment has {after} and {before}, in seconds."
        changed = msgspec.structs.replace(message, **members)
        yield from _guess(detail, expected, changed, (what, signed, f"{after}, {before}", says))


# The way of signing.


def _other_ways_to_sign(detail: ExactDetail, expected: Domain) -> Iterator[_Guess]:
    try:
        struct_hash, digest = detail.message.struct_hash(), detail.message.digest(expected)
    except TypedDataInvalid:
        return
    r, s, v = detail.signature[:32], detail.signature[32:64], detail.signature[64:]
    personal = keccak256(_PERSONAL + digest)
    says = "It was signed by personal_sign over the digest; it takes eth_signTypedData_v4."
    yield _Guess("personal_sign", "personal_sign", "eth_signTypedData_v4", says, personal, detail.signature)
    says = "The struct's hash alone was signed, without the domain."
    yield _Guess("no domain", "hashStruct(message)", "the EIP-712 digest", says, struct_hash, detail.signature)
    says = "r and s are in each other's place."
    yield _Guess("signature", "s, r, v", "r, s, v", says, digest, s + r + v)
    for byte in (27, 28):
        says = f"The last byte of the signature is {v[0]}; it must be {byte}."
        yield _Guess("signature.v", str(v[0]), str(byte), says, digest, r + s + bytes((byte,)))
    low = _ORDER - int.from_bytes(s, "big")
    if 0 < low < _ORDER:
        says = "s is in the upper half of the curve's order, which tokens refuse (EIP-2)."
        for byte in (27, 28):
            signature = r + low.to_bytes(_WORD, "big") + bytes((byte,))
            yield _Guess("signature.s", "high", "low", says, digest, signature)
    says = "v came first: the signature is v, r, s, where it must be r, s, v."
    turned = detail.signature[1:] + detail.signature[:1]
    yield _Guess("signature", "v, r, s", "r, s, v", says, digest, turned)
