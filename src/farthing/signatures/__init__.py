"""HTTP message signatures (RFC 9421) and Web Bot Auth: all without I/O.

| file | what |
|---|---|
| `fields` | structured fields (RFC 9651), strictly |
| `messages` | requests and answers as signatures see them; covered components |
| `keys` | Ed25519 keys, JWK thumbprints, signing as an effect |
| `signing` | signature base; writing, reading and verifying the two fields |
| `digest` | Content-Digest (RFC 9530) |
| `agent` | Signature-Agent in its two forms |
| `directory` | key directories and their signed answers |
| `profile` | the fixed signature of commitments and receipts, fast |
"""

from __future__ import annotations

from farthing.signatures.agent import AgentReference, agent_for, agent_origin, read_agents, write_agent
from farthing.signatures.digest import content_digest, digest_fault
from farthing.signatures.directory import (
    DIRECTORY_PATH,
    DIRECTORY_TYPE,
    DirectoryKey,
    bound_keys,
    read_directory,
    sign_directory,
    write_directory,
)
from farthing.signatures.fields import SignatureInvalid
from farthing.signatures.keys import Jwk, MessageSigner, PublicKey, SignData, SigningKey, key_of, thumbprint
from farthing.signatures.messages import (
    Component,
    HttpRequest,
    HttpResponse,
    component,
    component_value,
    field_value,
    gather_fields,
    normal_authority,
)
from farthing.signatures.profile import ProfileSignature, read_profile, window_fault
from farthing.signatures.signing import (
    ReceivedSignature,
    SignatureParams,
    read_signatures,
    sign,
    signature_base,
    signature_lines,
    signature_params,
    verify,
)

__all__ = [
    "DIRECTORY_PATH",
    "DIRECTORY_TYPE",
    "AgentReference",
    "Component",
    "DirectoryKey",
    "HttpRequest",
    "HttpResponse",
    "Jwk",
    "MessageSigner",
    "ProfileSignature",
    "PublicKey",
    "ReceivedSignature",
    "SignData",
    "SignatureInvalid",
    "SignatureParams",
    "SigningKey",
    "agent_for",
    "agent_origin",
    "bound_keys",
    "component",
    "component_value",
    "content_digest",
    "digest_fault",
    "field_value",
    "gather_fields",
    "key_of",
    "normal_authority",
    "read_agents",
    "read_directory",
    "read_profile",
    "read_signatures",
    "sign",
    "sign_directory",
    "signature_base",
    "signature_lines",
    "signature_params",
    "thumbprint",
    "verify",
    "window_fault",
    "write_agent",
    "write_directory",
]
