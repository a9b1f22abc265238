"""Signature-Agent: who signs a request, as an address of its key directory (draft-ietf-webbotauth).

Two forms are in use, and both are read: the older string (`"https://crawler.example"`; Cloudflare's and OpenAI's) and
the newer dictionary (`sig="https://crawler.example"`), whose member belongs to the signature of that label. A bare
`crawler.example` is a token, and is taken for an https origin.
"""

from __future__ import annotations

from typing import Final, Literal, cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from farthing.signatures.fields import Member, SignatureInvalid, Token, parse_dictionary, parse_item
from farthing.signatures.messages import normal_authority

SIGNATURE_AGENT: Final = "signature-agent"
AGENT_URL_MAX_CHARS: Final = 512
# One member for each signature on the request, at most.
AGENTS_MAX: Final = 8

AgentKind = Literal["directory", "jwks_uri", "cimd"]
_KINDS: Final = frozenset({"directory", "jwks_uri", "cimd"})


class AgentReference(msgspec.Struct, frozen=True):
    """One agent that a request names. `url` is an origin for a `directory`; `label` None in the string's form."""

    url: str
    kind: AgentKind = "directory"
    label: str | None = None


def read_agents(value: str) -> tuple[AgentReference, ...]:
    """Read the field. A member of an unknown type is ignored, as the draft says.

    Raises `SignatureInvalid` for a field in neither form, and for a URL that is no agent's.
    """
    try:
        item = parse_item(value, what="Signature-Agent")
    except SignatureInvalid:
        members = parse_dictionary(value, what="Signature-Agent")
    else:
        if isinstance(item[0], str):
            return (AgentReference(agent_origin(item[0])),)
        if isinstance(item[0], Token) and "=" not in str(item[0]):
            text = str(item[0])
            return (AgentReference(agent_origin(text if "://" in text else f"https://{text}")),)
        message = "Signature-Agent is neither a string nor a dictionary"
        raise SignatureInvalid(message)
    if len(members) > AGENTS_MAX:
        message = f"Signature-Agent has {len(members)} members; the limit is {AGENTS_MAX}"
        raise SignatureInvalid(message)
    found = (_reference(label, member) for label, member in members.items())
    return tuple(each for each in found if each is not None)


def agent_for(value: str, *, label: str, key: str | None) -> AgentReference:
    """The agent of the signature `label` that covers `"signature-agent"`, with `;key=` where `key` is given.

    Raises `SignatureInvalid` where the field names none for it.
    """
    agents = read_agents(value)
    if key is None:
        if len(agents) == 1 and agents[0].label in {None, label}:
            return agents[0]
        message = "Signature-Agent is covered as a whole and does not name this signature's agent alone"
        raise SignatureInvalid(message)
    for each in agents:
        if each.label == key:
            return each
    message = f"Signature-Agent has no member {key!r} that can be used"
    raise SignatureInvalid(message)


def agent_origin(url: str) -> str:
    """Write an agent's origin in one way: scheme and host in lower case, without its own port, path or anything else.

    Plain http is for a loopback that a configuration allows by name; who fetches judges that.

    Raises `SignatureInvalid` for what is no origin.
    """
    parts = _split(url)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        message = f"an agent's directory is an origin, like https://crawler.example; this URL has more ({url[:80]!r})"
        raise SignatureInvalid(message)
    return f"{parts.scheme}://{normal_authority(parts.netloc, parts.scheme)}"


def write_agent(origin: str, *, label: str | None) -> str:
    """Write the field: the dictionary's form where there is a label, else the string's."""
    return f'"{origin}"' if label is None else f'{label}="{origin}"'


def _reference(label: str, member: Member) -> AgentReference | None:
    value, params = member
    kind = str(params.get("type", "directory"))
    if kind not in _KINDS:
        return None
    if not isinstance(value, str):
        message = f"Signature-Agent: the member {label!r} is no string"
        raise SignatureInvalid(message)
    url = agent_origin(value) if kind == "directory" else _split(value).geturl()
    return AgentReference(url, cast("AgentKind", kind), label)


def _split(url: str) -> SplitResult:
    what = f"a Signature-Agent that is a URL of https with a host ({url[:80]!r} is none)"
    if len(url) > AGENT_URL_MAX_CHARS:
        message = f"a Signature-Agent has at most {AGENT_URL_MAX_CHARS} characters"
        raise SignatureInvalid(message)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for a port that is none
    except ValueError:
        raise SignatureInvalid(f"expected {what}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or '"' in url or "\\" in url:
        raise SignatureInvalid(f"expected {what}")
    return parts
