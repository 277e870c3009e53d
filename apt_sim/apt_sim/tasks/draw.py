"""Which tasks a scene allows, and one of them drawn at random.

A task is allowed where its arm reaches every place that it leads to and nothing stands in its way.
Language and motion are elsewhere.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.task import Side, Situation, Skill, Task
from apt_sim.world.layout import CLEARANCE
from apt_sim.world.things import OBJECT_SIDE, thing

PUSH_LENGTH = 0.09
PUSH_START = 0.06
"""From a cube's centre to the hand's, before it pushes [m]; more by half of what an object is longer."""
# Half the width of what a pushed object and the hand behind it sweep.
_CORRIDOR = 0.055
# Between the middles of two objects where a closed hand still fits beside one of them.
_BESIDE = 0.055
# An object laid on another would be neither here nor there.
_ON_TABLE = OBJECT_SIDE


class NoTaskError(UserError, ValueError):
    """A scene in which none of the wanted tasks can be done."""


def behind_object(name: str, centre: NDArray[np.float64], side: Side) -> NDArray[np.float64]:
    """Where a hand comes down (3,) to push an object at ``centre`` (3,) to a side."""
    return centre - (PUSH_START + (thing(name).shape.length - OBJECT_SIDE) / 2) * side.step


class TaskDrawer:
    """Draws tasks for one robot."""

    def __init__(self, contract: RobotContract) -> None:
        self._hands = {name: GraspGeometry(contract, name) for name in contract.arms}

    def draw(self, skills: Sequence[Skill], scene: Situation, random: np.random.Generator) -> Task:
        """One task: a skill that the scene allows, then one of its tasks, evenly.

        Raises:
            NoTaskError: none of ``skills`` is possible here.
        """
        possible = {skill: list(self.possible(skill, scene)) for skill in skills}
        open_to = [skill for skill in skills if possible[skill]]
        if not open_to:
            raise NoTaskError(f'no {" or ".join(s.value for s in skills)} is possible with the objects '
                              f'{", ".join(scene.objects)} where they lie; draw another scene')
        tasks = possible[open_to[random.integers(len(open_to))]]
        return tasks[random.integers(len(tasks))]

    def possible(self, skill: Skill, scene: Situation) -> Iterator[Task]:
        """Every task of a skill that the scene allows."""
        for name, pose in scene.objects.items():
            if pose[2, 3] < _ON_TABLE:
                for arm in self._hands:
                    yield from self._with(skill, scene, name, arm)

    def middle(self, scene: Situation, giver: str, receiver: str) -> NDArray[np.float64] | None:
        """A free place (3,) on the table that two arms reach, nearest to its middle; None if there is none."""
        places = [np.array([x, y, 0.0]) for x in (0.0, -0.01, 0.01) for y in np.arange(0.32, 0.66, 0.01)]
        free = [place for place in places
                if self._hands[giver].reaches(place) and self._hands[receiver].reaches(place)
                and all(np.linalg.norm(pose[:2, 3] - place[:2]) >= CLEARANCE for pose in scene.objects.values())]
        return min(free, key=lambda place: abs(float(place[1]) - 0.5), default=None)

    def _with(self, skill: Skill, scene: Situation, name: str, arm: str) -> Iterator[Task]:
        if not self._hands[arm].reaches(scene.objects[name][:3, 3]):
            return
        named = (True, False) if self._nearer(scene, name) == arm else (True,)
        if skill is Skill.PICK:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said) for said in named)
        elif skill is Skill.PLACE:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said, tray=tray)
                        for tray, pose in scene.trays.items()
                        if self._hands[arm].reaches(pose[:3, 3]) for said in named)
        elif skill is Skill.PUSH:
            yield from (Task(skill=skill, object=name, arm=arm, arm_named=said, side=side)
                        for side in Side if self._clear(scene, name, arm, side) for said in named)
        elif self._nearer(scene, name) == arm:
            yield from (Task(skill=skill, object=name, arm=arm, receiver=other) for other in self._hands
                        if other != arm and self.middle(scene, arm, other) is not None)

    def _nearer(self, scene: Situation, name: str) -> str:
        point = scene.objects[name][:3, 3]
        return min(self._hands, key=lambda arm: self._hands[arm].distance(point))

    def _clear(self, scene: Situation, name: str, arm: str, side: Side) -> bool:
        """Whether hand and object can go from behind the object to where it ends, touching nothing."""
        start = scene.objects[name][:3, 3]
        behind, end = behind_object(name, start, side), start + PUSH_LENGTH * side.step
        if not (self._hands[arm].reaches(behind) and self._hands[arm].reaches(end)):
            return False
        for other, pose in scene.objects.items():
            along, across = float((pose[:3, 3] - start) @ side.step), abs(pose[1, 3] - start[1])
            ahead = 0.0 < along < PUSH_LENGTH + OBJECT_SIDE * 1.5 and across < _CORRIDOR
            if other != name and (ahead or np.linalg.norm(pose[:2, 3] - behind[:2]) < _BESIDE):
                return False
        return True
