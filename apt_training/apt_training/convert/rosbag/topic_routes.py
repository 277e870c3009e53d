"""Routes from the topics of a bag to the streams of the robot, with a check that the bag has all of them.

The contract names topics relative to the robot's namespace; a bag has full names.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from apt_policy.core.contract import RobotContract
from apt_policy.core.stream_spec import CAMERA_KINDS, Need, StreamKind, StreamSpec
from apt_policy.core.stream_table import IMAGE_TYPES, StreamTable
from apt_training.convert.rosbag.bag_reader import TopicSummary
from apt_training.convert.rosbag.config import RosbagConversionConfig
from apt_training.convert.source import ConvertError

TF = 'tf'
"""Name of the stream of transforms."""
# Kinds whose header stamps are checked against the receive times.
_STAMPED = (StreamKind.IMAGE, StreamKind.JOINT_STATE, StreamKind.TRANSFORMS)
# Names in reports of streams that several topics may carry.
_REPORT_NAMES = {StreamKind.ACTIVE_PROMPT: 'prompt', StreamKind.EPISODE_MARK: 'episode marks'}


@dataclass(frozen=True, kw_only=True)
class TopicRoute:
    """Topic of a bag and its stream."""

    topic: str
    """Full name in the bag."""
    spec: StreamSpec
    """Stream of the robot's table."""
    type_names: tuple[str, ...]
    """Allowed message types."""

    @property
    def kind(self) -> StreamKind:
        """Kind of the stream."""
        return self.spec.kind

    @property
    def name(self) -> str:
        """Name of the camera or arm; ``tf`` for transforms."""
        return self.spec.name or _REPORT_NAMES.get(self.kind, self.spec.label)

    @property
    def is_required(self) -> bool:
        """True if an episode needs the stream."""
        return self.spec.need.converter in (Need.STEADY, Need.ONCE)

    @property
    def stream(self) -> str:
        """Name in reports."""
        return f'{self.name} joint_states' if self.kind is StreamKind.JOINT_STATE else self.name

    @property
    def is_stamped(self) -> bool:
        """True if the messages have stamps whose clock is checked."""
        return self.kind in _STAMPED


def find_routes(contract: RobotContract, config: RosbagConversionConfig, topics: Mapping[str, TopicSummary], *, bag: str
              ) -> dict[str, TopicRoute]:
    """Find the streams of a bag.

    Args:
        contract: the robot.
        config: cameras in use and namespace of the robot.
        topics: topics of the bag by full name.
        bag: path of the bag in messages.

    Returns:
        Routes by topic.

    Raises:
        ConvertError: a required topic is missing, empty or of another type; names all of them.
    """
    routes: dict[str, TopicRoute] = {}
    problems: list[str] = []
    for route in _expected_routes(contract, config, topics):
        found = topics.get(route.topic)
        if found is None or not found.messages:
            if route.is_required:
                problem = 'is missing' if found is None else 'has no messages'
                problems.append(f'{route.topic} ({route.stream}) {problem}')
        elif found.type_name not in route.type_names:
            problems.append(f'{route.topic} ({route.stream}) has type {found.type_name}, expected '
                            f'{" or ".join(route.type_names)}')
        else:
            routes[route.topic] = route
    if problems:
        raise ConvertError(f'{bag} does not fit the contract {contract.name!r}:\n  ' + '\n  '.join(problems)
                           + f'\nit has {", ".join(sorted(topics)) or "no topics"}; correct the contract, or set the '
                             "robot's namespace (--namespace) or the cameras to use (--cameras)")
    return routes


def _expected_routes(contract: RobotContract, config: RosbagConversionConfig, topics: Iterable[str]
                     ) -> Iterator[TopicRoute]:
    """Yield the route of each stream that the converter reads, present in the bag or not."""
    cameras = tuple(contract.cameras) if config.cameras is None else config.cameras
    specs = [spec for spec in StreamTable(contract) if spec.need.converter is not None
             and (spec.kind not in CAMERA_KINDS or spec.name in cameras)]
    # Cameras in the requested order, then the other streams.
    for spec in sorted(specs, key=lambda one: cameras.index(one.name) if one.kind in CAMERA_KINDS else len(cameras)):
        topic = _full_name(spec.topic, config.namespace)
        if spec.kind is not StreamKind.IMAGE:
            yield TopicRoute(topic=topic, spec=spec, type_names=(spec.type_name,))
            continue
        # Recordings may have the compressed topic of image_transport instead.
        if topic not in topics and f'{topic}/compressed' in topics:
            topic = f'{topic}/compressed'
        yield TopicRoute(topic=topic, spec=spec, type_names=tuple(IMAGE_TYPES.values()))


def _full_name(topic: str, namespace: str) -> str:
    return topic if topic.startswith('/') else '/' + '/'.join(filter(None, (namespace, topic)))
