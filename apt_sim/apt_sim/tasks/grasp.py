"""Poses of a hand above the table: where it grasps, carries, drops and pushes.

Geometry of the tool and of the contract's workspace; it knows no motion and no simulator.
"""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.geometry import make_pose
from apt_sim.world.things import OBJECT_SIDE, TRAY_SIZE, Shape

EE_FROM_TOOL_CENTRE = (0.0278, 0.0, 0.0)
"""Between the pads of ALOHA's long fingers, from ``ee_gripper_link`` [m]."""
# The fingers' pads reach this far below ee_gripper_link; Interbotix' long fingers.
_TIP_BELOW_EE = 0.046
# The hand stays this far inside the workspace box: at its border the safety filter would move the target.
_MARGIN = 0.002
_WALL_CLEARANCE, _OBJECT_CLEARANCE = 0.006, 0.01


class GraspGeometry:
    """Poses of one arm's ``ee_gripper_link``, all pointing straight down."""

    def __init__(self, contract: RobotContract, arm: str) -> None:
        """
        Raises:
            ValueError: the arm has no workspace box, so nobody knows how low it may go.
        """
        self._arm: Arm = contract.arms[arm]
        if self._arm.workspace is None:
            raise ValueError(f'arms.{arm}.workspace is not set in contract {contract.name!r}; '
                             'a demonstration needs the box that the arm may move in')
        self._lower = np.array(self._arm.workspace.lower) + _MARGIN
        self._upper = np.array(self._arm.workspace.upper) - _MARGIN
        self._base = np.array(self._arm.world_from_base.translation)

    @property
    def grasp_height(self) -> float:
        """Height of ``ee_gripper_link`` with the tool centre at an object on the table [m]."""
        return max(OBJECT_SIDE / 2 + EE_FROM_TOOL_CENTRE[0], float(self._lower[2]))

    @property
    def clear_height(self) -> float:
        """Height at which open fingers pass over an object on the table [m]."""
        return OBJECT_SIDE + _TIP_BELOW_EE + _OBJECT_CLEARANCE

    @property
    def drop_height(self) -> float:
        """Height at which the fingers open above a tray without touching its walls [m]."""
        return TRAY_SIZE[2] + _TIP_BELOW_EE + _WALL_CLEARANCE

    def reaches(self, point: NDArray[np.float64]) -> bool:
        """Whether the hand may stand above a point (3,) of the world."""
        return bool(np.all(point[:2] >= self._lower[:2]) and np.all(point[:2] <= self._upper[:2]))

    def distance(self, point: NDArray[np.float64]) -> float:
        """From the arm's base to a point (3,), along the table [m]."""
        return float(np.linalg.norm(point[:2] - self._base[:2]))

    def above(self, point: NDArray[np.float64], yaw: float, height: float) -> NDArray[np.float64]:
        """(4, 4) world_from_ee above a point (3,), pointing down.

        Args:
            yaw: direction of the hand's z axis; the fingers open across it [rad].
            height: of ``ee_gripper_link`` above the table [m].
        """
        rotation = np.column_stack([(0.0, 0.0, -1.0), (-np.sin(yaw), np.cos(yaw), 0.0),
                                    (np.cos(yaw), np.sin(yaw), 0.0)])
        return make_pose(rotation, (point[0], point[1], height))

    def bearing(self, point: NDArray[np.float64]) -> float:
        """Yaw at which the arm points at a point (3,) without turning its wrist [rad]."""
        return float(np.arctan2(*(point[:2] - self._base[:2])[::-1]))

    def facing_yaw(self, world_from_object: NDArray[np.float64], shape: Shape) -> float:
        """Yaw that lays the fingers on the narrow sides of an object, with the least turn of the wrist [rad]."""
        yaw = float(np.arctan2(world_from_object[1, 0], world_from_object[0, 0]))
        bearing = self.bearing(world_from_object[:3, 3])
        if not shape.turn:
            return bearing
        return yaw + shape.turn * round((bearing - yaw) / shape.turn)
