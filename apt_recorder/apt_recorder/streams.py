"""Which topics a recording of one robot holds, and what is expected of each.

All of it follows from the contract. Who publishes them, and how well, is not known here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core import topics
from apt_policy.core.contract import ImageTransport, RobotContract
from apt_policy.ros.qos import Role


class Need(Enum):
    """What it means that a stream is silent."""

    STEADY = auto()
    """It flows all the time: silent or slow, there is nothing to record."""
    ONCE = auto()
    """One message is enough: it is latched, or never changes."""
    OPTIONAL = auto()
    """It flows when somebody acts."""
    ONCE_BEGUN = auto()
    """Nobody need publish it; but who begins must go on."""


class Stamp(Enum):
    """Where a message says when it was made."""

    HEADER = auto()
    NONE = auto()


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One topic to record."""

    topic: str
    """As in the contract, relative."""
    kind: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    label: str
    """Short name for people."""
    role: Role
    """Decides the quality of service where no publisher is known yet."""
    need: Need
    stamp: Stamp = Stamp.NONE
    rate_hz: float = 0.0
    """Expected; 0 where none is."""
    max_age_s: float = 1.0
    """A steady stream that is silent for longer has died."""
    depth: int = 100
    """Messages that may wait in the middleware."""


class SelectionError(ValueError):
    """A stream to leave out that does not exist; the message lists those that do."""


def streams_of(contract: RobotContract, *, without: Sequence[str] = ()) -> tuple[StreamSpec, ...]:
    """Every stream of a robot, a simulated clock among them.

    Args:
        without: labels of streams to leave out; a camera's or arm's name leaves out all of its streams.

    Raises:
        SelectionError: ``without`` names what is not there.
    """
    clock = StreamSpec(topic='/clock', kind='rosgraph_msgs/msg/Clock', label='clock', role=Role.STATE,
                       need=Need.ONCE_BEGUN)
    everything = [*_cameras(contract), *_arms(contract), *_frames(), *_commands(contract), *_words(contract), clock]
    known = {name for spec in everything for name in _names(spec)}
    if unknown := sorted(set(without) - known):
        raise SelectionError(f'no stream {", ".join(map(repr, unknown))} to leave out; '
                             f'there are {", ".join(sorted(known))}')
    return tuple(spec for spec in everything if not set(_names(spec)) & set(without))


def _names(spec: StreamSpec) -> tuple[str, ...]:
    return spec.label, spec.label.split()[0]


def _cameras(contract: RobotContract) -> Iterator[StreamSpec]:
    for name, camera in contract.cameras.items():
        compressed = camera.transport is ImageTransport.COMPRESSED
        yield StreamSpec(
            topic=camera.image_topic, kind=f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}',
            label=name, role=Role.SENSOR, need=Need.STEADY, stamp=Stamp.HEADER, rate_hz=camera.rate_hz,
            max_age_s=max(camera.max_age_s, 2.0 / camera.rate_hz), depth=30)
        yield StreamSpec(topic=camera.info_topic, kind='sensor_msgs/msg/CameraInfo', label=f'{name} info',
                         role=Role.SENSOR, need=Need.ONCE, depth=30)


def _arms(contract: RobotContract) -> Iterator[StreamSpec]:
    for name, arm in contract.arms.items():
        yield StreamSpec(
            topic=arm.joint_states_topic, kind='sensor_msgs/msg/JointState', label=f'{name} joints',
            role=Role.STATE, need=Need.STEADY, stamp=Stamp.HEADER, rate_hz=arm.state_rate_hz,
            max_age_s=max(arm.max_age_s, 2.0 / arm.state_rate_hz))


def _frames() -> Iterator[StreamSpec]:
    yield StreamSpec(topic='/tf', kind='tf2_msgs/msg/TFMessage', label='tf', role=Role.TRANSFORM, need=Need.STEADY)
    yield StreamSpec(topic='/tf_static', kind='tf2_msgs/msg/TFMessage', label='tf_static',
                     role=Role.STATIC_TRANSFORM, need=Need.ONCE)


def _commands(contract: RobotContract) -> Iterator[StreamSpec]:
    for name, arm in contract.arms.items():
        for topic, kind, what in (
                (topics.target(name), 'apt_msgs/msg/EndEffectorTarget', 'target'),
                (topics.target_pose(name), 'geometry_msgs/msg/PoseStamped', 'target pose'),
                (topics.target_gripper(name), 'std_msgs/msg/Float64', 'target gripper'),
                (arm.joint_group_topic, 'interbotix_xs_msgs/msg/JointGroupCommand', 'joint command'),
                (arm.joint_single_topic, 'interbotix_xs_msgs/msg/JointSingleCommand', 'gripper command')):
            yield StreamSpec(topic=topic, kind=kind, label=f'{name} {what}', role=Role.COMMAND,
                             need=Need.OPTIONAL)


def _words(contract: RobotContract) -> Iterator[StreamSpec]:
    for topic, label, role in ((contract.prompt_topic, 'prompt', Role.COMMAND),
                               (topics.ACTIVE_PROMPT, 'active_prompt', Role.LATCHED),
                               (topics.EPISODE, 'episode', Role.COMMAND)):
        yield StreamSpec(topic=topic, kind='std_msgs/msg/String', label=label, role=role, need=Need.OPTIONAL)
