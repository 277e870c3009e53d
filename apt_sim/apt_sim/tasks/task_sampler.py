"""Feasible tasks of a scene, and random sampling among them.

A task is feasible if its arm reaches all of its positions and no object is in the way.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.task import GroundTruth, Side, Skill, Task
from apt_sim.world.layout import CLEARANCE
from apt_sim.world.objects import OBJECT_SIDE, object_spec

PUSH_LENGTH = 0.09
"""Displacement of a pushed object [m]."""
PUSH_START = 0.06
"""Distance from a cube's centre to the hand's before a push [m]; longer objects add half of their extra length."""
# Half the width of the area that a pushed object and the hand behind it sweep [m].
_CORRIDOR = 0.055
# Distance between the centres of two objects at which a closed hand still fits beside one of them [m].
_BESIDE = 0.055
# Height above which an object does not lie on the table itself [m].
_ON_TABLE = OBJECT_SIDE


class NoTaskError(UserError, ValueError):
    """Scene in which none of the requested tasks is feasible."""


def push_start_position(name: str, centre: NDArray[np.float64], side: Side) -> NDArray[np.float64]:
    """Return the position (3,) at which a hand moves down to push an object to a side.

    Args:
        name: name of the object.
        centre: (3,) centre of the object in the world [m].
        side: direction of the push.
    """
    return centre - (PUSH_START + (object_spec(name).shape.length - OBJECT_SIDE) / 2) * side.step


class TaskSampler:
    """Sampler of feasible tasks for one robot."""

    def __init__(self, contract: RobotContract) -> None:
        """Prepare the grasp geometry of each arm."""
        self._hands = {name: GraspGeometry(contract, name) for name in contract.arms}

    def sample(self, skills: Sequence[Skill], scene: GroundTruth, random: np.random.Generator) -> Task:
        """Sample a feasible skill, then one of its tasks, both uniformly.

        Args:
            skills: skills to choose from.
            scene: ground truth at the beginning.
            random: generator to sample from.

        Raises:
            NoTaskError: none of ``skills`` is feasible in the scene.
        """
        possible = {skill: list(self.feasible_tasks(skill, scene)) for skill in skills}
        open_to = [skill for skill in skills if possible[skill]]
        if not open_to:
            raise NoTaskError(f'{" or ".join(s.value for s in skills)} is not feasible with the objects '
                              f'{", ".join(scene.objects)} at their positions; use another scene')
        tasks = possible[open_to[random.integers(len(open_to))]]
        return tasks[random.integers(len(tasks))]

    def feasible_tasks(self, skill: Skill, scene: GroundTruth) -> Iterator[Task]:
        """Yield every task of a skill that is feasible in the scene."""
        for name, pose in scene.objects.items():
            if pose[2, 3] < _ON_TABLE:
                for arm in self._hands:
                    yield from self._tasks_of_arm(skill, scene, name, arm)

    def handover_position(self, scene: GroundTruth, giver: str, receiver: str) -> NDArray[np.float64] | None:
        """Return the free position (3,) nearest to the table's middle that both arms reach, or None."""
        points = [np.array([x, y, 0.0]) for x in (0.0, -0.01, 0.01) for y in np.arange(0.32, 0.66, 0.01)]
        free = [point for point in points
                if self._hands[giver].can_reach(point) and self._hands[receiver].can_reach(point)
                and all(np.linalg.norm(pose[:2, 3] - point[:2]) >= CLEARANCE for pose in scene.objects.values())]
        return min(free, key=lambda point: abs(float(point[1]) - 0.5), default=None)

    def _tasks_of_arm(self, skill: Skill, scene: GroundTruth, name: str, arm: str) -> Iterator[Task]:
        if not self._hands[arm].can_reach(scene.objects[name][:3, 3]):
            return
        named = (True, False) if self._nearer_arm(scene, name) == arm else (True,)
        if skill is Skill.PICK:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said) for said in named)
        elif skill is Skill.PLACE:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said, tray=tray)
                        for tray, pose in scene.trays.items()
                        if self._hands[arm].can_reach(pose[:3, 3]) for said in named)
        elif skill is Skill.PUSH:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said, side=side)
                        for side in Side if self._is_path_clear(scene, name, arm, side) for said in named)
        elif self._nearer_arm(scene, name) == arm:
            yield from (Task(skill=skill, object=name, arm=arm, receiver=other) for other in self._hands
                        if other != arm and self.handover_position(scene, arm, other) is not None)

    def _nearer_arm(self, scene: GroundTruth, name: str) -> str:
        point = scene.objects[name][:3, 3]
        return min(self._hands, key=lambda arm: self._hands[arm].distance_from_base(point))

    def _is_path_clear(self, scene: GroundTruth, name: str, arm: str, side: Side) -> bool:
        """Return whether hand and object can move along the whole push without touching another object."""
        start = scene.objects[name][:3, 3]
        behind, end = push_start_position(name, start, side), start + PUSH_LENGTH * side.step
        if not (self._hands[arm].can_reach(behind) and self._hands[arm].can_reach(end)):
            return False
        for other, pose in scene.objects.items():
            along, across = float((pose[:3, 3] - start) @ side.step), abs(pose[1, 3] - start[1])
            ahead = 0.0 < along < PUSH_LENGTH + OBJECT_SIDE * 1.5 and across < _CORRIDOR
            if other != name and (ahead or np.linalg.norm(pose[:2, 3] - behind[:2]) < _BESIDE):
                return False
        return True
