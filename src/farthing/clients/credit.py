"""What a buyer needs to pay on credit. Needs the extra `credit`, and is imported by who has an agent alone."""

from __future__ import annotations

from typing import Any

from farthing.flow import Effect
from farthing.mechanisms.batch_credit import BatchCreditBuyer, CloudflareBuyer
from farthing.mechanisms.interface import BuyerMechanism
from farthing.world.agent_keys import AgentSigner, agent_handlers
from farthing.world.directories import Directories


def credit_faces(agent: AgentSigner) -> list[BuyerMechanism]:
    """Give the faces that pay on credit as this agent."""
    return [BatchCreditBuyer(agent.agent), CloudflareBuyer(agent.agent)]


def credit_handlers(agent: AgentSigner, directories: Directories | None) -> dict[type[Effect[Any]], Any]:
    """Give the handlers of the effects that they yield."""
    return {**agent_handlers(agent), **(directories or Directories()).handlers()}
