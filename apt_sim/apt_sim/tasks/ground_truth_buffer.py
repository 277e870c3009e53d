"""Ground truth from the messages of a simulated robot.

Joint states give end-effector poses by forward kinematics; markers give the poses of objects and trays.
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
from apt_sim.tasks.task import GroundTruth


class GroundTruthBuffer:
    """Buffer of the newest arm states and object poses; not thread-safe."""

    def __init__(self, contract: RobotContract) -> None:
        """Create an empty buffer.

        Raises:
            KinematicsError: an arm has no chain in the contract.
        """
        self._contract = contract
        self._kinematics = arm_kinematics(contract)
        self._arms: dict[str, ArmState] = {}
        self._poses: dict[str, dict[str, NDArray[np.float64]]] = {}
        self.objects_ns = -1
        """Stamp of the newest markers [ns]; -1 before the first."""

    def update_joints(self, name: str, message: Any) -> None:
        """Update an arm from its sensor_msgs/JointState.

        Raises:
            DecodeError: a joint is missing or not finite.
        """
        arm = self._contract.arms[name]
        positions = decode_joint_positions(message, (*arm.joints, arm.gripper_state.joint))
        base_from_ee = self._kinematics[name].base_from_ee(np.array([positions[joint] for joint in arm.joints]))
        self._arms[name] = ArmState(
            world_from_ee=arm.world_from_base.matrix @ base_from_ee,
            gripper=opening_from_reading(positions[arm.gripper_state.joint], arm.gripper_state))

    def update_objects(self, message: Any) -> None:
        """Update all objects and trays from a visualization_msgs/MarkerArray in the world frame."""
        poses: dict[str, dict[str, NDArray[np.float64]]] = {}
        for marker in message.markers:
            p, q = marker.pose.position, marker.pose.orientation
            poses.setdefault(marker.ns, {})[marker.text] = pose_from_quaternion(
                [p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
            self.objects_ns = stamp_to_ns(marker.header.stamp)
        self._poses = poses

    def ground_truth(self, now_ns: int) -> GroundTruth | None:
        """Return the newest ground truth, or None until every arm and the markers have arrived."""
        if len(self._arms) < len(self._contract.arms) or not self._poses:
            return None
        return GroundTruth(stamp_ns=now_ns, arms=dict(self._arms), objects=self._poses.get('object', {}),
                           trays=self._poses.get('tray', {}))
