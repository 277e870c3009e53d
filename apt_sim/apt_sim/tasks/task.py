"""What can be asked of the robot on its table, and what is known while it is being done.

Plain values: no scene, no motion, no words. Left and right are the operator's, who looks along +y of the
world: left is -x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import ArmState


class Skill(Enum):
    """A kind of task."""

    PICK = 'pick'
    """Grasp an object and lift it."""
    PLACE = 'place'
    """Put an object into a tray."""
    HAND_OVER = 'hand_over'
    """Take an object with one arm and give it to the other, by way of the middle of the table."""
    PUSH = 'push'
    """Move an object to a side without grasping it."""


class Side(Enum):
    """A direction on the table, as the operator sees it."""

    LEFT = 'left'
    RIGHT = 'right'

    @property
    def step(self) -> NDArray[np.float64]:
        """(3,) unit vector in the world."""
        return np.array([-1.0 if self is Side.LEFT else 1.0, 0.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to do."""

    skill: Skill
    object: str
    """Name of the object that is meant, such as ``red cube``."""
    arm: str
    """Which arm does it; the first one where two take part."""
    arm_named: bool = False
    """Whether the instruction says which arm; else it is the one that is nearer to the object."""
    tray: str = ''
    """Colour of the tray; PLACE only."""
    receiver: str = ''
    """The arm that has the object in the end; HAND_OVER only."""
    side: Side | None = None
    """Where to; PUSH only."""

    def __post_init__(self) -> None:
        needed = {Skill.PLACE: ('tray', self.tray), Skill.HAND_OVER: ('receiver', self.receiver),
                  Skill.PUSH: ('side', self.side)}
        for skill, (name, value) in needed.items():
            if bool(value) != (skill is self.skill):
                raise ValueError(f'{self.skill.value} with {name}={value!r}: {name} goes with '
                                 f'{skill.value}, and only with it')


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """Where everything truly is at one instant; a demonstrator may know that, a policy may not."""

    stamp_ns: int
    arms: Mapping[str, ArmState]
    """By name, measured."""
    objects: Mapping[str, NDArray[np.float64]]
    """(4, 4) world_from_object by name; the origin is the object's centre, x is its longer side."""
    trays: Mapping[str, NDArray[np.float64]]
    """(4, 4) world_from_tray by colour; the origin is the middle of the underside."""
