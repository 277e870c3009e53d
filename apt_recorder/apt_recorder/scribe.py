"""Messages into a bag without a graph: what a recorder would have heard, from whoever would have said it.

Topics are named and offered as the live nodes do, and the same messages give the same bytes. When what is said is
the caller's matter.
"""

from collections.abc import Sequence
from typing import Any

from rclpy.serialization import serialize_message

from apt_policy.core.stream_spec import COMMAND_KINDS, Reliability, Role, StreamSpec
from apt_policy.ros.qos import profile
from apt_recorder.bag import Bag
from apt_recorder.definitions import Definitions
from apt_recorder.quality import offered


class Scribe:
    """Writes the streams of one robot."""

    def __init__(self, bag: Bag, definitions: Definitions, specs: Sequence[StreamSpec]) -> None:
        """``specs`` are all streams that there may be."""
        self._bag, self._definitions = bag, definitions
        # Live, only the newest target counts; played back, none is to be lost for a slow listener.
        self._roles = {spec.topic: Role.COMMAND if spec.kind in COMMAND_KINDS else spec.role for spec in specs}
        self._names: dict[str, str] = {}

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append a ROS message.

        Args:
            topic: as in the contract, relative.
            stamp_ns: when a recorder would have received it.

        Raises:
            BagError, UnknownType: see :class:`Bag`.
        """
        kind = _kind(message)
        if topic not in self._names:
            self._names[topic] = topic if topic.startswith('/') else f'/{topic}'
            # As the simulator offers them: a player with these qualities is heard by every kind of subscriber.
            quality = profile(self._roles[topic], reliability=Reliability.RELIABLE)
            self._bag.add_topic(self._names[topic], kind, [offered(quality)])
        self._bag.write(self._names[topic], stamp_ns, self._definitions.settled(kind, serialize_message(message)))


def _kind(message: Any) -> str:
    """Such as ``sensor_msgs/msg/Image``."""
    package, _, _ = type(message).__module__.partition('.')
    return f'{package}/msg/{type(message).__name__}'
