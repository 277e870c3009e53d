"""Poses of a hand above the table for grasping, carrying, dropping and pushing.

They follow from the tool's geometry and the contract's workspace.
"""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.geometry import make_pose
from apt_sim.world.objects import OBJECT_SIDE, TRAY_SIZE, Shape

EE_FROM_TOOL_CENTRE = (0.0278, 0.0, 0.0)
"""Point between the pads of ALOHA's long fingers in ``ee_gripper_link`` [m]."""
# Distance from ee_gripper_link to the tips of Interbotix' long fingers [m].
_TIP_BELOW_EE = 0.046
# Distance of the hand from the border of the workspace box [m]: at the border the safety filter would move the target.
_MARGIN = 0.002
# Clearance of the fingertips above a tray's walls and above an object [m].
_WALL_CLEARANCE, _OBJECT_CLEARANCE = 0.006, 0.01


class GraspGeometry:
    """Poses of one arm's ``ee_gripper_link``, all pointing straight down."""

    def __init__(self, contract: RobotContract, arm: str) -> None:
        """Read the arm's workspace box, which limits how low the hand may go.

        Raises:
            ValueError: the arm has no workspace box.
        """
        self._arm: Arm = contract.arms[arm]
        if self._arm.workspace is None:
            raise ValueError(f'arms.{arm}.workspace is not set in contract {contract.name!r}; '
                             'demonstrations need the workspace box of the arm')
        self._lower = np.array(self._arm.workspace.lower) + _MARGIN
        self._upper = np.array(self._arm.workspace.upper) - _MARGIN
        self._base = np.array(self._arm.world_from_base.translation)

    @property
    def grasp_height(self) -> float:
        """Height of ``ee_gripper_link`` with the tool centre at an object on the table [m]."""
        return max(OBJECT_SIDE / 2 + EE_FROM_TOOL_CENTRE[0], float(self._lower[2]))

    @property
    def clear_height(self) -> float:
        """Height of ``ee_gripper_link`` at which open fingers pass over an object on the table [m]."""
        return OBJECT_SIDE + _TIP_BELOW_EE + _OBJECT_CLEARANCE

    @property
    def drop_height(self) -> float:
        """Height of ``ee_gripper_link`` at which the fingers open above a tray without touching its walls [m]."""
        return TRAY_SIZE[2] + _TIP_BELOW_EE + _WALL_CLEARANCE

    def can_reach(self, point: NDArray[np.float64]) -> bool:
        """Return whether the hand can be above a point (3,) of the world."""
        return bool(np.all(point[:2] >= self._lower[:2]) and np.all(point[:2] <= self._upper[:2]))

    def distance_from_base(self, point: NDArray[np.float64]) -> float:
        """Return the horizontal distance from the arm's base to a point (3,) [m]."""
        return float(np.linalg.norm(point[:2] - self._base[:2]))

    def pose_above(self, point: NDArray[np.float64], yaw: float, height: float) -> NDArray[np.float64]:
        """Return the (4, 4) world_from_ee of a hand above a point, pointing down.

        Args:
            point: (3,) in the world [m].
            yaw: direction of the hand's z axis; the fingers open across it [rad].
            height: height of ``ee_gripper_link`` above the table [m].
        """
        rotation = np.column_stack([(0.0, 0.0, -1.0), (-np.sin(yaw), np.cos(yaw), 0.0),
                                    (np.cos(yaw), np.sin(yaw), 0.0)])
        return make_pose(rotation, (point[0], point[1], height))

    def bearing(self, point: NDArray[np.float64]) -> float:
        """Return the yaw at which the arm points at a point (3,) without turning its wrist [rad]."""
        return float(np.arctan2(*(point[:2] - self._base[:2])[::-1]))

    def grasp_yaw(self, world_from_object: NDArray[np.float64], shape: Shape) -> float:
        """Return the yaw that aligns the fingers with an object's narrow sides, with the least wrist rotation [rad]."""
        yaw = float(np.arctan2(world_from_object[1, 0], world_from_object[0, 0]))
        bearing = self.bearing(world_from_object[:3, 3])
        if not shape.symmetry_angle:
            return bearing
        return yaw + shape.symmetry_angle * round((bearing - yaw) / shape.symmetry_angle)
