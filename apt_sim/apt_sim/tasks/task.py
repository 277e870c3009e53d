"""Tasks on the table, and the ground truth (privileged state) that they are sampled from and checked with.

Left and right are those of an operator who looks along +y of the world: left is -x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import ArmState


class Skill(Enum):
    """Kind of task."""

    PICK = 'pick'
    """Grasp an object and lift it."""
    PLACE = 'place'
    """Put an object into a tray."""
    HAND_OVER = 'hand_over'
    """Grasp an object with one arm, put it down in the middle of the table and grasp it with the other arm."""
    PUSH = 'push'
    """Move an object to a side without grasping it."""


class Side(Enum):
    """Direction on the table from the operator's view."""

    LEFT = 'left'
    RIGHT = 'right'

    @property
    def step(self) -> NDArray[np.float64]:
        """Unit vector (3,) in the world."""
        return np.array([-1.0 if self is Side.LEFT else 1.0, 0.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class Task:
    """Skill with its object, arm and goal."""

    skill: Skill
    object: str
    """Name of the object, such as ``red cube``."""
    arm: str
    """Arm that does the task; the first one where two take part."""
    arm_named: bool = False
    """True if the instruction names the arm; otherwise it is the one nearer to the object."""
    tray: str = ''
    """Colour of the goal tray; PLACE only."""
    receiver: str = ''
    """Arm that holds the object at the end; HAND_OVER only."""
    side: Side | None = None
    """Direction of the push; PUSH only."""

    def __post_init__(self) -> None:
        needed = {Skill.PLACE: ('tray', self.tray), Skill.HAND_OVER: ('receiver', self.receiver),
                  Skill.PUSH: ('side', self.side)}
        for skill, (name, value) in needed.items():
            if bool(value) != (skill is self.skill):
                raise ValueError(f'{name} is {value!r} for the skill {self.skill.value}; '
                                 f'{skill.value} requires it, and no other skill accepts it')


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """True poses of arms, objects and trays (privileged state); for experts and success checks, not for policies."""

    stamp_ns: int
    """Time of the poses [ns]."""
    arms: Mapping[str, ArmState]
    """Measured state of each arm, by name."""
    objects: Mapping[str, NDArray[np.float64]]
    """(4, 4) world_from_object by name; the origin is the object's centre, x points along its longer side."""
    trays: Mapping[str, NDArray[np.float64]]
    """(4, 4) world_from_tray by colour; the origin is the centre of the underside."""
