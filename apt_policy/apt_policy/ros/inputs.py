"""Subscriptions to the robot's streams, which store messages in the assembler."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, JointState

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import RobotContract
from apt_policy.core.stream_spec import StreamKind, StreamSpec
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros.policy_params import PolicyParams
from apt_policy.ros.qos import deadline_events, profile, subscribe
from apt_policy.ros.stream_warnings import StreamWarnings
from apt_policy.ros.transforms import TOPICS as TF_TOPICS


class RobotInputs:
    """Subscriptions of one node that fill one assembler."""

    def __init__(self, node: Node, contract: RobotContract, params: PolicyParams,
                 assembler: ObservationAssembler, warnings: StreamWarnings) -> None:
        """Subscribe to the cameras in use and to every arm.

        Args:
            node: node of the subscriptions.
            contract: robot contract.
            params: parameters of the policy node.
            assembler: receiver of the messages.
            warnings: receiver of missed deadlines.
        """
        self._node = node
        self._streams = StreamTable(contract)
        self._assembler = assembler
        self._warnings = warnings
        self._topics: dict[str, tuple[str, ...]] = dict.fromkeys(assembler.transform_streams, TF_TOPICS)
        self.subscriptions: list[Subscription] = []
        """Own subscriptions, for the QoS monitor."""
        for name in params.cameras or contract.cameras:
            self._listen_to_camera(name, params)
        for name in contract.arms:
            self._listen_to_arm(name, params)

    def warnings_for(self, stream: str | None) -> tuple[str, ...]:
        """Return the warnings about the topics of a hold's stream; empty without a stream."""
        return () if stream is None else self._warnings.active(self._topics.get(stream, ()))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self.subscriptions:
            self._node.destroy_subscription(subscription)
        self.subscriptions = []

    def _listen_to_camera(self, name: str, params: PolicyParams) -> None:
        image = self._streams.find(StreamKind.IMAGE, name)
        info = self._streams.find(StreamKind.CAMERA_INFO, name)
        arrival_ns = self._arrival_clock(name, params)

        def store_image(message: Any) -> None:
            self._assembler.add_image(name, message, arrival_ns())

        def store_info(message: CameraInfo) -> None:
            self._assembler.add_camera_info(name, message)

        quality = profile(image.role, reliability=params.image_reliability, deadline_s=params.image_deadline_s)
        self._subscribe(image, store_image, quality, params.image_deadline_s)
        # Best effort matches every publisher; calibration is published with each image or latched.
        self._subscribe(info, store_info)
        self._topics[name] = (self._resolved(image.topic), self._resolved(info.topic))

    def _listen_to_arm(self, name: str, params: PolicyParams) -> None:
        joints = self._streams.find(StreamKind.JOINT_STATE, name)
        arrival_ns = self._arrival_clock(name, params)

        def store_state(message: JointState) -> None:
            self._assembler.add_joint_state(name, message, arrival_ns())

        self._subscribe(joints, store_state)
        self._topics[f'{name} joint_states'] = (self._resolved(joints.topic),)

    def _subscribe(self, stream: StreamSpec, store: Callable[[Any], None], quality: QoSProfile | None = None,
                   deadline_s: float = 0.0) -> None:
        events = deadline_events(self._resolved(stream.topic), self._warnings.report_transient, deadline_s=deadline_s)
        self.subscriptions.append(subscribe(self._node, stream, store, quality=quality, events=events))

    def _arrival_clock(self, name: str, params: PolicyParams) -> Callable[[], int]:
        """Return a function that gives the time of arrival [ns], or 0 for streams that use header stamps."""
        clock = self._node.get_clock()
        if name in params.stamp_on_receipt:
            return lambda: int(clock.now().nanoseconds)
        return int

    def _resolved(self, topic: str) -> str:
        return str(self._node.resolve_topic_name(topic))
