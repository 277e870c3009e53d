"""IK bridge as a ROS node: subscribes to targets and publishes Interbotix commands, on hardware and in simulation.

The node connects one :class:`ArmBridge` per arm to topics. While a bridge holds, nothing is published.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from apt_msgs.msg import IkStatus
from geometry_msgs.msg import PoseStamped
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from apt_control.bridge import ArmBridge, BridgeConfig, JointCommand
from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.decode import DecodeError, decode_joint_positions
from apt_policy.core.sample import Hold, HoldReason
from apt_policy.core.stream_spec import FIXED_STREAMS, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros import encode
from apt_policy.ros.params import Mutability, ParameterSet, parameter
from apt_policy.ros.qos import advertise, subscribe, subscription_events

_STATUS_PERIOD_S = 0.1
_DIAGNOSTICS_PERIOD_S = 1.0
_GROUP = 'arm'


@dataclass(frozen=True, kw_only=True)
class BridgeParams:
    """Parameters of the node; joints, limits, rates and units are facts of the contract."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    target_timeout_s: float = parameter(
        0.2, 'age from which a target is no longer followed [s]', mutability=Mutability.NEVER,
        lower=0.02, upper=10.0)
    following_error_rad: float = parameter(
        0.5, 'distance of a joint from its command that stops its arm [rad]', mutability=Mutability.NEVER,
        lower=0.05, upper=3.2)


class IkBridge(Node):
    """Node ``ik_bridge``."""

    def __init__(self) -> None:
        """Read the contract, and create publishers, subscriptions and timers.

        Raises:
            ParameterError: a parameter cannot be used.
            ContractError: the contract cannot be used.
            KinematicsError: the contract has no chain for an arm.
        """
        super().__init__('ik_bridge')
        params = ParameterSet(self, BridgeParams).values
        self._contract: RobotContract = load_contract(params.contract)
        config = BridgeConfig(target_timeout_s=params.target_timeout_s,
                              following_error_rad=params.following_error_rad)
        # Simulated time under use_sim_time; on hardware a clock that cannot be set back.
        self._simulated = bool(self.get_parameter('use_sim_time').value)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._arms = {name: _ArmPorts(self, self._contract, name, config) for name in self._contract.arms}
        for warning in next(iter(self._arms.values())).bridge.warnings:
            self.get_logger().warning(warning)
        self._diagnostics = advertise(self, FIXED_STREAMS[StreamKind.DIAGNOSTICS])
        self.create_timer(1.0 / self._contract.control_rate_hz, self._tick,
                          clock=self.get_clock() if self._simulated else self._steady)
        self.create_timer(_STATUS_PERIOD_S, self._report, clock=self._steady)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._diagnose, clock=self._steady)

    def now_ns(self) -> int:
        """Return the time that ages are measured with [ns]."""
        return int(self.get_clock().now().nanoseconds) if self._simulated else time.monotonic_ns()

    def _tick(self) -> None:
        now_ns = self.now_ns()
        for arm in self._arms.values():
            arm.tick(now_ns)

    def _report(self) -> None:
        stamp_ns = int(self.get_clock().now().nanoseconds)
        for arm in self._arms.values():
            arm.report(stamp_ns)

    def _diagnose(self) -> None:
        rows: list[tuple[str, int, str, Mapping[str, str]]] = []
        for name, arm in self._arms.items():
            hold = arm.outcome if isinstance(arm.outcome, Hold) else None
            rows.append((f'{self.get_name()}: {name}', int(hold is not None),
                         f'{hold.reason.name}: {hold.detail}' if hold else 'following', {}))
        stamp_ns = int(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(encode.diagnostics(stamp_ns, self._contract.name, rows))


class _ArmPorts:
    """Publishers and subscriptions of one arm, and its bridge."""

    def __init__(self, node: IkBridge, contract: RobotContract, name: str, config: BridgeConfig) -> None:
        self.bridge = ArmBridge(contract, name, config)
        self.outcome: JointCommand | Hold = Hold(reason=HoldReason.INACTIVE, detail=(
            f'{name}: the control timer has not run yet; is there a /clock?'))
        self._node, self._name, self._arm = node, name, contract.arms[name]
        self._last_reason: HoldReason | None = None
        streams = StreamTable(contract)
        self._targets = tuple(streams.find(kind, name).topic
                              for kind in (StreamKind.TARGET_POSE, StreamKind.TARGET_GRIPPER))
        self._group, self._single, self._status = (advertise(node, streams.find(kind, name)) for kind in (
            StreamKind.JOINT_COMMAND, StreamKind.GRIPPER_COMMAND, StreamKind.IK_STATUS))
        for kind, callback in ((StreamKind.JOINT_STATE, self._on_joints), (StreamKind.TARGET_POSE, self._on_pose),
                               (StreamKind.TARGET_GRIPPER, self._on_gripper)):
            stream = streams.find(kind, name)
            subscribe(node, stream, callback, events=subscription_events(stream.topic, self._warn))

    def tick(self, now_ns: int) -> None:
        """Publish the next command, unless the bridge holds."""
        self.outcome = self.bridge.tick(now_ns)
        if isinstance(self.outcome, Hold):
            self._log(self.outcome.reason, self.outcome.detail)
            return
        self._log(HoldReason.NONE, f'{self._name}: following')
        self._group.publish(JointGroupCommand(name=_GROUP, cmd=self.outcome.joints.tolist()))
        gripper = self._arm.gripper_command.joint
        self._single.publish(JointSingleCommand(name=gripper, cmd=self.outcome.gripper))

    def report(self, stamp_ns: int) -> None:
        """Publish the status, and look for other publishers of targets."""
        self.bridge.set_other_publishers(self._other_publishers())
        message = IkStatus(header=encode.header(stamp_ns, self._arm.base_frame), arm=self._name)
        if isinstance(self.outcome, Hold):
            message.holding = True
            message.hold_reason = int(self.outcome.reason)
            message.detail = self.outcome.detail
        else:
            message.position_error = self.outcome.position_error
            message.rotation_error = self.outcome.rotation_error
            message.reachable = self.outcome.reachable
        self._status.publish(message)

    def _other_publishers(self) -> str:
        crowded = [topic for topic in self._targets if self._node.count_publishers(topic) > 1]
        described = []
        for topic in crowded:
            nodes = [f'{info.node_namespace.rstrip("/")}/{info.node_name}'
                     for info in self._node.get_publishers_info_by_topic(topic)]
            described.append(f'{topic} has {len(nodes)} publishers ({", ".join(sorted(nodes))})')
        return '; '.join(described)

    def _on_joints(self, message: JointState) -> None:
        gripper = self._arm.gripper_state.joint
        try:
            positions = decode_joint_positions(message, (*self._arm.joints, gripper))
        except DecodeError as error:
            self.bridge.report_joint_state_fault(str(error))
            return
        joints = np.array([positions[joint] for joint in self._arm.joints])
        self.bridge.update_joint_state(joints, positions[gripper], self._node.now_ns())

    def _on_pose(self, message: PoseStamped) -> None:
        position, turn = message.pose.position, message.pose.orientation
        self.bridge.set_target(message.header.frame_id, np.array([position.x, position.y, position.z]),
                                np.array([turn.x, turn.y, turn.z, turn.w]), self._node.now_ns())

    def _on_gripper(self, message: Float64) -> None:
        self.bridge.set_gripper_target(message.data)

    def _warn(self, topic: str, sentence: str) -> None:
        self._node.get_logger().warning(sentence)

    def _log(self, reason: HoldReason, sentence: str) -> None:
        """Log each change of the reason, not the same one at every tick."""
        if reason is self._last_reason:
            return
        self._last_reason = reason
        if reason is HoldReason.NONE:
            self._node.get_logger().info(sentence)
        else:
            self._node.get_logger().warning(f'hold ({reason.name}): {sentence}')
