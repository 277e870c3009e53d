"""The true situation from what a simulated robot publishes.

Joint states become poses by forward kinematics, markers become objects and trays. Topics and nodes are
elsewhere.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_control.kinematics import arm_kinematics
from apt_policy.core.contract import RobotContract
from apt_policy.core.decode import decode_joint_positions, stamp_to_ns
from apt_policy.core.geometry import pose_from_quaternion
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.sample import ArmState
from apt_sim.tasks.task import Situation


class Eyes:
    """Keeps the newest of everything; not for two threads at once."""

    def __init__(self, contract: RobotContract) -> None:
        """
        Raises:
            KinematicsError: arms without a chain in the contract.
        """
        self._contract = contract
        self._kinematics = arm_kinematics(contract)
        self._arms: dict[str, ArmState] = {}
        self._things: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.objects_ns = -1
        """Stamp of the newest markers; -1 before the first."""

    def take_joints(self, name: str, message: Any) -> None:
        """sensor_msgs/JointState of an arm.

        Raises:
            DecodeError: a joint is missing, or not finite.
        """
        arm = self._contract.arms[name]
        positions = decode_joint_positions(message, (*arm.joints, arm.gripper_state.joint))
        base_from_ee = self._kinematics[name].base_from_ee(np.array([positions[joint] for joint in arm.joints]))
        self._arms[name] = ArmState(
            world_from_ee=arm.world_from_base.matrix @ base_from_ee,
            gripper=opening_from_reading(positions[arm.gripper_state.joint], arm.gripper_state))

    def take_objects(self, message: Any) -> None:
        """visualization_msgs/MarkerArray of all objects and trays, in the world."""
        things: dict[str, dict[str, NDArray[np.float64]]] = {}
        for marker in message.markers:
            p, q = marker.pose.position, marker.pose.orientation
            things.setdefault(marker.ns, {})[marker.text] = pose_from_quaternion(
                [p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
            self.objects_ns = stamp_to_ns(marker.header.stamp)
        self._things = things

    def situation(self, now_ns: int) -> Situation | None:
        """All that is known; None until every arm and the table have been seen."""
        if len(self._arms) < len(self._contract.arms) or not self._things:
            return None
        return Situation(stamp_ns=now_ns, arms=dict(self._arms), objects=self._things.get('object', {}),
                         trays=self._things.get('tray', {}))
