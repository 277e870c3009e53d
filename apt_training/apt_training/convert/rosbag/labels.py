"""Labels of frames: the commanded states of the arms.

Commands are end-effector targets or joint positions, by arm. A command holds until the next one. The label of an arm
without command is its measured state.
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
from apt_training.convert.rosbag.config import LabelMode
from apt_training.convert.rosbag.topic_routes import TopicRoute
from apt_training.convert.source import ConvertError
from apt_training.episodes.episode import LabelSource

Array = NDArray[np.float64]

POSE_KINDS = {LabelSource.TARGETS: (StreamKind.TARGET, StreamKind.TARGET_POSE),
              LabelSource.JOINT_COMMANDS: (StreamKind.JOINT_COMMAND,), LabelSource.MEASURED: ()}
"""Kinds of messages that command the pose of an arm, by label source."""
_TO_TARGETS = (StreamKind.TARGET, StreamKind.TARGET_GRIPPER, StreamKind.GRIPPER_COMMAND)
GRIPPER_KINDS = {LabelSource.TARGETS: _TO_TARGETS, LabelSource.JOINT_COMMANDS: _TO_TARGETS[::-1],
                 LabelSource.MEASURED: _TO_TARGETS}
"""Kinds of messages that command the opening of a gripper by label source, best first."""
_HISTORY_NS = 5_000_000_000
"""Time after which commands are dropped, and largest offset of a stamp from the receive time [ns]."""
_EPISODE_LEAD_NS = 1_000_000_000
"""Time before the beginning of an episode whose commands count for the episode [ns]."""


class CommandError(ValueError):
    """Error of an invalid command."""


def choose_label_source(mode: LabelMode, routes: Mapping[str, TopicRoute], contract: RobotContract, bag: str
                        ) -> LabelSource:
    """Choose the source of labels: the best one of the bag, or the requested one.

    Args:
        mode: requested source, or AUTO.
        routes: routes by topic.
        contract: the robot.
        bag: path of the bag in messages.

    Raises:
        ConvertError: the bag lacks the requested commands, or the contract lacks kinematics for them.
    """
    present_kinds = {route.kind for route in routes.values()}
    chains = all(arm.chain is not None for arm in contract.arms.values())
    has = {LabelSource.TARGETS: bool(present_kinds & {StreamKind.TARGET, StreamKind.TARGET_POSE}),
           LabelSource.JOINT_COMMANDS: StreamKind.JOINT_COMMAND in present_kinds and chains, LabelSource.MEASURED: True}
    if mode is LabelMode.AUTO:
        return next(source for source, present in has.items() if present)
    wanted = {LabelMode.TARGETS: LabelSource.TARGETS, LabelMode.JOINTS: LabelSource.JOINT_COMMANDS,
              LabelMode.MEASURED: LabelSource.MEASURED}[mode]
    if has[wanted]:
        return wanted
    lacks_chain = mode is LabelMode.JOINTS and StreamKind.JOINT_COMMAND in present_kinds
    reason = 'the contract lacks the chain of an arm' if lacks_chain else 'the bag has no such messages'
    present = ', '.join(source.value for source, found in has.items() if found)
    raise ConvertError(f'{bag}: cannot use --labels {mode.value}: {reason}; choose from {present}')


class CommandHistory:
    """Commands of one kind to one arm, by time."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._values: list[Any] = []

    def insert(self, stamp_ns: int, value: Any) -> None:
        """Insert a command, and drop old ones."""
        place = bisect_right(self._times, stamp_ns)
        self._times.insert(place, stamp_ns)
        self._values.insert(place, value)
        stale = bisect_right(self._times, self._times[-1] - _HISTORY_NS) - 1
        # Dropped in blocks: deletion moves the whole list.
        if stale > 64:
            del self._times[:stale], self._values[:stale]

    def command_at(self, stamp_ns: int) -> Any:
        """Return the command in force at a time [ns]; None before the first."""
        place = bisect_right(self._times, stamp_ns)
        return self._values[place - 1] if place else None

    def drop_before(self, stamp_ns: int) -> None:
        """Drop the commands up to a time [ns]."""
        place = bisect_right(self._times, stamp_ns)
        del self._times[:place], self._values[:place]


class Labeller:
    """Commands of all arms, from which frames get their labels."""

    def __init__(self, contract: RobotContract, source: LabelSource, routes: Mapping[str, TopicRoute],
                 chains: Mapping[str, ForwardKinematics]) -> None:
        """Use the commands of one source.

        Args:
            contract: the robot.
            source: label source.
            routes: routes by topic.
            chains: forward kinematics by arm, needed for joint commands.
        """
        self.source = source
        self._contract, self._chains = contract, chains
        self._poses = {name: CommandHistory() for name in contract.arms}
        self._openings = {name: CommandHistory() for name in contract.arms}
        kinds = {(route.name, route.kind) for route in routes.values()}
        self._pose_kind = {name: next((kind for kind in POSE_KINDS[source] if (name, kind) in kinds), None)
                           for name in contract.arms}
        self._gripper_kind = {name: next((kind for kind in GRIPPER_KINDS[source] if (name, kind) in kinds), None)
                              for name in contract.arms}

    @property
    def poses_commanded(self) -> bool:
        """True if poses are commanded."""
        return self.source is not LabelSource.MEASURED

    @property
    def grippers_commanded(self) -> bool:
        """True if grippers are commanded; a command may squeeze, which no measured opening does."""
        return any(self._gripper_kind.values())

    def add_command(self, route: TopicRoute, message: Any, now_ns: int) -> None:
        """Add a command.

        Args:
            route: route of its topic.
            message: decoded message.
            now_ns: time of its arrival [ns].

        Raises:
            CommandError: it is not finite, in another frame, or has another number of joints.
        """
        arm = self._contract.arms[route.name]
        if route.kind is self._pose_kind[route.name]:
            pose = self._pose(route, arm, message)
            if pose is not None:
                self._poses[route.name].insert(_effective_ns(message, now_ns), pose)
        if route.kind is self._gripper_kind[route.name]:
            opening = _opening(route, arm, message)
            if opening is not None:
                self._openings[route.name].insert(_effective_ns(message, now_ns), opening)

    def start_episode(self, now_ns: int) -> None:
        """Drop commands from well before the episode that begins: they were meant for another scene."""
        for commands in (*self._poses.values(), *self._openings.values()):
            commands.drop_before(now_ns - _EPISODE_LEAD_NS)

    def labels_at(self, stamp_ns: int, measured: Callable[[], tuple[ArmState, ...]]
                  ) -> tuple[Array | None, Array | None]:
        """Return the commands in force at a time.

        Args:
            stamp_ns: time [ns].
            measured: returns the state of every arm at that time, for arms without command.

        Returns:
            (A, 4, 4) world_from_ee and (A,) gripper openings; None for what the source never commands.
        """
        poses = [commands.command_at(stamp_ns) for commands in self._poses.values()] if self.poses_commanded else []
        openings = ([commands.command_at(stamp_ns) for commands in self._openings.values()]
                    if self.grippers_commanded else [])
        if any(value is None for value in (*poses, *openings)):
            states = measured()
            poses = [state.world_from_ee if pose is None else pose for pose, state in zip(poses, states, strict=False)]
            openings = [state.gripper if opening is None else opening
                        for opening, state in zip(openings, states, strict=False)]
        return np.stack(poses) if poses else None, np.array(openings) if openings else None

    def _pose(self, route: TopicRoute, arm: Arm, message: Any) -> Array | None:
        if route.kind is StreamKind.JOINT_COMMAND:
            return self._pose_of_joints(route, arm, message)
        frame = message.header.frame_id.removeprefix('/')
        if frame and frame != arm.base_frame:
            raise CommandError(f'frame is {frame!r}, expected {arm.base_frame!r}')
        place, turn = message.pose.position, message.pose.orientation
        quaternion = (turn.x, turn.y, turn.z, turn.w)
        numbers = (place.x, place.y, place.z, *quaternion)
        if not all(map(math.isfinite, numbers)) or not abs(math.hypot(*quaternion) - 1.0) < 1e-2:
            raise CommandError(f'position and quaternion are {numbers}, expected finite numbers and a unit quaternion')
        return arm.world_from_base.matrix @ pose_from_quaternion(numbers[:3], quaternion)

    def _pose_of_joints(self, route: TopicRoute, arm: Arm, message: Any) -> Array | None:
        # Commands to another joint group are not for the arm.
        if message.name != 'arm':
            return None
        positions = np.asarray(message.cmd, np.float64)
        if positions.shape != (len(arm.joints),) or not np.isfinite(positions).all():
            raise CommandError(f'cmd is {positions.tolist()}, expected {len(arm.joints)} finite positions')
        return arm.world_from_base.matrix @ self._chains[route.name].base_from_ee(positions)


def _opening(route: TopicRoute, arm: Arm, message: Any) -> float | None:
    if route.kind is StreamKind.GRIPPER_COMMAND:
        if message.name != arm.gripper_command.joint:
            return None
        value, opening = message.cmd, opening_from_reading(message.cmd, arm.gripper_command)
    else:
        value = message.gripper if route.kind is StreamKind.TARGET else message.data
        opening = min(max(value, 0.0), 1.0)
    if not math.isfinite(value):
        raise CommandError(f'gripper opening is {value}, expected a finite number')
    return float(opening)


def _effective_ns(message: Any, now_ns: int) -> int:
    """Return the time from which a command holds [ns]: its stamp, or its arrival if the stamp is on another clock."""
    stamp_ns = stamp_to_ns(message.header.stamp) if hasattr(message, 'header') else 0
    return stamp_ns if abs(stamp_ns - now_ns) < _HISTORY_NS else now_ns
