"""Writer of ROS messages into a bag, without a ROS graph.

Topics have the names and the quality of service of the live nodes, and the same messages give the same bytes. Stamps
are the caller's choice.
"""

from collections.abc import Sequence
from typing import Any

from rclpy.serialization import serialize_message

from apt_policy.core.stream_spec import COMMAND_KINDS, Reliability, Role, StreamSpec
from apt_policy.ros.qos import profile
from apt_recorder.bag_writer import BagWriter
from apt_recorder.qos import to_rosbags_qos
from apt_recorder.type_definitions import TypeDefinitions


class MessageWriter:
    """Writer of the streams of one robot."""

    def __init__(self, bag: BagWriter, definitions: TypeDefinitions, specs: Sequence[StreamSpec]) -> None:
        """Remember the streams.

        Args:
            bag: bag to write to.
            definitions: message definitions.
            specs: all streams that may be written.
        """
        self._bag, self._definitions = bag, definitions
        # Live, only the newest target counts; in a replay, a slow subscriber should lose none.
        self._roles = {spec.topic: Role.COMMAND if spec.kind in COMMAND_KINDS else spec.role for spec in specs}
        self._names: dict[str, str] = {}

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append a ROS message.

        Args:
            topic: name in the contract, relative to the namespace of the robot.
            stamp_ns: receive time [ns].
            message: message of any type.

        Raises:
            BagError: the disk is full; the bag is closed and readable up to here.
            UnknownTypeError: the definition of its type is not installed.
        """
        type_name = _type_name(message)
        if topic not in self._names:
            self._names[topic] = topic if topic.startswith('/') else f'/{topic}'
            # The simulator offers the same: every kind of subscriber matches a player with this quality of service.
            qos = profile(self._roles[topic], reliability=Reliability.RELIABLE)
            self._bag.add_topic(self._names[topic], type_name, [to_rosbags_qos(qos)])
        data = self._definitions.zero_padding(type_name, serialize_message(message))
        self._bag.write(self._names[topic], stamp_ns, data)


def _type_name(message: Any) -> str:
    """Return the type of a message, such as ``sensor_msgs/msg/Image``."""
    package, _, _ = type(message).__module__.partition('.')
    return f'{package}/msg/{type(message).__name__}'
