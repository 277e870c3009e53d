"""Which topic of a bag is which stream of the robot, and what is wrong with the bag as a whole.

The contract names topics relative to the robot's namespace; a bag has full names. Nothing is
read here but the bag's list of topics.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from apt_policy.core.contract import RobotContract
from apt_policy.core.stream_spec import CAMERA_KINDS, Need, StreamKind, StreamSpec
from apt_policy.core.stream_table import IMAGE_TYPES, StreamTable
from apt_training.convert.rosbag.reading import BagTopic
from apt_training.convert.rosbag.settings import BagSettings
from apt_training.convert.source import ConvertError

TF = 'tf'
"""Name of the stream of transforms."""
_STAMPED = (StreamKind.IMAGE, StreamKind.JOINT_STATE, StreamKind.TRANSFORMS)
# Reports tell words apart by what they say, not by who says them.
_REPORTED = {StreamKind.ACTIVE_PROMPT: 'prompt', StreamKind.EPISODE_MARK: 'episode marks'}


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where the messages of one topic go."""

    topic: str
    """Full name, as in the bag."""
    spec: StreamSpec
    """The stream that they are, of the robot's table."""
    type_names: tuple[str, ...]
    """Message types that they may have."""

    @property
    def kind(self) -> StreamKind:
        """What they say."""
        return self.spec.kind

    @property
    def name(self) -> str:
        """Of the camera or arm; ``tf`` for transforms."""
        return self.spec.name or _REPORTED.get(self.kind, self.spec.label)

    @property
    def is_required(self) -> bool:
        """Whether there is no episode without them."""
        return self.spec.need.converter in (Need.STEADY, Need.ONCE)

    @property
    def stream(self) -> str:
        """As reports call it."""
        return f'{self.name} joint_states' if self.kind is StreamKind.JOINT_STATE else self.name

    @property
    def is_stamped(self) -> bool:
        """Whether the stream's clock is looked at."""
        return self.kind in _STAMPED


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
            if route.is_required:
                lack = 'is missing' if found is None else 'has no messages'
                problems.append(f'{route.topic} ({route.stream}) {lack}')
        elif found.kind not in route.type_names:
            problems.append(f'{route.topic} ({route.stream}) has type {found.kind}, expected '
                            f'{" or ".join(route.type_names)}')
        else:
            routes[route.topic] = route
    if problems:
        raise ConvertError(f'{bag} does not fit the contract {contract.name!r}:\n  ' + '\n  '.join(problems)
                           + f'\nit has {", ".join(sorted(there)) or "no topics"}; correct the contract, name the '
                             "robot's namespace (--namespace) or the cameras to use (--cameras)")
    return routes


def _all(contract: RobotContract, settings: BagSettings, there: Iterable[str]) -> Iterator[Route]:
    """Of every stream that the converter reads, whether the bag has it or not."""
    cameras = tuple(contract.cameras) if settings.cameras is None else settings.cameras
    specs = [spec for spec in StreamTable(contract) if spec.need.converter is not None
             and (spec.kind not in CAMERA_KINDS or spec.name in cameras)]
    # Cameras as they were asked for, then the rest.
    for spec in sorted(specs, key=lambda one: cameras.index(one.name) if one.kind in CAMERA_KINDS else len(cameras)):
        topic = _full(spec.topic, settings.namespace)
        if spec.kind is not StreamKind.IMAGE:
            yield Route(topic=topic, spec=spec, type_names=(spec.type_name,))
            continue
        # Who saves disk records what image_transport compressed.
        if topic not in there and f'{topic}/compressed' in there:
            topic = f'{topic}/compressed'
        yield Route(topic=topic, spec=spec, type_names=tuple(IMAGE_TYPES.values()))


def _full(topic: str, namespace: str) -> str:
    return topic if topic.startswith('/') else '/' + '/'.join(filter(None, (namespace, topic)))
