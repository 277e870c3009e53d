"""Reads a bag's files with ``rosbag2_py``, which comes with every ROS distribution and with nothing else.

Written against Humble and Jazzy, and the only module that imports it. One reader is opened per file
and per pass: files are told apart in reports, and a pass that was left early leaves nothing behind.
Compressed files and messages are unpacked by the caller: rosbag2's own compression reader unpacks
beside the bag, and reads no file without its metadata.yaml.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from apt_training.convert.rosbag.salvage import MAGIC, SalvagedTopic

ROSBAG2 = 'rosbag2_py'
_STORAGES = {'.mcap': 'mcap', '.db3': 'sqlite3'}


def load_rosbag2() -> Any:
    """Import it, told to say nothing of every file that it opens.

    Raises:
        ImportError: no distribution is sourced, or it is of another Python than this one.
    """
    import rosbag2_py
    from rclpy.logging import LoggingSeverity, set_logger_level

    # A line for each SQLite file and pass, in the middle of the progress bar.
    set_logger_level('rosbag2_storage', LoggingSeverity.WARN)
    return rosbag2_py


class Rosbag2File:
    """One file of a bag."""

    def __init__(self, rosbag2: Any, path: Path, called: Path) -> None:
        """Open it.

        Args:
            rosbag2: the module.
            path: of the file, not compressed as a whole.
            called: what it is called in reports.

        Raises:
            RuntimeError: rosbag2 cannot open it.
            EOFError: it is an MCAP file without an end, of which rosbag2 would show a part as if it were all.
        """
        self.path, self.damage = called, ''
        self._rosbag2, self._file = rosbag2, path
        if path.suffix == '.mcap' and not _has_end(path):
            raise EOFError('its end is missing')
        reader = self._opened()
        metadata = reader.get_metadata()
        self.start_ns = int(metadata.starting_time.nanoseconds)
        self.end_ns = self.start_ns + int(metadata.duration.nanoseconds) + 1
        definitions = _definitions(reader)
        self.topics = [SalvagedTopic(one.topic_metadata.name, one.topic_metadata.type,
                                     *definitions.get(one.topic_metadata.type, ('', '')), one.message_count,
                                     one.topic_metadata.serialization_format)
                       for one in metadata.topics_with_message_count]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and content of every message, in the order of time.

        Raises:
            RuntimeError: rosbag2 cannot read on.
            EOFError: fewer messages came than the file has.
            ValueError: the file has no index, and its messages are not in the order of time.
        """
        wanted = {one.name: one.messages for one in self.topics if one.name in topics and one.messages}
        # An empty filter would let everything through.
        if not wanted:
            return
        reader = self._opened()
        reader.set_filter(self._rosbag2.StorageFilter(topics=sorted(wanted)))
        left, last_ns = sum(wanted.values()), 0
        while reader.has_next():
            topic, raw, receive_ns = reader.read_next()
            # Service events have a filter of their own since Jazzy, which lets them pass.
            if topic not in wanted:
                continue
            if receive_ns < last_ns:
                raise ValueError('it has no index, and its messages are not in the order of time')
            left, last_ns = left - 1, receive_ns
            yield topic, receive_ns, raw
        # What rosbag2 finds wrong inside an MCAP file it logs, and goes on.
        if left:
            raise EOFError(f'{left} of {sum(wanted.values())} messages cannot be read')

    def close(self) -> None:
        """Nothing is held open between passes: readers close when they are forgotten."""

    def _opened(self) -> Any:
        reader = self._rosbag2.SequentialReader()
        # Both formats empty: no conversion, so that the bytes are the bag's.
        reader.open(self._rosbag2.StorageOptions(uri=str(self._file), storage_id=_STORAGES[self._file.suffix]),
                    self._rosbag2.ConverterOptions('', ''))
        return reader


def _definitions(reader: Any) -> dict[str, tuple[str, str]]:
    """Encoding and text by type."""
    # Humble's rosbag2_py keeps those of MCAP files to itself: types are then as they are installed.
    if not hasattr(reader, 'get_all_message_definitions'):
        return {}
    return {one.topic_type: (one.encoding, one.encoded_message_definition)
            for one in reader.get_all_message_definitions()}


def _has_end(path: Path) -> bool:
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC
