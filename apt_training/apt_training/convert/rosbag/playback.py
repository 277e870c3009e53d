"""A recording played into the assembler of the live node: what it would have known at each instant.

Messages are fed in the order in which they were received, so that a frame of the past is made of
what had arrived by then. Episodes and labels are others' business.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import RobotContract
from apt_policy.core.decode import DecodeError, decode_joint_positions, decode_transform
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.kinematics import ForwardKinematics
from apt_policy.core.sample import ArmState, Hold, Observation
from apt_policy.core.stream_spec import COMMAND_KINDS, StreamKind
from apt_policy.core.streams import JUMP_NS, Arrival, TimeBase
from apt_policy.core.transforms import StampedTransform, TransformBuffer, TransformError, TransformRefusedError
from apt_training.convert.rosbag.clocks import PEEK_NS, Clocks, leading_stamp_ns
from apt_training.convert.rosbag.labels import CommandError, Labeller
from apt_training.convert.rosbag.reading import Bag
from apt_training.convert.rosbag.settings import BagSettings, EndEffector
from apt_training.convert.rosbag.tally import StreamTally
from apt_training.convert.rosbag.wiring import TF, Route
from apt_training.convert.source import ConvertError

_HEAD = 12
"""CDR header and stamp: in front of what tells whether two messages say the same [bytes]."""
_SKETCH = 2048
_HOLE_NS = 60_000_000_000
"""A recording that is silent for longer was stopped in between."""
_ODD_ARRIVALS = {Arrival.UNSTAMPED: 'messages without a stamp left out',
                 Arrival.OUT_OF_ORDER: 'messages that were older than the one before left out',
                 Arrival.CLOCK_JUMP: 'jumps back of its clock, everything before forgotten'}


class Oddities:
    """What went wrong with single messages, counted and with the first case of each."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, stream: str, what: str, receive_ns: int, detail: str = '') -> None:
        """Something happened to a message of a stream."""
        self._counts[stream, what] += 1
        when = f'at {(receive_ns - self._start_ns) / 1e9:.3f} s'
        self._first.setdefault((stream, what), f'{when}: {detail}' if detail else when)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind."""
        return tuple(f'{stream}: {count} {what}, first {self._first[stream, what]}'
                     for (stream, what), count in self._counts.items())


class Playback:
    """The state of the robot as the messages that were taken so far tell it."""

    def __init__(self, bag: Bag, routes: Mapping[str, Route], contract: RobotContract, *, clocks: Clocks,
                 labeller: Labeller, joint_arms: Mapping[str, ForwardKinematics],
                 cameras: tuple[str, ...] | None = None) -> None:
        """Nothing has been taken yet.

        Args:
            bag: decodes its messages.
            routes: by topic.
            contract: the robot.
            clocks: how messages are dated.
            labeller: is given the commands.
            joint_arms: arms whose end-effector is placed by their joints, not by TF.
            cameras: the subset in use.
        """
        self.now_ns = clocks.simulated_ns
        """On the clock of the recording."""
        self.odd = Oddities(bag.start_ns)
        self.tallies: dict[str, StreamTally] = {}
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
                self.tallies[route.stream] = StreamTally(route.stream, clocks.bases[route.name])

    def date(self, route: Route, receive_ns: int, raw: bytes | memoryview) -> bool:
        """Advance to a message's time; true if the clock of the recording jumped, which forgets everything."""
        if route.kind is StreamKind.CLOCK and self._clocks.simulated_ns:
            now_ns = leading_stamp_ns(raw)
        else:
            now_ns = self.now_ns if self._clocks.simulated_ns else receive_ns + self._clocks.shift_ns
        # From 0 as well, which recorders write while they wait for a simulated clock.
        jumped = now_ns < self.now_ns - JUMP_NS or (self._running and self.now_ns < now_ns - _HOLE_NS)
        self._running = True
        if jumped:
            self._assembler.clear()
            self.now_ns = now_ns
        self.now_ns = max(self.now_ns, now_ns)
        return jumped

    def take(self, route: Route, receive_ns: int, raw: bytes | memoryview) -> int:
        """Feed one message at the present; returns the instant that it belongs to [ns]."""
        try:
            if route.kind is StreamKind.CAMERA_INFO:
                self._take_info(route, receive_ns, raw)
            elif route.kind in (StreamKind.TRANSFORMS, StreamKind.STATIC_TRANSFORMS):
                return self._take_transforms(route, receive_ns, raw)
            elif route.kind in COMMAND_KINDS:
                self._labeller.add(route, self._bag.message(route.topic, raw), self.now_ns)
            elif route.kind in (StreamKind.IMAGE, StreamKind.JOINT_STATE):
                return self._take_stamped(route, receive_ns, raw)
        except (CommandError, ConvertError, DecodeError) as error:
            self.odd.add(route.stream, f'{route.topic} messages left out', receive_ns, str(error))
        return self.now_ns

    def snapshot(self, tick_ns: int, prompt: str) -> Observation | Hold:
        """As the live node would have seen it."""
        return self._assembler.snapshot(tick_ns, prompt)

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...] | Hold:
        """Without images."""
        return self._assembler.arm_states(stamp_ns)

    def _take_stamped(self, route: Route, receive_ns: int, raw: bytes | memoryview) -> int:
        instant_ns = self.now_ns if self._clocks.bases[route.name] is TimeBase.RECEIVE else leading_stamp_ns(raw)
        message = self._bag.message(route.topic, raw)
        tally = self.tallies[route.stream]
        tally.saw(instant_ns, self.now_ns)
        if route.kind is StreamKind.IMAGE:
            tally.saw_image(sketch(raw), memoryview(raw)[_HEAD:])
            arrival = self._assembler.add_image(route.name, message, self.now_ns)
        else:
            arrival = self._assembler.add_joint_state(route.name, message, self.now_ns)
            if route.name in self._joint_arms:
                self._place_by_joints(route.name, message, instant_ns)
        if arrival in _ODD_ARRIVALS:
            self.odd.add(route.stream, _ODD_ARRIVALS[arrival], receive_ns)
        return instant_ns

    def _take_info(self, route: Route, receive_ns: int, raw: bytes | memoryview) -> None:
        """Only a change is decoded: calibration comes with every image."""
        said = memoryview(raw)[_HEAD:]
        before = self._infos.get(route.name)
        if before is not None and before[0] == said:
            return
        message = self._bag.message(route.topic, raw)
        if before is not None and (before[1].width, before[1].height) != (message.width, message.height):
            self.odd.add(route.stream, 'changes of the image size', receive_ns,
                         f'from {before[1].width}x{before[1].height} to {message.width}x{message.height}')
        self._infos[route.name] = said, message
        self._assembler.add_camera_info(route.name, message)

    def _take_transforms(self, route: Route, receive_ns: int, raw: bytes | memoryview) -> int:
        static = route.kind is StreamKind.STATIC_TRANSFORMS
        store = self._transforms.set_static_transform if static else self._transforms.set_transform
        instant_ns = self.now_ns
        for link in map(decode_transform, self._bag.message(route.topic, raw).transforms):
            if not static and self._clocks.bases[TF] is TimeBase.RECEIVE:
                link = StampedTransform(parent=link.parent, child=link.child, stamp_ns=self.now_ns,
                                        translation=link.translation, quaternion_xyzw=link.quaternion_xyzw)
            instant_ns = link.stamp_ns
            if link.child.removeprefix('/') in self._placed_by_joints:
                continue
            try:
                store(link)
            except TransformRefusedError as error:
                self.odd.add(route.stream, 'transforms refused', receive_ns, str(error))
        if not static:
            self.tallies[TF].saw(instant_ns, self.now_ns)
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
        # Older than all that is kept: the assembler has refused the message for the same reason.
        except TransformRefusedError:
            return


def sketch(raw: bytes | memoryview) -> bytes:
    """Part of a message that tells it from others of its length."""
    view = memoryview(raw)
    return bytes(view[_HEAD:_HEAD + _SKETCH]) + bytes(view[-_SKETCH:])


def arms_by_joints(bag: Bag, routes: Mapping[str, Route], contract: RobotContract, settings: BagSettings
                   ) -> tuple[str, ...]:
    """Arms whose end-effector is to be placed by their joints: on request, or where TF lacks it.

    Raises:
        ConvertError: TF lacks an arm, and the contract has no chain for it.
    """
    if settings.end_effector is EndEffector.JOINTS:
        return tuple(contract.arms)
    unknown = _unknown_to_tf(bag, routes, contract)
    if not unknown:
        return ()
    without = [name for name in unknown if contract.arms[name].chain is None]
    if settings.end_effector is EndEffector.TF or without:
        name, why = next((name, why) for name, why in unknown.items() if not without or name in without)
        raise ConvertError(f'{bag.path}: TF does not place the end-effector of arm {name!r} in the first '
                           f'{PEEK_NS / 1e9:g} s: {why}. Record /tf and /tf_static, or give the contract a chain for '
                           f'arms.{name} and take poses from joints (--ee-from joints)')
    return tuple(unknown)


def _unknown_to_tf(bag: Bag, routes: Mapping[str, Route], contract: RobotContract) -> dict[str, str]:
    """Arms, and what TF says of them, after the first seconds."""
    buffer = TransformBuffer()
    wanted = {topic: route for topic, route in routes.items()
              if route.kind in (StreamKind.TRANSFORMS, StreamKind.STATIC_TRANSFORMS)}
    for topic, receive_ns, raw in bag.messages(set(wanted)) if wanted else ():
        if receive_ns - bag.start_ns > PEEK_NS:
            break
        static = wanted[topic].kind is StreamKind.STATIC_TRANSFORMS
        for link in map(decode_transform, bag.message(topic, raw).transforms):
            try:
                (buffer.set_static_transform if static else buffer.set_transform)(link)
            except TransformRefusedError:
                continue
    unknown = {}
    for name, arm in contract.arms.items():
        try:
            buffer.latest_common_ns(arm.base_frame, arm.ee_frame)
        except TransformError as error:
            unknown[name] = str(error)
    return unknown
