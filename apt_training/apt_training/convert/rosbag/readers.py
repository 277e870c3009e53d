"""The port through which the files of a bag are read, and what stands behind it.

Where a ROS distribution is sourced, its own ``rosbag2_py`` reads (``rosbag2_reader``); rosbags reads
everywhere else, and what rosbag2_py cannot open. Damaged files are recovered by ``salvage``.
"""

from collections.abc import Callable, Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from rosbags.interfaces import ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import Reader

from apt_training.convert.rosbag.rosbag2_reader import ROSBAG2, Rosbag2File, load_rosbag2
from apt_training.convert.rosbag.salvage import SalvagedTopic
from apt_training.convert.source import ConvertError, one_line

_ENCODINGS = {MessageDefinitionFormat.MSG: 'ros2msg', MessageDefinitionFormat.IDL: 'ros2idl'}


class ReaderChoice(Enum):
    """Which library reads files that are whole."""

    AUTO = 'auto'
    """rosbag2_py where it can be imported, else rosbags."""
    ROSBAGS = 'rosbags'
    ROSBAG2 = 'rosbag2'


class BagFile(Protocol):
    """One open file of a bag."""

    path: Path
    damage: str
    """Where it breaks off, and why; empty while nothing is known to be wrong."""
    start_ns: int
    end_ns: int
    """Receive times of the first message and after the last one, of a file that has messages."""
    topics: list[SalvagedTopic]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and content of every message, from the front each time."""

    def close(self) -> None:
        """Close the file."""


class BagReader(NamedTuple):
    """A library that opens files."""

    name: str
    open: Callable[[Path, Path], BagFile]
    """Given where a file is, and what it is called in reports; raises anything for a file that is not whole."""


class RosbagsFile:
    """A file that rosbags reads."""

    def __init__(self, path: Path, called: Path) -> None:
        self.path, self.damage = called, ''
        self._reader = Reader(path)
        self._reader.open()
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time
        self.topics = [SalvagedTopic(one.topic, one.msgtype, _ENCODINGS.get(one.msgdef.format, ''),
                                     str(one.msgdef.data), one.msgcount, _serialization(one.ext))
                       for one in self._reader.connections]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and content of every message, in the order of time."""
        wanted = [one for one in self._reader.connections if one.topic in topics]
        return ((one.topic, receive_ns, raw) for one, receive_ns, raw in self._reader.messages(wanted)) \
            if wanted else iter(())

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


ROSBAGS = BagReader('rosbags', RosbagsFile)


def readers_of(choice: ReaderChoice) -> tuple[BagReader, ...]:
    """The libraries that read a bag, in the order in which they are tried.

    Raises:
        ConvertError: rosbag2_py was asked for and cannot be imported.
    """
    if choice is ReaderChoice.ROSBAGS:
        return (ROSBAGS,)
    try:
        rosbag2 = load_rosbag2()
    except ImportError as error:
        if choice is ReaderChoice.ROSBAG2:
            raise ConvertError(f'--reader {choice.value} needs {ROSBAG2}, which cannot be imported: {one_line(error)}; '
                               'source the ROS distribution, or read with --reader rosbags') from error
        return (ROSBAGS,)
    return BagReader(ROSBAG2, lambda path, called: Rosbag2File(rosbag2, path, called)), ROSBAGS


def _serialization(ext: object) -> str:
    return ext.serialization_format if isinstance(ext, ConnectionExtRosbag2) else ''
