"""Description of a stream: topic, message type, quality of service (QoS), and the programs that read it.

``core.stream_table`` lists the streams of a robot; ``ros.qos`` creates their endpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core import topics


class Reliability(Enum):
    """Reliability of a sensor subscription."""

    BEST_EFFORT = 'best_effort'
    RELIABLE = 'reliable'


class Role(Enum):
    """Purpose of a topic, which selects its QoS."""

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
    """QoS policies that the suite sets."""

    depth: int
    """Depth of the message queue."""
    reliability: Reliability = Reliability.RELIABLE
    latched: bool = False
    """True for transient local durability: late subscribers receive the last messages too."""


ROLE_QOS: Mapping[Role, StreamQos] = {
    # The newest image is the only one that matters, and a queue would make it old.
    Role.SENSOR: StreamQos(depth=1, reliability=Reliability.BEST_EFFORT),
    # A best-effort subscription also matches reliable publishers; a reliable one matches only reliable publishers.
    Role.STATE: StreamQos(depth=10, reliability=Reliability.BEST_EFFORT),
    # The QoS of tf2's listener: many publishers share the topic, and a lost transform is missing for long.
    Role.TRANSFORM: StreamQos(depth=100),
    Role.STATIC_TRANSFORM: StreamQos(depth=100, latched=True),
    Role.TARGET: StreamQos(depth=1),
    Role.COMMAND: StreamQos(depth=10),
    Role.LATCHED: StreamQos(depth=1, latched=True),
    Role.PLAN: StreamQos(depth=5),
    Role.STATUS: StreamQos(depth=10),
}


class StreamKind(Enum):
    """Content of a stream's messages."""

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
"""Kinds of the streams that cameras publish."""
COMMAND_KINDS = (StreamKind.TARGET, StreamKind.TARGET_POSE, StreamKind.TARGET_GRIPPER, StreamKind.JOINT_COMMAND,
                 StreamKind.GRIPPER_COMMAND)
"""Kinds of the streams that command an arm or its gripper."""
PROMPT_KINDS = (StreamKind.PROMPT, StreamKind.ACTIVE_PROMPT)
"""Kinds of the streams that carry instructions."""


class Need(Enum):
    """Effect of a silent stream on a reader."""

    STEADY = auto()
    """Continuous stream; the reader cannot work while it is silent or slow."""
    ONCE = auto()
    """Constant or latched stream; one message is enough."""
    OPTIONAL = auto()
    """Stream with messages on events only, or one that the reader can do without."""
    ONCE_BEGUN = auto()
    """Optional stream that must stay continuous once it has started."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Need of each reader for a stream; None for a program that does not read it."""

    node: Need | None = None
    """Need of the policy node."""
    recorder: Need | None = None
    converter: Need | None = None


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One stream of a robot."""

    topic: str
    """Topic as in the contract, relative to the robot's namespace unless it begins with a slash."""
    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    kind: StreamKind
    name: str = ''
    """Name of the camera or arm; empty for a stream of the whole robot."""
    label: str
    """Short name for the user; begins with :attr:`name`."""
    role: Role
    """Role that selects the QoS of subscriptions."""
    need: Needs
    rate_hz: float = 0.0
    """Expected rate [Hz]; 0 if none is expected."""
    max_age_s: float = 1.0
    """Age above which a message is stale [s]."""


def _fixed(kind: StreamKind, topic: str, type_name: str, role: Role, *, label: str = '',
           need: Needs | None = None) -> StreamSpec:
    return StreamSpec(kind=kind, topic=topic, type_name=type_name, role=role, label=label or topic.split('/')[-1],
                      need=need or Needs())


FIXED_STREAMS: Mapping[StreamKind, StreamSpec] = {spec.kind: spec for spec in (
    # The converter computes the pose of an arm that is missing in TF from its joints.
    _fixed(StreamKind.TRANSFORMS, '/tf', 'tf2_msgs/msg/TFMessage', Role.TRANSFORM,
           need=Needs(node=Need.STEADY, recorder=Need.STEADY, converter=Need.OPTIONAL)),
    _fixed(StreamKind.STATIC_TRANSFORMS, '/tf_static', 'tf2_msgs/msg/TFMessage', Role.STATIC_TRANSFORM,
           need=Needs(node=Need.ONCE, recorder=Need.ONCE, converter=Need.OPTIONAL)),
    _fixed(StreamKind.ACTIVE_PROMPT, topics.ACTIVE_PROMPT, 'std_msgs/msg/String', Role.LATCHED,
           need=Needs(recorder=Need.OPTIONAL, converter=Need.OPTIONAL)),
    _fixed(StreamKind.EPISODE_MARK, topics.EPISODE, 'std_msgs/msg/String', Role.COMMAND,
           need=Needs(recorder=Need.OPTIONAL, converter=Need.OPTIONAL)),
    # rclpy itself subscribes to it under use_sim_time.
    _fixed(StreamKind.CLOCK, '/clock', 'rosgraph_msgs/msg/Clock', Role.STATE,
           need=Needs(node=Need.ONCE_BEGUN, recorder=Need.ONCE_BEGUN, converter=Need.OPTIONAL)),
    _fixed(StreamKind.DEAD_MAN, topics.DEAD_MAN, 'std_msgs/msg/Bool', Role.TARGET, need=Needs(node=Need.OPTIONAL)),
    _fixed(StreamKind.CHUNK, topics.CHUNK, 'apt_msgs/msg/ActionChunk', Role.PLAN),
    _fixed(StreamKind.PLAN_MARKERS, topics.PLAN_MARKERS, 'visualization_msgs/msg/MarkerArray', Role.TARGET),
    _fixed(StreamKind.STATUS, topics.STATUS, 'apt_msgs/msg/PolicyStatus', Role.STATUS),
    _fixed(StreamKind.DIAGNOSTICS, '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', Role.STATUS),
)}
"""Streams that are the same for every contract."""
