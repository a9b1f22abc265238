"""Who pays on credit: the options that name an agent and its key, and how the key is found (SAFETY B7).

The key never stands on the command line, which every user of the machine can read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.world.agent_keys import AgentSigner

AGENT_VARIABLE: Final = "FARTHING_AGENT"
AGENT_KEY_VARIABLE: Final = "FARTHING_AGENT_KEY"

AgentOrigin = Annotated[
    str,
    typer.Option(
        "--agent",
        metavar="ORIGIN",
        envvar=AGENT_VARIABLE,
        help="Pay on credit as this agent: the origin of its key directory, like https://crawler.example.",
    ),
]
AgentKeyVariable = Annotated[
    str,
    typer.Option(
        "--agent-key-env",
        metavar="NAME",
        help="The environment variable with the agent's Ed25519 key.",
        show_default=AGENT_KEY_VARIABLE,
    ),
]
AgentKeyFile = Annotated[
    str, typer.Option("--agent-key-file", metavar="FILE", help="A file that only you can read, with the agent's key.")
]
DirectoryOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--directory",
        metavar="ORIGIN",
        help="A seller's key directory that may be private or plain http: a test's (repeatable).",
    ),
]


class AgentSource(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say about the agent; no `origin`, no agent."""

    origin: str = ""
    key_variable: str = ""
    key_file: str = ""
    directories: tuple[str, ...] = ()


def open_agent(source: AgentSource) -> AgentSigner | None:
    """Find the agent and its key; None where no agent is named. Raises `ConfigError` and `SignerError`."""
    if not source.origin:
        if source.key_variable or source.key_file:
            raise ConfigError("An agent's key needs its agent: --agent https://… names the origin of its directory.")
        return None
    if source.key_variable and source.key_file:
        raise ConfigError("Only one of --agent-key-env and --agent-key-file can say where the agent's key is.")
    from farthing.world.agent_keys import agent_from_env, agent_from_file  # noqa: PLC0415 - only who pays on credit

    if source.key_file:
        return agent_from_file(source.key_file, origin=source.origin)
    return agent_from_env(source.key_variable or AGENT_KEY_VARIABLE, origin=source.origin)
