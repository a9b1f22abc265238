"""libsecp256k1, called through coincurve's binding without its classes: recovery and recoverable signatures.

coincurve's own classes cost one to two microseconds a call beside the library's thirty; on the hot path of every
payment that is worth a few lines. Nothing is checked here that `farthing.evm.signatures` has checked.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# The binding is coincurve's private module (its names are those of secp256k1.h, stable for years); a test runs the same
# cases over coincurve's public classes, so that a version that moves it shows itself.
_binding: Any = import_module("coincurve._libsecp256k1")
_ffi: Any = _binding.ffi
_lib: Any = _binding.lib
_context: Any = import_module("coincurve.context").GLOBAL_CONTEXT.ctx

_parse: Any = _lib.secp256k1_ecdsa_recoverable_signature_parse_compact
_recover: Any = _lib.secp256k1_ecdsa_recover
_serialize_key: Any = _lib.secp256k1_ec_pubkey_serialize
_sign: Any = _lib.secp256k1_ecdsa_sign_recoverable
_serialize: Any = _lib.secp256k1_ecdsa_recoverable_signature_serialize_compact
_new: Any = _ffi.new
_buffer: Any = _ffi.buffer
_NULL: Any = _ffi.NULL
_UNCOMPRESSED: Any = _lib.SECP256K1_EC_UNCOMPRESSED

# Parsed once: cffi would look the text up at each call.
_SIGNATURE: Any = _ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_PUBLIC_KEY: Any = _ffi.typeof("secp256k1_pubkey *")
_KEY_BYTES: Any = _ffi.typeof("unsigned char[65]")
_COMPACT_BYTES: Any = _ffi.typeof("unsigned char[64]")
_SIZE: Any = _ffi.typeof("size_t *")
_INT: Any = _ffi.typeof("int *")

_KEY_SIZE_BYTES = 65


def recover(digest: bytes, compact: bytes, recovery_id: int) -> bytes | None:
    """Recover the public key, x and y, 64 bytes, from `r ‖ s`; None where there is none. Safe in threads."""
    signature, public_key = _new(_SIGNATURE), _new(_PUBLIC_KEY)
    if not _parse(_context, signature, compact, recovery_id) or not _recover(_context, public_key, signature, digest):
        return None
    return _point(public_key)


def sign(secret: bytes, digest: bytes) -> bytes:
    """Sign by RFC 6979: `r ‖ s` with low s and the recovery id, 65 bytes. Safe in threads."""
    signature, compact, recovery_id = _new(_SIGNATURE), _new(_COMPACT_BYTES), _new(_INT)
    if not _sign(_context, signature, digest, secret, _NULL, _NULL):
        # The library says so for a secret out of range alone, which was checked when the key was made.
        message = "libsecp256k1 did not sign."
        raise RuntimeError(message)
    _serialize(_context, compact, recovery_id, signature)
    made: bytes = _buffer(compact)[:]
    return made + bytes((recovery_id[0],))


def _point(public_key: Any) -> bytes:
    serialized, size = _new(_KEY_BYTES), _new(_SIZE, _KEY_SIZE_BYTES)
    _serialize_key(_context, serialized, size, public_key, _UNCOMPRESSED)
    point: bytes = _buffer(serialized)[1:]
    return point
