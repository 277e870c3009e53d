"""Whether a task was done: the state of the table after it, compared with the one before.

It looks only at where things are, so it judges a policy as it judges the demonstrator.
"""

import numpy as np

from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.task import Situation, Skill, Task
from apt_sim.world.things import OBJECT_SIDE, TRAY_SIZE

LIFTED = 0.08
"""An object whose centre is above this height is held [m]."""
PUSHED = 0.05
"""A push moves the object at least so far to its side [m]."""
_HELD_WITHIN = 0.05
_ASIDE = 0.05
_TIPPED = 0.03


def done(task: Task, before: Situation, after: Situation) -> bool:
    """Whether ``task``, begun in ``before``, is done in ``after``."""
    if task.skill is Skill.PICK:
        return _holds(task.arm, task.object, after)
    if task.skill is Skill.PLACE:
        return _in_tray(task, after)
    if task.skill is Skill.HAND_OVER:
        return _holds(task.receiver, task.object, after)
    return _pushed(task, before, after)


def _holds(arm: str, name: str, after: Situation) -> bool:
    """Lifted, and at this hand's fingers rather than another's."""
    tool = after.arms[arm].world_from_ee @ np.array([*EE_FROM_TOOL_CENTRE, 1.0])
    centre = after.objects[name][:3, 3]
    return bool(centre[2] >= LIFTED and np.linalg.norm(tool[:3] - centre) <= _HELD_WITHIN)


def _in_tray(task: Task, after: Situation) -> bool:
    """Inside the walls, let go, and low enough to lie on the ground of the tray."""
    centre, tray = after.objects[task.object][:3, 3], after.trays[task.tray][:3, 3]
    inside = np.abs(centre[:2] - tray[:2]) <= np.array(TRAY_SIZE[:2]) / 2
    return bool(inside.all() and centre[2] - tray[2] <= OBJECT_SIDE)


def _pushed(task: Task, before: Situation, after: Situation) -> bool:
    assert task.side is not None, 'a push has a side'
    moved = after.objects[task.object][:3, 3] - before.objects[task.object][:3, 3]
    along = float(moved @ task.side.step)
    return bool(along >= PUSHED and abs(moved[1]) <= _ASIDE and abs(moved[2]) <= _TIPPED)
