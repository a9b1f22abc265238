"""Why a call was refused: the revert data of contracts, read."""

from __future__ import annotations

from typing import Final

import msgspec

from farthing.evm.abi import AbiInvalid, read_string, read_uint, selector

_ERROR = selector("Error(string)")
_PANIC = selector("Panic(uint256)")

# A reason is shown to people and written to logs; a contract may return megabytes.
REASON_SIZE_MAX: Final = 256

# Custom errors that tokens with EIP-3009 have in place of texts (OpenZeppelin 5's ERC20 and the Bridged USDC family).
_CUSTOM = {
    selector(signature): signature.partition("(")[0]
    for signature in (
        "AuthorizationExpired()",
        "AuthorizationNotYetValid()",
        "AuthorizationAlreadyUsed()",
        "AuthorizationUsedOrCanceled()",
        "AuthorizationExpired(uint256,uint256)",
        "AuthorizationNotYetValid(uint256,uint256)",
        "AuthorizationAlreadyUsed(address,bytes32)",
        "AuthorizationUsedOrCanceled(address,bytes32)",
        "ERC20InsufficientBalance(address,uint256,uint256)",
        "ERC20InvalidReceiver(address)",
        "ERC20InvalidSender(address)",
        "ECDSAInvalidSignature()",
        "ECDSAInvalidSignatureLength(uint256)",
        "ECDSAInvalidSignatureS(bytes32)",
        "InvalidSignature()",
        "InvalidSignatureS()",
        "InvalidSignatureV()",
        "SignerMismatch()",
        "EnforcedPause()",
    )
}

_PANICS = {0x01: "assertion failed", 0x11: "arithmetic overflow", 0x12: "division by zero", 0x32: "index out of range"}


class Revert(msgspec.Struct, frozen=True):
    """A refusal.

    `kind` is `error` (a text), `panic` (a code), `custom` (an error of the contract's own) or `none` (no data);
    `reason` the text, what the code means, the error's name, or the selector in hex where the name isn't known.
    """

    kind: str
    reason: str


def read_revert(data: bytes) -> Revert:
    """Read revert data. Never raises: what can't be read is named by its selector."""
    if not data:
        return Revert("none", "")
    head, body = data[:4], data[4:]
    try:
        if head == _ERROR:
            return Revert("error", _plain(read_string(body)))
        if head == _PANIC:
            code = read_uint(body)
            return Revert("panic", _PANICS.get(code, hex(code)))
    except AbiInvalid:
        pass
    return Revert("custom", _CUSTOM.get(head, "0x" + head.hex()))


def _plain(text: str) -> str:
    # The text comes from a stranger's contract: no control characters, no end of line, not long.
    return "".join(letter if letter.isprintable() else "?" for letter in text[:REASON_SIZE_MAX])
