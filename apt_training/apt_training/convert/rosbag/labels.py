"""What was commanded, and when: the states that a policy is to produce.

Commands come as end-effector targets or as joint positions, by arm. A command holds until the
next one. Where an arm was told nothing, the label is where it went.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, RobotContract
from apt_policy.core.decode import stamp_to_ns
from apt_policy.core.geometry import pose_from_quaternion
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.kinematics import ForwardKinematics
from apt_policy.core.sample import ArmState
from apt_policy.core.stream_spec import StreamKind
from apt_training.convert.rosbag.settings import Labels
from apt_training.convert.rosbag.wiring import Route
from apt_training.convert.source import ConvertError
from apt_training.episodes.episode import LabelSource

Array = NDArray[np.float64]

POSE_KINDS = {LabelSource.TARGETS: (StreamKind.TARGET, StreamKind.TARGET_POSE),
              LabelSource.JOINT_COMMANDS: (StreamKind.JOINT_COMMAND,), LabelSource.MEASURED: ()}
"""Which messages say where an arm shall be."""
_TO_TARGETS = (StreamKind.TARGET, StreamKind.TARGET_GRIPPER, StreamKind.GRIPPER_COMMAND)
GRIPPER_KINDS = {LabelSource.TARGETS: _TO_TARGETS, LabelSource.JOINT_COMMANDS: _TO_TARGETS[::-1],
                 LabelSource.MEASURED: _TO_TARGETS}
"""Which messages say how far a gripper shall open, best first."""
_KEPT_NS = 5_000_000_000
_BEFORE_NS = 1_000_000_000
"""How long before the beginning of an episode a command may have been given to count in it."""


class CommandError(ValueError):
    """A command that cannot be used; the message says why."""


def label_source(asked: Labels, routes: Mapping[str, Route], contract: RobotContract, bag: str) -> LabelSource:
    """The best source that the bag has, or the one that was asked for.

    Raises:
        ConvertError: the bag lacks what was asked for, or the contract the kinematics that it takes.
    """
    there = {route.kind for route in routes.values()}
    chains = all(arm.chain is not None for arm in contract.arms.values())
    has = {LabelSource.TARGETS: bool(there & {StreamKind.TARGET, StreamKind.TARGET_POSE}),
           LabelSource.JOINT_COMMANDS: StreamKind.JOINT_COMMAND in there and chains, LabelSource.MEASURED: True}
    if asked is Labels.AUTO:
        return next(source for source, present in has.items() if present)
    wanted = {Labels.TARGETS: LabelSource.TARGETS, Labels.JOINTS: LabelSource.JOINT_COMMANDS,
              Labels.MEASURED: LabelSource.MEASURED}[asked]
    if has[wanted]:
        return wanted
    why = ('the contract has no chain for every arm' if asked is Labels.JOINTS and StreamKind.JOINT_COMMAND in there
           else 'the bag has no such topic with messages')
    present = ', '.join(source.value for source, found in has.items() if found)
    raise ConvertError(f'{bag}: --labels {asked.value} cannot be had: {why}; there are {present}')


class Commands:
    """Everything that one arm was told, of one kind, by time."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._values: list[Any] = []

    def add(self, stamp_ns: int, value: Any) -> None:
        """Remember a command; what is some seconds older than the newest is forgotten, but for the last of it."""
        place = bisect_right(self._times, stamp_ns)
        self._times.insert(place, stamp_ns)
        self._values.insert(place, value)
        stale = bisect_right(self._times, self._times[-1] - _KEPT_NS) - 1
        if stale > 64:
            del self._times[:stale], self._values[:stale]

    def at(self, stamp_ns: int) -> Any:
        """The command in force at an instant, None if there was none yet."""
        place = bisect_right(self._times, stamp_ns)
        return self._values[place - 1] if place else None

    def forget_before(self, stamp_ns: int) -> None:
        """Drop what was commanded earlier."""
        place = bisect_right(self._times, stamp_ns)
        del self._times[:place], self._values[:place]


class Labeller:
    """The commands of all arms."""

    def __init__(self, contract: RobotContract, source: LabelSource, routes: Mapping[str, Route],
                 chains: Mapping[str, ForwardKinematics]) -> None:
        """Take commands from the kinds of ``source`` only; ``chains`` are needed for joint commands."""
        self.source = source
        self._contract, self._chains = contract, chains
        self._poses = {name: Commands() for name in contract.arms}
        self._openings = {name: Commands() for name in contract.arms}
        kinds = {(route.name, route.kind) for route in routes.values()}
        self._pose_kind = {name: next((kind for kind in POSE_KINDS[source] if (name, kind) in kinds), None)
                           for name in contract.arms}
        self._gripper_kind = {name: next((kind for kind in GRIPPER_KINDS[source] if (name, kind) in kinds), None)
                              for name in contract.arms}

    @property
    def poses_commanded(self) -> bool:
        """Whether there are labels for poses."""
        return self.source is not LabelSource.MEASURED

    @property
    def grippers_commanded(self) -> bool:
        """Whether there are labels for grippers; they squeeze, which measured ones do not."""
        return any(self._gripper_kind.values())

    def add(self, route: Route, message: Any, now_ns: int) -> None:
        """Take one command.

        Raises:
            CommandError: it is not finite, of another frame, or of another number of joints.
        """
        arm = self._contract.arms[route.name]
        if route.kind is self._pose_kind[route.name]:
            pose = self._pose(route, arm, message)
            if pose is not None:
                self._poses[route.name].add(_due_ns(message, now_ns), pose)
        if route.kind is self._gripper_kind[route.name]:
            opening = _opening(route, arm, message)
            if opening is not None:
                self._openings[route.name].add(_due_ns(message, now_ns), opening)

    def begin(self, now_ns: int) -> None:
        """An episode begins: what was commanded well before it was meant for another scene."""
        for commands in (*self._poses.values(), *self._openings.values()):
            commands.forget_before(now_ns - _BEFORE_NS)

    def at(self, stamp_ns: int, measured: Callable[[], tuple[ArmState, ...]]) -> tuple[Array | None, Array | None]:
        """(A, 4, 4) world_from_ee and (A,) openings in force at an instant; None where nothing is commanded at all.

        ``measured`` gives the state of every arm at that instant, for an arm that was told nothing.
        """
        poses = [commands.at(stamp_ns) for commands in self._poses.values()] if self.poses_commanded else []
        openings = [commands.at(stamp_ns) for commands in self._openings.values()] if self.grippers_commanded else []
        if any(value is None for value in (*poses, *openings)):
            states = measured()
            poses = [state.world_from_ee if pose is None else pose for pose, state in zip(poses, states, strict=False)]
            openings = [state.gripper if opening is None else opening
                        for opening, state in zip(openings, states, strict=False)]
        return np.stack(poses) if poses else None, np.array(openings) if openings else None

    def _pose(self, route: Route, arm: Arm, message: Any) -> Array | None:
        if route.kind is StreamKind.JOINT_COMMAND:
            return self._pose_of_joints(route, arm, message)
        frame = message.header.frame_id.removeprefix('/')
        if frame and frame != arm.base_frame:
            raise CommandError(f'is in frame {frame!r}, expected {arm.base_frame!r}')
        place, turn = message.pose.position, message.pose.orientation
        quaternion = (turn.x, turn.y, turn.z, turn.w)
        numbers = (place.x, place.y, place.z, *quaternion)
        if not all(map(math.isfinite, numbers)) or not abs(math.hypot(*quaternion) - 1.0) < 1e-2:
            raise CommandError(f'has position and quaternion {numbers}, expected finite numbers and length 1')
        return arm.world_from_base.matrix @ pose_from_quaternion(numbers[:3], quaternion)

    def _pose_of_joints(self, route: Route, arm: Arm, message: Any) -> Array | None:
        # Commands to a single joint's group, or to all joints, are none of the arm's.
        if message.name != 'arm':
            return None
        positions = np.asarray(message.cmd, np.float64)
        if positions.shape != (len(arm.joints),) or not np.isfinite(positions).all():
            raise CommandError(f'has cmd {positions.tolist()}, expected {len(arm.joints)} finite positions')
        return arm.world_from_base.matrix @ self._chains[route.name].base_from_ee(positions)


def _opening(route: Route, arm: Arm, message: Any) -> float | None:
    if route.kind is StreamKind.GRIPPER_COMMAND:
        if message.name != arm.gripper_command.joint:
            return None
        value, opening = message.cmd, opening_from_reading(message.cmd, arm.gripper_command)
    else:
        value = message.gripper if route.kind is StreamKind.TARGET else message.data
        opening = min(max(value, 0.0), 1.0)
    if not math.isfinite(value):
        raise CommandError(f'asks the gripper for {value}, expected a number')
    return float(opening)


def _due_ns(message: Any, now_ns: int) -> int:
    """When a command holds from: what it says itself, or when it came if that is of another clock."""
    stamp_ns = stamp_to_ns(message.header.stamp) if hasattr(message, 'header') else 0
    return stamp_ns if abs(stamp_ns - now_ns) < _KEPT_NS else now_ns
