"""Table of all streams of a robot, derived from its contract.

The policy node, the recorder, the converter and all publishers take topics, types, QoS and need from it.
"""

from collections.abc import Iterator

from apt_policy.core import topics
from apt_policy.core.contract import ImageTransport, RobotContract
from apt_policy.core.stream_spec import FIXED_STREAMS, Need, Needs, Role, StreamKind, StreamSpec

IMAGE_TYPES = {ImageTransport.RAW: 'sensor_msgs/msg/Image',
               ImageTransport.COMPRESSED: 'sensor_msgs/msg/CompressedImage'}
"""Message type of an image topic by transport."""
_IN_ORDER = (StreamKind.ACTIVE_PROMPT, StreamKind.EPISODE_MARK, StreamKind.CLOCK, StreamKind.DEAD_MAN, StreamKind.CHUNK,
             StreamKind.PLAN_MARKERS, StreamKind.STATUS, StreamKind.DIAGNOSTICS)


class StreamTable:
    """Streams of one robot; iteration yields all of them in the order of reports."""

    def __init__(self, contract: RobotContract) -> None:
        """Derive the table from ``contract``."""
        self._streams = {(spec.kind, spec.name): spec for spec in _all_streams(contract)}

    def __iter__(self) -> Iterator[StreamSpec]:
        return iter(self._streams.values())

    def find(self, kind: StreamKind, name: str = '') -> StreamSpec:
        """Return the stream of a kind.

        Args:
            kind: content of its messages.
            name: camera or arm name, for kinds with one stream per camera or arm.

        Raises:
            KeyError: the robot has no such stream.
        """
        return self._streams[kind, name]


def _all_streams(contract: RobotContract) -> Iterator[StreamSpec]:
    yield from _camera_streams(contract)
    yield from _joint_states(contract)
    yield FIXED_STREAMS[StreamKind.TRANSFORMS]
    yield FIXED_STREAMS[StreamKind.STATIC_TRANSFORMS]
    yield from _command_streams(contract)
    yield StreamSpec(
        topic=contract.prompt_topic, type_name='std_msgs/msg/String', kind=StreamKind.PROMPT, label='prompt',
        role=Role.COMMAND, need=Needs(node=Need.OPTIONAL, recorder=Need.OPTIONAL, converter=Need.OPTIONAL))
    for kind in _IN_ORDER:
        yield FIXED_STREAMS[kind]
    for name in contract.arms:
        yield StreamSpec(topic=topics.ik_status(name), type_name='apt_msgs/msg/IkStatus', kind=StreamKind.IK_STATUS,
                         name=name, label=f'{name} IK status', role=Role.STATUS, need=Needs())


def _camera_streams(contract: RobotContract) -> Iterator[StreamSpec]:
    for name, camera in contract.cameras.items():
        yield StreamSpec(
            topic=camera.image_topic, type_name=IMAGE_TYPES[camera.transport], kind=StreamKind.IMAGE, name=name,
            label=name, role=Role.SENSOR, rate_hz=camera.rate_hz, max_age_s=camera.max_age_s,
            need=Needs(node=Need.STEADY, recorder=Need.STEADY, converter=Need.STEADY))
        yield StreamSpec(
            topic=camera.info_topic, type_name='sensor_msgs/msg/CameraInfo', kind=StreamKind.CAMERA_INFO, name=name,
            label=f'{name} info', role=Role.SENSOR,
            need=Needs(node=Need.ONCE, recorder=Need.ONCE, converter=Need.ONCE))


def _joint_states(contract: RobotContract) -> Iterator[StreamSpec]:
    for name, arm in contract.arms.items():
        yield StreamSpec(
            topic=arm.joint_states_topic, type_name='sensor_msgs/msg/JointState', kind=StreamKind.JOINT_STATE,
            name=name, label=f'{name} joints', role=Role.STATE, rate_hz=arm.state_rate_hz, max_age_s=arm.max_age_s,
            need=Needs(node=Need.STEADY, recorder=Need.STEADY, converter=Need.STEADY))


def _command_streams(contract: RobotContract) -> Iterator[StreamSpec]:
    """Yield the command streams of every arm, published by the policy and by the IK bridge."""
    for name, arm in contract.arms.items():
        for kind, topic, type_name, role, what in (
                (StreamKind.TARGET, topics.target(name), 'apt_msgs/msg/EndEffectorTarget', Role.TARGET, 'target'),
                (StreamKind.TARGET_POSE, topics.target_pose(name), 'geometry_msgs/msg/PoseStamped', Role.TARGET,
                 'target pose'),
                (StreamKind.TARGET_GRIPPER, topics.target_gripper(name), 'std_msgs/msg/Float64', Role.TARGET,
                 'target gripper'),
                (StreamKind.JOINT_COMMAND, arm.joint_group_topic, 'interbotix_xs_msgs/msg/JointGroupCommand',
                 Role.COMMAND, 'joint command'),
                (StreamKind.GRIPPER_COMMAND, arm.joint_single_topic, 'interbotix_xs_msgs/msg/JointSingleCommand',
                 Role.COMMAND, 'gripper command')):
            yield StreamSpec(topic=topic, type_name=type_name, kind=kind, name=name, label=f'{name} {what}',
                             role=role, need=Needs(recorder=Need.OPTIONAL, converter=Need.OPTIONAL))
