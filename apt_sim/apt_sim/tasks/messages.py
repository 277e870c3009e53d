"""Targets of a demonstrator as ROS messages, on the policy's own topics.

It numbers them. Who publishes or records them, and when, is not known here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from apt_msgs.msg import EndEffectorTarget
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Float64

from apt_policy.core import topics
from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import invert_pose
from apt_policy.core.sample import Target
from apt_policy.ros import encode


class TargetMessages:
    """The messages of one source of targets."""

    def __init__(self, contract: RobotContract) -> None:
        self._arms = contract.arms
        self._base_from_world = np.stack([invert_pose(arm.world_from_base.matrix) for arm in contract.arms.values()])
        self._sequence = 0

    @property
    def kinds(self) -> dict[str, Any]:
        """The message type of every topic that :meth:`of` speaks on."""
        return {topic: kind for arm in self._arms for topic, kind in (
            (topics.target(arm), EndEffectorTarget), (topics.target_pose(arm), PoseStamped),
            (topics.target_gripper(arm), Float64))}

    def of(self, target: Target) -> Iterator[tuple[str, Any]]:
        """Topic and message of all that is said of one target, arm after arm."""
        base_from_ee = self._base_from_world @ target.world_from_ee
        sequence, self._sequence = self._sequence, self._sequence + 1
        for index, (name, arm) in enumerate(self._arms.items()):
            pose = encode.pose_stamped(target.due_ns, arm.base_frame, base_from_ee[index])
            opening = float(target.gripper[index])
            yield topics.target(name), EndEffectorTarget(
                header=pose.header, arm=name, pose=pose.pose, gripper=opening, sequence=sequence, epoch=target.epoch)
            yield topics.target_pose(name), pose
            yield topics.target_gripper(name), Float64(data=opening)
