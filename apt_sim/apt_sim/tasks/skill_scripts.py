"""Waypoints of each skill, computed from the ground truth.

A script is a generator: it yields a waypoint and receives the ground truth when that is reached. The scripted expert
interpolates between waypoints.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_sim.tasks.grasp import GraspGeometry
from apt_sim.tasks.success import LIFTED
from apt_sim.tasks.task import GroundTruth, Skill, Task
from apt_sim.tasks.task_sampler import PUSH_LENGTH, TaskSampler, push_start_position
from apt_sim.world.objects import TRAY_SIZE, object_spec

# Gripper openings: 1 is open, 0 is closed.
OPEN, CLOSED = 1.0, 0.0
_TRAVEL = 0.16
"""Height of ``ee_gripper_link`` for travel above all objects on the table [m]."""
_CARRY = 0.17
"""Height of ``ee_gripper_link`` for carrying an object [m]."""
_ATTEMPTS = 2
"""Number of grasp attempts before the expert gives up."""
_BESIDE = 0.09
"""Horizontal distance below which a hand approaches an object directly, without rising to travel height [m]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Waypoint:
    """Pose of one hand, then opening of its gripper."""

    arm: str
    """Name of the arm."""
    world_from_ee: NDArray[np.float64] | None = None
    """(4, 4); None keeps the pose."""
    gripper: float | None = None
    """Opening 0..1; None keeps the opening."""
    label: str = ''
    """Description for logs."""


WaypointScript = Generator[Waypoint, GroundTruth, None]


class SkillScripts:
    """Scripts for the tasks of one robot."""

    def __init__(self, contract: RobotContract, random: np.random.Generator) -> None:
        """Prepare the grasp geometry of each arm.

        Args:
            contract: description of the robot.
            random: generator that varies the heights of waypoints, so that demonstrations differ.
        """
        self._hands: Mapping[str, GraspGeometry] = {name: GraspGeometry(contract, name) for name in contract.arms}
        self._task_sampler = TaskSampler(contract)
        self._random = random

    def waypoints(self, task: Task, scene: GroundTruth) -> WaypointScript:
        """Yield the waypoints of a task that begins in ``scene``; start the generator with ``next``."""
        home = {name: state.world_from_ee for name, state in scene.arms.items()}
        if task.skill is Skill.PICK:
            yield from self._grasp_and_lift(task.arm, task.object, scene)
        elif task.skill is Skill.PLACE:
            yield from self._place(task, scene, home)
        elif task.skill is Skill.HAND_OVER:
            yield from self._hand_over(task, scene, home)
        else:
            yield from self._push(task, scene, home)

    def _grasp_and_lift(self, arm: str, name: str, scene: GroundTruth) -> Generator[Waypoint, GroundTruth, GroundTruth]:
        """Yield the waypoints of a grasp, and of a second attempt if the object was not lifted.

        A hand that is already beside the object rises only as far as needed.
        """
        hand = self._hands[arm]
        for _ in range(_ATTEMPTS):
            pose = scene.objects[name]
            point, yaw = pose[:3, 3], hand.grasp_yaw(pose, object_spec(name).shape)
            height, there = self._about(_TRAVEL), scene.arms[arm].world_from_ee
            if np.linalg.norm(there[:2, 3] - point[:2]) < _BESIDE:
                if there[2, 3] < hand.clear_height:
                    there = with_height(there, hand.clear_height)
                    yield Waypoint(arm=arm, world_from_ee=there, gripper=OPEN, label='up')
                height = min(height, there[2, 3])
            yield Waypoint(arm=arm, world_from_ee=hand.pose_above(point, yaw, height), gripper=OPEN,
                           label=f'above the {name}')
            yield Waypoint(arm=arm, world_from_ee=hand.pose_above(point, yaw, hand.grasp_height), gripper=CLOSED,
                           label=f'grasp the {name}')
            scene = yield Waypoint(arm=arm, world_from_ee=hand.pose_above(point, yaw, self._about(_CARRY)),
                                   label=f'lift the {name}')
            if scene.objects[name][2, 3] >= LIFTED:
                break
        return scene

    def _place(self, task: Task, scene: GroundTruth, home: Mapping[str, NDArray[np.float64]]) -> WaypointScript:
        hand = self._hands[task.arm]
        scene = yield from self._grasp_and_lift(task.arm, task.object, scene)
        point = free_tray_position(task, scene)
        yaw = self._tray_yaw(task.arm, point)
        height = self._about(_CARRY)
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, height), label='above the tray')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, hand.drop_height), gripper=OPEN,
                       label='let go')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, height), label='up')
        yield Waypoint(arm=task.arm, world_from_ee=home[task.arm], label='home')

    def _hand_over(self, task: Task, scene: GroundTruth, home: Mapping[str, NDArray[np.float64]]) -> WaypointScript:
        hand = self._hands[task.arm]
        scene = yield from self._grasp_and_lift(task.arm, task.object, scene)
        point = self._task_sampler.handover_position(scene, task.arm, task.receiver)
        if point is None:
            return
        yaw = hand.bearing(point)
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, self._about(_CARRY)),
                       label='above the middle')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, hand.grasp_height), gripper=OPEN,
                       label='put down')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(point, yaw, self._about(_CARRY)), label='up')
        scene = yield Waypoint(arm=task.arm, world_from_ee=home[task.arm], label='out of the way')
        yield from self._grasp_and_lift(task.receiver, task.object, scene)

    def _push(self, task: Task, scene: GroundTruth, home: Mapping[str, NDArray[np.float64]]) -> WaypointScript:
        assert task.side is not None, 'a push has a side'
        hand, start = self._hands[task.arm], scene.objects[task.object][:3, 3]
        yaw = self._square_yaw(task.arm, start)
        behind = push_start_position(task.object, start, task.side)
        # The hand stops half an object and half a finger before the goal of the object's centre.
        end = start + (PUSH_LENGTH - object_spec(task.object).shape.length / 2 - 0.01) * task.side.step
        travel = self._about(_TRAVEL)
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(behind, yaw, travel), gripper=CLOSED, label='behind')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(behind, yaw, hand.grasp_height), label='down')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(end, yaw, hand.grasp_height), label='push')
        yield Waypoint(arm=task.arm, world_from_ee=hand.pose_above(end, yaw, travel), label='up')
        yield Waypoint(arm=task.arm, world_from_ee=home[task.arm], label='home')

    def _about(self, height: float) -> float:
        return height + float(self._random.uniform(-0.01, 0.01))

    def _square_yaw(self, arm: str, point: NDArray[np.float64]) -> float:
        """Return the yaw that lays the fingers across x, so that they push with their broad side."""
        return np.pi * round(self._hands[arm].bearing(point) / np.pi)

    def _tray_yaw(self, arm: str, point: NDArray[np.float64]) -> float:
        """Return the yaw of the arm's direction, at which opening fingers stay above the tray's walls."""
        return self._hands[arm].bearing(point)


def with_height(world_from_ee: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """Return the pose at another height [m]."""
    pose = world_from_ee.copy()
    pose[2, 3] = height
    return pose


def free_tray_position(task: Task, scene: GroundTruth) -> NDArray[np.float64]:
    """Return the position (3,) with the most room in the task's tray; the centre if the tray is empty."""
    tray = scene.trays[task.tray][:3, 3]
    others = [pose[:2, 3] for name, pose in scene.objects.items()
              if name != task.object and np.linalg.norm(pose[:2, 3] - tray[:2]) < np.hypot(*TRAY_SIZE[:2]) / 2]
    places = [tray + np.array([x, 0.0, 0.0]) for x in (0.0, -0.04, 0.04)]
    if not others:
        return places[0]
    return max(places, key=lambda place: min(float(np.linalg.norm(place[:2] - other)) for other in others))
