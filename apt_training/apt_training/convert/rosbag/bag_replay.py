"""Replay of a recording into the observation assembler of the live node.

Messages are fed in the order of their receive times, so that a frame is made of what the live node had received by
then.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.cdr import decode_leading_stamp_ns
from apt_policy.core.contract import RobotContract
from apt_policy.core.decode import DecodeError, decode_joint_positions, decode_transform
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.kinematics import ForwardKinematics
from apt_policy.core.sample import ArmState, Hold, Observation
from apt_policy.core.stream_spec import COMMAND_KINDS, StreamKind
from apt_policy.core.streams import JUMP_NS, Arrival, TimeBase
from apt_policy.core.transforms import StampedTransform, TransformBuffer, TransformError, TransformRefusedError
from apt_training.convert.rosbag.bag_reader import BagReader
from apt_training.convert.rosbag.clocks import PEEK_NS, StreamClocks
from apt_training.convert.rosbag.config import EndEffector, RosbagConversionConfig
from apt_training.convert.rosbag.labels import CommandError, Labeller
from apt_training.convert.rosbag.stream_stats import StreamStatsCollector
from apt_training.convert.rosbag.topic_routes import TF, TopicRoute
from apt_training.convert.source import ConvertError

_HEADER_BYTES = 12
"""CDR encapsulation and stamp, which precede the content that is compared [B]."""
_FINGERPRINT_BYTES = 2048
_MAX_SILENCE_NS = 60_000_000_000
"""Silence after which the recording is taken to have been stopped in between [ns]."""
_ARRIVAL_ISSUES = {Arrival.UNSTAMPED: 'messages without a stamp ignored',
                 Arrival.OUT_OF_ORDER: 'messages older than the one before ignored',
                 Arrival.CLOCK_JUMP: 'jumps back of its clock, after which earlier messages are dropped'}


class MessageIssues:
    """Problems of single messages: the count and the first case of each kind."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def record(self, stream: str, issue: str, receive_ns: int, detail: str = '') -> None:
        """Count a problem.

        Args:
            stream: stream of the message.
            issue: kind of problem, as a plural.
            receive_ns: receive time of the message [ns].
            detail: sentence about this case.
        """
        self._counts[stream, issue] += 1
        when = f'at {(receive_ns - self._start_ns) / 1e9:.3f} s'
        self._first.setdefault((stream, issue), f'{when}: {detail}' if detail else when)

    def describe(self) -> tuple[str, ...]:
        """Return a sentence for each kind of problem."""
        return tuple(f'{stream}: {count} {issue}, first {self._first[stream, issue]}'
                     for (stream, issue), count in self._counts.items())


class BagReplay:
    """State of the robot according to the messages so far."""

    def __init__(self, bag: BagReader, routes: Mapping[str, TopicRoute], contract: RobotContract, *,
                 clocks: StreamClocks, labeller: Labeller, joint_arms: Mapping[str, ForwardKinematics],
                 cameras: tuple[str, ...] | None = None) -> None:
        """Start before the first message.

        Args:
            bag: open bag, which decodes its messages.
            routes: routes by topic.
            contract: the robot.
            clocks: clocks of the streams.
            labeller: receives the commands.
            joint_arms: arms whose end-effector pose comes from their joints instead of TF.
            cameras: subset of cameras in use; None: all.
        """
        self.now_ns = clocks.simulated_ns
        """Present time on the clock of the recording [ns]."""
        self.issues = MessageIssues(bag.start_ns)
        self.stats: dict[str, StreamStatsCollector] = {}
        self._running = bool(clocks.simulated_ns)
        self._bag, self._clocks, self._labeller, self._joint_arms = bag, clocks, labeller, joint_arms
        self._contract = contract
        self._transforms = TransformBuffer()
        self._assembler = ObservationAssembler(
            contract, self._transforms, cameras=cameras,
            time_bases={name: base for name, base in clocks.bases.items() if name != TF})
        self._infos: dict[str, tuple[bytes | memoryview, Any]] = {}
        self._placed_by_joints = {contract.arms[name].ee_frame for name in joint_arms}
        for route in routes.values():
            if route.is_stamped:
                self.stats[route.stream] = StreamStatsCollector(route.stream, clocks.bases[route.name])

    def advance_clock(self, route: TopicRoute, receive_ns: int, raw: bytes | memoryview) -> bool:
        """Advance to the time of a message.

        Returns:
            True if the clock of the recording jumped; earlier messages are dropped then.
        """
        if route.kind is StreamKind.CLOCK and self._clocks.simulated_ns:
            now_ns = decode_leading_stamp_ns(raw) or 0
        else:
            now_ns = self.now_ns if self._clocks.simulated_ns else receive_ns + self._clocks.shift_ns
        # A jump from 0 counts too: recorders write 0 while they wait for a simulated clock.
        jumped = now_ns < self.now_ns - JUMP_NS or (self._running and self.now_ns < now_ns - _MAX_SILENCE_NS)
        self._running = True
        if jumped:
            self._assembler.clear()
            self.now_ns = now_ns
        self.now_ns = max(self.now_ns, now_ns)
        return jumped

    def process_message(self, route: TopicRoute, receive_ns: int, raw: bytes | memoryview) -> int:
        """Feed a message at the present time, and return the time that it belongs to [ns]."""
        try:
            if route.kind is StreamKind.CAMERA_INFO:
                self._process_info(route, receive_ns, raw)
            elif route.kind in (StreamKind.TRANSFORMS, StreamKind.STATIC_TRANSFORMS):
                return self._process_transforms(route, receive_ns, raw)
            elif route.kind in COMMAND_KINDS:
                self._labeller.add_command(route, self._bag.decode(route.topic, raw), self.now_ns)
            elif route.kind in (StreamKind.IMAGE, StreamKind.JOINT_STATE):
                return self._process_stamped(route, receive_ns, raw)
        except (CommandError, ConvertError, DecodeError) as error:
            self.issues.record(route.stream, f'{route.topic} messages ignored', receive_ns, str(error))
        return self.now_ns

    def snapshot(self, tick_ns: int, prompt: str) -> Observation | Hold:
        """Return the observation of the live node at a time [ns], or why it holds."""
        return self._assembler.snapshot(tick_ns, prompt)

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...] | Hold:
        """Return the states of all arms at a time [ns], or why they are unknown."""
        return self._assembler.arm_states(stamp_ns)

    def _process_stamped(self, route: TopicRoute, receive_ns: int, raw: bytes | memoryview) -> int:
        is_stamped = self._clocks.bases[route.name] is not TimeBase.RECEIVE
        instant_ns = (decode_leading_stamp_ns(raw) or 0) if is_stamped else self.now_ns
        message = self._bag.decode(route.topic, raw)
        stats = self.stats[route.stream]
        stats.record_message(instant_ns, self.now_ns)
        if route.kind is StreamKind.IMAGE:
            stats.record_image(fingerprint(raw), memoryview(raw)[_HEADER_BYTES:])
            arrival = self._assembler.add_image(route.name, message, self.now_ns)
        else:
            arrival = self._assembler.add_joint_state(route.name, message, self.now_ns)
            if route.name in self._joint_arms:
                self._place_by_joints(route.name, message, instant_ns)
        if arrival in _ARRIVAL_ISSUES:
            self.issues.record(route.stream, _ARRIVAL_ISSUES[arrival], receive_ns)
        return instant_ns

    def _process_info(self, route: TopicRoute, receive_ns: int, raw: bytes | memoryview) -> None:
        """Process a calibration, which is decoded only if it changed: it comes with every image."""
        content = memoryview(raw)[_HEADER_BYTES:]
        before = self._infos.get(route.name)
        if before is not None and before[0] == content:
            return
        message = self._bag.decode(route.topic, raw)
        if before is not None and (before[1].width, before[1].height) != (message.width, message.height):
            self.issues.record(route.stream, 'changes of the image size', receive_ns,
                         f'from {before[1].width}x{before[1].height} to {message.width}x{message.height}')
        self._infos[route.name] = content, message
        self._assembler.add_camera_info(route.name, message)

    def _process_transforms(self, route: TopicRoute, receive_ns: int, raw: bytes | memoryview) -> int:
        static = route.kind is StreamKind.STATIC_TRANSFORMS
        store = self._transforms.set_static_transform if static else self._transforms.set_transform
        instant_ns = self.now_ns
        for transform in map(decode_transform, self._bag.decode(route.topic, raw).transforms):
            if not static and self._clocks.bases[TF] is TimeBase.RECEIVE:
                transform = StampedTransform(parent=transform.parent, child=transform.child, stamp_ns=self.now_ns,
                                        translation=transform.translation, quaternion_xyzw=transform.quaternion_xyzw)
            instant_ns = transform.stamp_ns
            if transform.child.removeprefix('/') in self._placed_by_joints:
                continue
            try:
                store(transform)
            except TransformRefusedError as error:
                self.issues.record(route.stream, 'transforms refused', receive_ns, str(error))
        if not static:
            self.stats[TF].record_message(instant_ns, self.now_ns)
        return instant_ns

    def _place_by_joints(self, name: str, message: Any, instant_ns: int) -> None:
        arm, chain = self._contract.arms[name], self._joint_arms[name]
        positions = decode_joint_positions(message, chain.joints)
        offset, turn = pose_to_quaternion(chain.base_from_ee([positions[joint] for joint in chain.joints]))
        x, y, z = offset.tolist()
        qx, qy, qz, qw = turn.tolist()
        try:
            self._transforms.set_transform(StampedTransform(
                parent=arm.base_frame, child=arm.ee_frame, stamp_ns=instant_ns, translation=(x, y, z),
                quaternion_xyzw=(qx, qy, qz, qw)))
        # The transform is older than the buffer: the assembler has refused the message for the same reason.
        except TransformRefusedError:
            return


def fingerprint(raw: bytes | memoryview) -> bytes:
    """Return the beginning and the end of a message, which identify it together with its length."""
    view = memoryview(raw)
    return bytes(view[_HEADER_BYTES:_HEADER_BYTES + _FINGERPRINT_BYTES]) + bytes(view[-_FINGERPRINT_BYTES:])


def arms_placed_by_joints(bag: BagReader, routes: Mapping[str, TopicRoute], contract: RobotContract,
                          config: RosbagConversionConfig) -> tuple[str, ...]:
    """Return the arms whose end-effector pose comes from their joints: on request, or where TF lacks it.

    Raises:
        ConvertError: TF lacks an arm, and the contract has no chain for it.
    """
    if config.end_effector is EndEffector.JOINTS:
        return tuple(contract.arms)
    missing = _missing_in_tf(bag, routes, contract)
    if not missing:
        return ()
    without = [name for name in missing if contract.arms[name].chain is None]
    if config.end_effector is EndEffector.TF or without:
        name, reason = next((name, reason) for name, reason in missing.items() if not without or name in without)
        raise ConvertError(f'{bag.path}: TF has no pose of the end-effector of arm {name!r} in the first '
                           f'{PEEK_NS / 1e9:g} s: {reason}. Record /tf and /tf_static, or add a chain for arms.{name} '
                           'to the contract and use --ee-from joints')
    return tuple(missing)


def _missing_in_tf(bag: BagReader, routes: Mapping[str, TopicRoute], contract: RobotContract) -> dict[str, str]:
    """Return the arms that TF lacks after the first seconds, with the reason."""
    buffer = TransformBuffer()
    wanted = {topic: route for topic, route in routes.items()
              if route.kind in (StreamKind.TRANSFORMS, StreamKind.STATIC_TRANSFORMS)}
    for topic, receive_ns, raw in bag.messages(set(wanted)) if wanted else ():
        if receive_ns - bag.start_ns > PEEK_NS:
            break
        static = wanted[topic].kind is StreamKind.STATIC_TRANSFORMS
        for transform in map(decode_transform, bag.decode(topic, raw).transforms):
            try:
                (buffer.set_static_transform if static else buffer.set_transform)(transform)
            except TransformRefusedError:
                continue
    missing = {}
    for name, arm in contract.arms.items():
        try:
            buffer.latest_common_ns(arm.base_frame, arm.ee_frame)
        except TransformError as error:
            missing[name] = str(error)
    return missing
