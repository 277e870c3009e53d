"""Libraries that read the files of a bag, behind one interface.

``rosbag2_py`` of a sourced ROS distribution is preferred (``rosbag2_reader``); ``rosbags`` reads without one, and what
rosbag2_py cannot open. ``recovery`` reads damaged files.
"""

from collections.abc import Callable, Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from rosbags.interfaces import ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import Reader

from apt_training.convert.rosbag.recovery import TopicInfo
from apt_training.convert.rosbag.rosbag2_reader import ROSBAG2, Rosbag2File, load_rosbag2
from apt_training.convert.source import ConvertError, one_line

_ENCODINGS = {MessageDefinitionFormat.MSG: 'ros2msg', MessageDefinitionFormat.IDL: 'ros2idl'}


class ReaderChoice(Enum):
    """Choice of the library that reads complete files."""

    AUTO = 'auto'
    """rosbag2_py if it can be imported, else rosbags."""
    ROSBAGS = 'rosbags'
    ROSBAG2 = 'rosbag2'


class BagFile(Protocol):
    """Open file of a bag."""

    path: Path
    """Path in messages."""
    damage: str
    """Sentence about the position and cause of damage; empty while none is known."""
    start_ns: int
    """Receive time of the first message [ns], if the file has messages."""
    end_ns: int
    """Time after the last message [ns], if the file has messages."""
    topics: list[TopicInfo]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield topic, receive time [ns] and serialized message (CDR), from the beginning at each call."""

    def close(self) -> None:
        """Close the file."""


class ReaderBackend(NamedTuple):
    """Library that opens files."""

    name: str
    open: Callable[[Path, Path], BagFile]
    """Function of the path of a file and its path in messages; raises any exception for an incomplete file."""


class RosbagsFile:
    """File that ``rosbags`` reads."""

    def __init__(self, path: Path, shown_path: Path) -> None:
        self.path, self.damage = shown_path, ''
        self._reader = Reader(path)
        self._reader.open()
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time
        self.topics = [TopicInfo(one.topic, one.msgtype, _ENCODINGS.get(one.msgdef.format, ''),
                                     str(one.msgdef.data), one.msgcount, _serialization(one.ext))
                       for one in self._reader.connections]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield topic, receive time [ns] and serialized message (CDR), in the order of receive times."""
        wanted = [one for one in self._reader.connections if one.topic in topics]
        return ((one.topic, receive_ns, raw) for one, receive_ns, raw in self._reader.messages(wanted)) \
            if wanted else iter(())

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


ROSBAGS = ReaderBackend('rosbags', RosbagsFile)


def available_backends(choice: ReaderChoice) -> tuple[ReaderBackend, ...]:
    """Return the libraries that read a bag, in the order in which they are tried.

    Raises:
        ConvertError: rosbag2_py was requested and cannot be imported.
    """
    if choice is ReaderChoice.ROSBAGS:
        return (ROSBAGS,)
    try:
        rosbag2 = load_rosbag2()
    except ImportError as error:
        if choice is ReaderChoice.ROSBAG2:
            raise ConvertError(f'--reader {choice.value} needs {ROSBAG2}, which cannot be imported: {one_line(error)}; '
                               'source the ROS distribution, or use --reader rosbags') from error
        return (ROSBAGS,)
    return ReaderBackend(ROSBAG2, lambda path, shown_path: Rosbag2File(rosbag2, path, shown_path)), ROSBAGS


def _serialization(ext: object) -> str:
    return ext.serialization_format if isinstance(ext, ConnectionExtRosbag2) else ''
