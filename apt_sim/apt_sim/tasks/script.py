"""The steps of each skill, one after the other, from where things truly are.

A script is a generator: it is sent the situation at the end of each step and yields the next one. How a
step becomes motion is the demonstrator's matter.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_sim.tasks.draw import PUSH_LENGTH, TaskDrawer, behind_object
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.success import LIFTED
from apt_sim.tasks.task import Situation, Skill, Task
from apt_sim.world.things import TRAY_SIZE, thing

OPEN, CLOSED = 1.0, 0.0
_TRAVEL = 0.16
"""Height of ``ee_gripper_link`` above everything that stands on the table [m]."""
_CARRY = 0.17
_ATTEMPTS = 2
_BESIDE = 0.09
"""A hand that is so near to an object goes to it as it is, without the height for a way across the table [m]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One hand goes to a pose, then its gripper to an opening."""

    arm: str
    world_from_ee: NDArray[np.float64] | None = None
    """(4, 4); None stays."""
    gripper: float | None = None
    """Opening 0..1; None stays."""
    label: str = ''
    """For logs."""


Script = Generator[Step, Situation, None]


class Scripts:
    """Scripts for the tasks of one robot."""

    def __init__(self, contract: RobotContract, random: np.random.Generator) -> None:
        """``random`` varies heights a little, so that no two demonstrations are alike."""
        self._hands: Mapping[str, GraspGeometry] = {name: GraspGeometry(contract, name) for name in contract.arms}
        self._drawer = TaskDrawer(contract)
        self._random = random

    def of(self, task: Task, scene: Situation) -> Script:
        """The steps of a task that begins in ``scene``; prime it with ``next``."""
        home = {name: state.world_from_ee for name, state in scene.arms.items()}
        if task.skill is Skill.PICK:
            yield from self._take(task.arm, task.object, scene)
        elif task.skill is Skill.PLACE:
            yield from self._place(task, scene, home)
        elif task.skill is Skill.HAND_OVER:
            yield from self._hand_over(task, scene, home)
        else:
            yield from self._push(task, scene, home)

    def _take(self, arm: str, name: str, scene: Situation) -> Generator[Step, Situation, Situation]:
        """Grasp and lift; once more if the object stayed behind.

        A hand that is beside the object already rises no more than it must.
        """
        hand = self._hands[arm]
        for _ in range(_ATTEMPTS):
            pose = scene.objects[name]
            point, yaw = pose[:3, 3], hand.facing_yaw(pose, thing(name).shape)
            height, there = self._about(_TRAVEL), scene.arms[arm].world_from_ee
            if np.linalg.norm(there[:2, 3] - point[:2]) < _BESIDE:
                if there[2, 3] < hand.clear_height:
                    there = raised(there, hand.clear_height)
                    yield Step(arm=arm, world_from_ee=there, gripper=OPEN, label='up')
                height = min(height, there[2, 3])
            yield Step(arm=arm, world_from_ee=hand.above(point, yaw, height), gripper=OPEN,
                       label=f'above the {name}')
            yield Step(arm=arm, world_from_ee=hand.above(point, yaw, hand.grasp_height), gripper=CLOSED,
                       label=f'grasp the {name}')
            scene = yield Step(arm=arm, world_from_ee=hand.above(point, yaw, self._about(_CARRY)),
                               label=f'lift the {name}')
            if scene.objects[name][2, 3] >= LIFTED:
                break
        return scene

    def _place(self, task: Task, scene: Situation, home: Mapping[str, NDArray[np.float64]]) -> Script:
        hand = self._hands[task.arm]
        scene = yield from self._take(task.arm, task.object, scene)
        point = free_place(task, scene)
        yaw = self._tray_yaw(task.arm, point)
        height = self._about(_CARRY)
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, height), label='above the tray')
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, hand.drop_height), gripper=OPEN,
                   label='let go')
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, height), label='up')
        yield Step(arm=task.arm, world_from_ee=home[task.arm], label='home')

    def _hand_over(self, task: Task, scene: Situation, home: Mapping[str, NDArray[np.float64]]) -> Script:
        hand = self._hands[task.arm]
        scene = yield from self._take(task.arm, task.object, scene)
        point = self._drawer.middle(scene, task.arm, task.receiver)
        if point is None:
            return
        yaw = hand.bearing(point)
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, self._about(_CARRY)),
                   label='above the middle')
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, hand.grasp_height), gripper=OPEN,
                   label='put down')
        yield Step(arm=task.arm, world_from_ee=hand.above(point, yaw, self._about(_CARRY)), label='up')
        scene = yield Step(arm=task.arm, world_from_ee=home[task.arm], label='out of the way')
        yield from self._take(task.receiver, task.object, scene)

    def _push(self, task: Task, scene: Situation, home: Mapping[str, NDArray[np.float64]]) -> Script:
        assert task.side is not None, 'a push has a side'
        hand, start = self._hands[task.arm], scene.objects[task.object][:3, 3]
        yaw = self._square_yaw(task.arm, start)
        behind = behind_object(task.object, start, task.side)
        # The hand stops half an object and half a finger short of where the object's middle is to be.
        end = start + (PUSH_LENGTH - thing(task.object).shape.length / 2 - 0.01) * task.side.step
        travel = self._about(_TRAVEL)
        yield Step(arm=task.arm, world_from_ee=hand.above(behind, yaw, travel), gripper=CLOSED, label='behind')
        yield Step(arm=task.arm, world_from_ee=hand.above(behind, yaw, hand.grasp_height), label='down')
        yield Step(arm=task.arm, world_from_ee=hand.above(end, yaw, hand.grasp_height), label='push')
        yield Step(arm=task.arm, world_from_ee=hand.above(end, yaw, travel), label='up')
        yield Step(arm=task.arm, world_from_ee=home[task.arm], label='home')

    def _about(self, height: float) -> float:
        return height + float(self._random.uniform(-0.01, 0.01))

    def _square_yaw(self, arm: str, point: NDArray[np.float64]) -> float:
        """The fingers across x, so that they push with their broad side."""
        return np.pi * round(self._hands[arm].bearing(point) / np.pi)

    def _tray_yaw(self, arm: str, point: NDArray[np.float64]) -> float:
        """The wrist as the arm points: fingers stay above the walls when they let go."""
        return self._hands[arm].bearing(point)


def raised(world_from_ee: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """The same pose at another height [m]."""
    pose = world_from_ee.copy()
    pose[2, 3] = height
    return pose


def free_place(task: Task, scene: Situation) -> NDArray[np.float64]:
    """(3,) where in its tray an object has the most room: the middle of an empty tray."""
    tray = scene.trays[task.tray][:3, 3]
    others = [pose[:2, 3] for name, pose in scene.objects.items()
              if name != task.object and np.linalg.norm(pose[:2, 3] - tray[:2]) < np.hypot(*TRAY_SIZE[:2]) / 2]
    places = [tray + np.array([x, 0.0, 0.0]) for x in (0.0, -0.04, 0.04)]
    if not others:
        return places[0]
    return max(places, key=lambda place: min(float(np.linalg.norm(place[:2] - other)) for other in others))
