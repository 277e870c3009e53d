"""Conversion of the scripted expert's targets to ROS messages on the policy's topics."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from apt_msgs.msg import EndEffectorTarget
from std_msgs.msg import Float64

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import invert_pose
from apt_policy.core.sample import Target
from apt_policy.core.stream_spec import StreamKind, StreamSpec
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros import encode

_KINDS = (StreamKind.TARGET, StreamKind.TARGET_POSE, StreamKind.TARGET_GRIPPER)


class TargetMessages:
    """Message factory of one target source; it numbers the targets."""

    def __init__(self, contract: RobotContract) -> None:
        """Start at sequence number zero."""
        self._arms = contract.arms
        self._streams = StreamTable(contract)
        self._base_from_world = np.stack([invert_pose(arm.world_from_base.matrix) for arm in contract.arms.values()])
        self._sequence = 0

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """Streams of the messages that :meth:`messages_for` returns."""
        return tuple(self._streams.find(kind, arm) for arm in self._arms for kind in _KINDS)

    def messages_for(self, target: Target) -> Iterator[tuple[str, Any]]:
        """Yield topic and message of each part of a target, arm by arm."""
        base_from_ee = self._base_from_world @ target.world_from_ee
        sequence, self._sequence = self._sequence, self._sequence + 1
        for index, (name, arm) in enumerate(self._arms.items()):
            pose = encode.pose_stamped(target.due_ns, arm.base_frame, base_from_ee[index])
            opening = float(target.gripper[index])
            combined = EndEffectorTarget(header=pose.header, arm=name, pose=pose.pose, gripper=opening,
                                         sequence=sequence, epoch=target.epoch)
            for kind, message in zip(_KINDS, (combined, pose, Float64(data=opening)), strict=True):
                yield self._streams.find(kind, name).topic, message
