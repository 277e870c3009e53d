"""Facts about a robot that trained weights depend on, as stored in a checkpoint.

A robot contract contains all of them. They suffice to plan with a checkpoint but without a contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ArmFacts:
    """Facts about one arm."""

    reference_cameras: tuple[str, ...]
    """Cameras whose frame actions may be expressed in, best first."""


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """Facts about one robot; fields as in :class:`~apt_policy.core.contract.RobotContract`."""

    name: str
    """Source of the facts, such as the path of a checkpoint."""
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
    """Parse the output of :meth:`~apt_policy.core.contract.RobotContract.policy_facts`.

    Args:
        facts: flat dictionary from a checkpoint.
        source: name of the facts' origin.

    Raises:
        KeyError: a fact is missing.
    """
    return PolicyFacts(
        name=source, cameras=tuple(facts['cameras']), image_size=facts['image_size'], horizon=facts['horizon'],
        history=facts['history'], step_s=facts['step_s'],
        arms={arm: ArmFacts(reference_cameras=tuple(facts[f'arms.{arm}.reference_cameras']))
              for arm in facts['arms']})
