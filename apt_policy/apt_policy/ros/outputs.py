"""Publishers of the policy: targets, chunks, the active prompt."""

from collections.abc import Iterator

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Float64, String

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import invert_pose
from apt_policy.core.sample import Chunk, Target
from apt_policy.core.stream_spec import StreamKind, StreamSpec
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros import encode_policy
from apt_policy.ros.qos import advertise, no_events


class PolicyOutputs:
    """Publishers of one configured policy."""

    def __init__(self, node: Node, contract: RobotContract, sequence: Iterator[int]) -> None:
        """Advertise every topic.

        Args:
            node: node of the publishers.
            contract: robot contract.
            sequence: sequence numbers of targets, which continue over a reconfiguration.
        """
        self._node = node
        self._contract = contract
        self._arms = tuple(contract.arms)
        self._frames = tuple(arm.base_frame for arm in contract.arms.values())
        self._base_from_world = np.stack(
            [invert_pose(arm.world_from_base.matrix) for arm in contract.arms.values()])
        self._sequence = sequence
        self.publishers: list[Publisher] = []
        """Own publishers, for the QoS monitor."""
        streams = StreamTable(contract)
        self._poses, self._grippers, self._targets = (
            [self._advertise(streams.find(kind, arm)) for arm in self._arms]
            for kind in (StreamKind.TARGET_POSE, StreamKind.TARGET_GRIPPER, StreamKind.TARGET))
        self._chunks, self._markers, self._prompt = (
            self._advertise(streams.find(kind))
            for kind in (StreamKind.CHUNK, StreamKind.PLAN_MARKERS, StreamKind.ACTIVE_PROMPT))

    @property
    def target_publishers(self) -> tuple[Publisher, ...]:
        """Publishers of targets, whose topics must have no other publisher."""
        return *self._poses, *self._grippers, *self._targets

    def send_target(self, target: Target) -> None:
        """Publish the target of one control tick for every valid arm, in the frame of its base."""
        base_from_ee = self._base_from_world @ target.world_from_ee
        sequence = next(self._sequence)
        for index in np.flatnonzero(target.valid_arms):
            message = encode_policy.end_effector_target(
                stamp_ns=target.due_ns, arm=self._arms[index], frame=self._frames[index],
                base_from_ee=base_from_ee[index], gripper=float(target.gripper[index]),
                sequence=sequence, epoch=target.epoch)
            self._targets[index].publish(message)
            self._poses[index].publish(PoseStamped(header=message.header, pose=message.pose))
            self._grippers[index].publish(Float64(data=message.gripper))

    def send_chunk(self, chunk: Chunk) -> None:
        """Publish a chunk if it has a subscriber; encoding it takes time of the control tick."""
        if self._chunks.get_subscription_count() == 0:
            return
        self._chunks.publish(encode_policy.action_chunk(
            chunk, arms=self._arms, world_frame=self._contract.world_frame))

    def send_markers(self, chunk: Chunk) -> None:
        """Publish a chunk as RViz markers if they have a subscriber."""
        if self._markers.get_subscription_count() == 0:
            return
        self._markers.publish(encode_policy.plan_markers(
            chunk, arms=self._arms, world_frame=self._contract.world_frame))

    def send_prompt(self, prompt: str) -> None:
        """Publish the active instruction, empty for none; the topic is latched."""
        self._prompt.publish(String(data=prompt))

    def close(self) -> None:
        """Remove all publishers."""
        for publisher in self.publishers:
            self._node.destroy_publisher(publisher)
        self.publishers = []

    def _advertise(self, stream: StreamSpec) -> Publisher:
        publisher = advertise(self._node, stream, events=no_events())
        self.publishers.append(publisher)
        return publisher
