"""What is known of one stream: its topic, its message type, its quality of service, and who needs it.

Plain facts that need neither ROS nor a contract. Which streams a robot has is decided in ``core.stream_table``;
``ros.qos`` makes endpoints of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core import topics


class Reliability(Enum):
    """What a subscription to a sensor asks for."""

    BEST_EFFORT = 'best_effort'
    RELIABLE = 'reliable'


class Role(Enum):
    """What a topic is for, which decides its quality of service."""

    SENSOR = 'sensor'
    STATE = 'state'
    TRANSFORM = 'transform'
    STATIC_TRANSFORM = 'static_transform'
    TARGET = 'target'
    COMMAND = 'command'
    LATCHED = 'latched'
    PLAN = 'plan'
    STATUS = 'status'


@dataclass(frozen=True, kw_only=True)
class StreamQos:
    """Quality of service, as far as the suite chooses it."""

    depth: int
    """Messages that wait for a slow end."""
    reliability: Reliability = Reliability.RELIABLE
    latched: bool = False
    """Transient local: who comes late hears the last ones too."""


ROLE_QOS: Mapping[Role, StreamQos] = {
    # The newest image is the only one that matters, and a queue would make it old.
    Role.SENSOR: StreamQos(depth=1, reliability=Reliability.BEST_EFFORT),
    # Best effort hears reliable publishers as well, the other way round nothing arrives.
    Role.STATE: StreamQos(depth=10, reliability=Reliability.BEST_EFFORT),
    # As tf2's own listener: many publishers share the topic, and a dropped edge hurts for long.
    Role.TRANSFORM: StreamQos(depth=100),
    Role.STATIC_TRANSFORM: StreamQos(depth=100, latched=True),
    Role.TARGET: StreamQos(depth=1),
    Role.COMMAND: StreamQos(depth=10),
    Role.LATCHED: StreamQos(depth=1, latched=True),
    Role.PLAN: StreamQos(depth=5),
    Role.STATUS: StreamQos(depth=10),
}


class StreamKind(Enum):
    """What the messages of a stream say."""

    IMAGE = auto()
    CAMERA_INFO = auto()
    JOINT_STATE = auto()
    TRANSFORMS = auto()
    STATIC_TRANSFORMS = auto()
    TARGET = auto()
    TARGET_POSE = auto()
    TARGET_GRIPPER = auto()
    JOINT_COMMAND = auto()
    GRIPPER_COMMAND = auto()
    PROMPT = auto()
    ACTIVE_PROMPT = auto()
    EPISODE_MARK = auto()
    CLOCK = auto()
    DEAD_MAN = auto()
    CHUNK = auto()
    PLAN_MARKERS = auto()
    STATUS = auto()
    IK_STATUS = auto()
    DIAGNOSTICS = auto()


CAMERA_KINDS = (StreamKind.IMAGE, StreamKind.CAMERA_INFO)
"""What cameras publish."""
COMMAND_KINDS = (StreamKind.TARGET, StreamKind.TARGET_POSE, StreamKind.TARGET_GRIPPER, StreamKind.JOINT_COMMAND,
                 StreamKind.GRIPPER_COMMAND)
"""What says where an arm and its gripper shall be."""
PROMPT_KINDS = (StreamKind.PROMPT, StreamKind.ACTIVE_PROMPT)
"""What says what is to be done."""


class Need(Enum):
    """What it means to a reader that a stream is silent."""

    STEADY = auto()
    """It flows all the time: silent or slow, the reader cannot work."""
    ONCE = auto()
    """One message is enough: it is latched, or never changes."""
    OPTIONAL = auto()
    """It flows when somebody acts, or the reader has another way."""
    ONCE_BEGUN = auto()
    """Nobody need publish it; but who begins must go on."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Who reads a stream, and how much each needs it; None: that one does not read it."""

    node: Need | None = None
    """The policy node."""
    recorder: Need | None = None
    converter: Need | None = None


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One stream of a robot."""

    topic: str
    """As in the contract: relative to the robot's namespace unless it begins with a slash."""
    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    kind: StreamKind
    name: str = ''
    """Of its camera or arm; empty for a stream of the whole robot."""
    label: str
    """Short name for people; begins with :attr:`name`."""
    role: Role
    """Quality of service of whoever subscribes."""
    need: Needs
    rate_hz: float = 0.0
    """Expected; 0 where none is."""
    max_age_s: float = 1.0
    """An older message is not acted upon."""


def _fixed(kind: StreamKind, topic: str, type_name: str, role: Role, *, label: str = '',
           need: Needs | None = None) -> StreamSpec:
    return StreamSpec(kind=kind, topic=topic, type_name=type_name, role=role, label=label or topic.split('/')[-1],
                      need=need or Needs())


FIXED_STREAMS: Mapping[StreamKind, StreamSpec] = {spec.kind: spec for spec in (
    # Where TF lacks an arm, the converter places it by its joints.
    _fixed(StreamKind.TRANSFORMS, '/tf', 'tf2_msgs/msg/TFMessage', Role.TRANSFORM,
           need=Needs(node=Need.STEADY, recorder=Need.STEADY, converter=Need.OPTIONAL)),
    _fixed(StreamKind.STATIC_TRANSFORMS, '/tf_static', 'tf2_msgs/msg/TFMessage', Role.STATIC_TRANSFORM,
           need=Needs(node=Need.ONCE, recorder=Need.ONCE, converter=Need.OPTIONAL)),
    _fixed(StreamKind.ACTIVE_PROMPT, topics.ACTIVE_PROMPT, 'std_msgs/msg/String', Role.LATCHED,
           need=Needs(recorder=Need.OPTIONAL, converter=Need.OPTIONAL)),
    _fixed(StreamKind.EPISODE_MARK, topics.EPISODE, 'std_msgs/msg/String', Role.COMMAND,
           need=Needs(recorder=Need.OPTIONAL, converter=Need.OPTIONAL)),
    # rclpy subscribes to it by itself, under use_sim_time.
    _fixed(StreamKind.CLOCK, '/clock', 'rosgraph_msgs/msg/Clock', Role.STATE,
           need=Needs(node=Need.ONCE_BEGUN, recorder=Need.ONCE_BEGUN, converter=Need.OPTIONAL)),
    _fixed(StreamKind.DEAD_MAN, topics.DEAD_MAN, 'std_msgs/msg/Bool', Role.TARGET, need=Needs(node=Need.OPTIONAL)),
    _fixed(StreamKind.CHUNK, topics.CHUNK, 'apt_msgs/msg/ActionChunk', Role.PLAN),
    _fixed(StreamKind.PLAN_MARKERS, topics.PLAN_MARKERS, 'visualization_msgs/msg/MarkerArray', Role.TARGET),
    _fixed(StreamKind.STATUS, topics.STATUS, 'apt_msgs/msg/PolicyStatus', Role.STATUS),
    _fixed(StreamKind.DIAGNOSTICS, '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', Role.STATUS),
)}
"""Streams of which no contract decides anything."""
