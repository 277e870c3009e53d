"""Success criteria: compare the ground truth after a task with the one before.

Only poses count, so the same criteria apply to a policy and to the scripted expert.
"""

import numpy as np

from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.task import GroundTruth, Skill, Task
from apt_sim.world.objects import OBJECT_SIDE, TRAY_SIZE

LIFTED = 0.08
"""Height of an object's centre above which it counts as lifted [m]."""
PUSHED = 0.05
"""Minimum displacement of a pushed object towards its side [m]."""
# Largest distance between a hand's tool centre and the object that it holds [m].
_HELD_WITHIN = 0.05
# Largest displacement of a pushed object across the push, and its largest change of height [m].
_ASIDE = 0.05
_TIPPED = 0.03


def is_task_done(task: Task, before: GroundTruth, after: GroundTruth) -> bool:
    """Return whether a task that began in ``before`` is done in ``after``."""
    if task.skill is Skill.PICK:
        return _holds(task.arm, task.object, after)
    if task.skill is Skill.PLACE:
        return _in_tray(task, after)
    if task.skill is Skill.HAND_OVER:
        return _holds(task.receiver, task.object, after)
    return _pushed(task, before, after)


def _holds(arm: str, name: str, after: GroundTruth) -> bool:
    """Return whether the object is lifted and between the fingers of this arm."""
    tool = after.arms[arm].world_from_ee @ np.array([*EE_FROM_TOOL_CENTRE, 1.0])
    centre = after.objects[name][:3, 3]
    return bool(centre[2] >= LIFTED and np.linalg.norm(tool[:3] - centre) <= _HELD_WITHIN)


def _in_tray(task: Task, after: GroundTruth) -> bool:
    """Return whether the object is inside the tray's walls and low enough to lie on its ground."""
    centre, tray = after.objects[task.object][:3, 3], after.trays[task.tray][:3, 3]
    inside = np.abs(centre[:2] - tray[:2]) <= np.array(TRAY_SIZE[:2]) / 2
    return bool(inside.all() and centre[2] - tray[2] <= OBJECT_SIDE)


def _pushed(task: Task, before: GroundTruth, after: GroundTruth) -> bool:
    assert task.side is not None, 'a push has a side'
    moved = after.objects[task.object][:3, 3] - before.objects[task.object][:3, 3]
    along = float(moved @ task.side.step)
    return bool(along >= PUSHED and abs(moved[1]) <= _ASIDE and abs(moved[2]) <= _TIPPED)
