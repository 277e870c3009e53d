"""Which topic of a bag is which stream of the robot, and what is wrong with the bag as a whole.

The contract names topics relative to the robot's namespace; a bag has full names. Nothing is
read here but the bag's list of topics.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from apt_policy.core import topics
from apt_policy.core.contract import RobotContract
from apt_training.convert.rosbag.reading import BagTopic
from apt_training.convert.rosbag.settings import BagSettings
from apt_training.convert.source import ConvertError

TF = 'tf'
"""Name of the stream of transforms."""
CLOCK = '/clock'


class Role(Enum):
    """What the messages of a topic are for."""

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
    MARK = auto()
    CLOCK = auto()


_STAMPED = (Role.IMAGE, Role.JOINT_STATE, Role.TRANSFORMS)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where the messages of one topic go."""

    topic: str
    """Full name, as in the bag."""
    role: Role
    name: str
    """Of the camera or arm; ``tf`` for transforms."""
    kinds: tuple[str, ...]
    """Message types that it may have."""
    required: bool = False

    @property
    def stream(self) -> str:
        """As reports call it."""
        return f'{self.name} joint_states' if self.role is Role.JOINT_STATE else self.name

    @property
    def is_stamped(self) -> bool:
        """Whether the stream's clock is looked at."""
        return self.role in _STAMPED


def routes_of(contract: RobotContract, settings: BagSettings, there: Mapping[str, BagTopic], *, bag: str
              ) -> dict[str, Route]:
    """By topic, every stream that the bag has.

    Args:
        contract: the robot.
        settings: which cameras, and the robot's namespace.
        there: the bag's topics.
        bag: named in errors.

    Raises:
        ConvertError: naming every topic that is missing, empty or of another type.
    """
    routes: dict[str, Route] = {}
    problems: list[str] = []
    for route in _all(contract, settings, there):
        found = there.get(route.topic)
        if found is None or not found.messages:
            if route.required:
                lack = 'is missing' if found is None else 'has no messages'
                problems.append(f'{route.topic} ({route.stream}) {lack}')
        elif found.kind not in route.kinds:
            problems.append(f'{route.topic} ({route.stream}) has type {found.kind}, expected '
                            f'{" or ".join(route.kinds)}')
        else:
            routes[route.topic] = route
    if problems:
        raise ConvertError(f'{bag} does not fit the contract {contract.name!r}:\n  ' + '\n  '.join(problems)
                           + f'\nit has {", ".join(sorted(there)) or "no topics"}; correct the contract, name the '
                             "robot's namespace (--namespace) or the cameras to use (--cameras)")
    return routes


def _all(contract: RobotContract, settings: BagSettings, there: Iterable[str]) -> Iterator[Route]:
    def full(topic: str) -> str:
        return topic if topic.startswith('/') else '/' + '/'.join(filter(None, (settings.namespace, topic)))

    for name in contract.cameras if settings.cameras is None else settings.cameras:
        camera = contract.cameras[name]
        image = full(camera.image_topic)
        # Who saves disk records what image_transport compressed.
        image = f'{image}/compressed' if image not in there and f'{image}/compressed' in there else image
        yield Route(topic=image, role=Role.IMAGE, name=name, required=True,
                    kinds=('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'))
        yield Route(topic=full(camera.info_topic), role=Role.CAMERA_INFO, name=name, required=True,
                    kinds=('sensor_msgs/msg/CameraInfo',))
    for name, arm in contract.arms.items():
        yield Route(topic=full(arm.joint_states_topic), role=Role.JOINT_STATE, name=name, required=True,
                    kinds=('sensor_msgs/msg/JointState',))
        for topic, role, kind in (
                (topics.target(name), Role.TARGET, 'apt_msgs/msg/EndEffectorTarget'),
                (topics.target_pose(name), Role.TARGET_POSE, 'geometry_msgs/msg/PoseStamped'),
                (topics.target_gripper(name), Role.TARGET_GRIPPER, 'std_msgs/msg/Float64'),
                (arm.joint_group_topic, Role.JOINT_COMMAND, 'interbotix_xs_msgs/msg/JointGroupCommand'),
                (arm.joint_single_topic, Role.GRIPPER_COMMAND, 'interbotix_xs_msgs/msg/JointSingleCommand')):
            yield Route(topic=full(topic), role=role, name=name, kinds=(kind,))
    tf = ('tf2_msgs/msg/TFMessage',)
    yield Route(topic='/tf', role=Role.TRANSFORMS, name=TF, kinds=tf)
    yield Route(topic='/tf_static', role=Role.STATIC_TRANSFORMS, name='tf_static', kinds=tf)
    for topic in (contract.prompt_topic, topics.ACTIVE_PROMPT):
        yield Route(topic=full(topic), role=Role.PROMPT, name='prompt', kinds=('std_msgs/msg/String',))
    yield Route(topic=full(topics.EPISODE), role=Role.MARK, name='episode marks', kinds=('std_msgs/msg/String',))
    yield Route(topic=CLOCK, role=Role.CLOCK, name='clock', kinds=('rosgraph_msgs/msg/Clock',))
