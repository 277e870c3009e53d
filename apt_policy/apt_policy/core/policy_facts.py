"""The facts about a robot that trained weights depend on, as a checkpoint remembers them.

A robot contract has all of them and many more; where only a checkpoint is at hand, these suffice to plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ArmFacts:
    """One arm."""

    reference_cameras: tuple[str, ...]
    """Candidates for the frame that actions are expressed in, best first."""


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """One robot; every field means what it means in :class:`~apt_policy.core.contract.RobotContract`."""

    name: str
    """Where the facts come from."""
    cameras: tuple[str, ...]
    arms: Mapping[str, ArmFacts]
    image_size: int
    """[px]."""
    horizon: int
    history: int
    step_s: float
    """[s]."""

    @property
    def step_ns(self) -> int:
        """:attr:`step_s` in nanoseconds."""
        return round(self.step_s * 1e9)


def policy_facts_from_dict(facts: Mapping[str, Any], *, source: str) -> PolicyFacts:
    """Read what :meth:`~apt_policy.core.contract.RobotContract.policy_facts` wrote; ``source`` is named in errors.

    Raises:
        KeyError: a fact is missing.
    """
    return PolicyFacts(
        name=source, cameras=tuple(facts['cameras']), image_size=facts['image_size'], horizon=facts['horizon'],
        history=facts['history'], step_s=facts['step_s'],
        arms={arm: ArmFacts(reference_cameras=tuple(facts[f'arms.{arm}.reference_cameras']))
              for arm in facts['arms']})
