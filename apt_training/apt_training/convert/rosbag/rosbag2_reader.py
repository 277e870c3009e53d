"""Reader of the files of a bag with ``rosbag2_py`` of a ROS distribution (Humble or Jazzy).

One reader is opened per file and pass, so that messages name the file, and a pass that ends early holds nothing open.
The caller decompresses files and messages: the compression reader of rosbag2 writes beside the bag, and needs
metadata.yaml.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from apt_training.convert.rosbag.recovery import MAGIC, TopicInfo

ROSBAG2 = 'rosbag2_py'
_STORAGES = {'.mcap': 'mcap', '.db3': 'sqlite3'}


def load_rosbag2() -> Any:
    """Import ``rosbag2_py``, without its log line for each opened file.

    Raises:
        ImportError: no distribution is sourced, or it is for another Python version.
    """
    import rosbag2_py
    from rclpy.logging import LoggingSeverity, set_logger_level

    # Otherwise each SQLite file and pass logs a line in the middle of the progress bar.
    set_logger_level('rosbag2_storage', LoggingSeverity.WARN)
    return rosbag2_py


class Rosbag2File:
    """File that ``rosbag2_py`` reads."""

    def __init__(self, rosbag2: Any, path: Path, shown_path: Path) -> None:
        """Open a file.

        Args:
            rosbag2: the module ``rosbag2_py``.
            path: path of the file, decompressed.
            shown_path: path in messages.

        Raises:
            RuntimeError: rosbag2 cannot open it.
            EOFError: it is an MCAP file without an end, of which rosbag2 reads a part without an error.
        """
        self.path, self.damage = shown_path, ''
        self._rosbag2, self._file = rosbag2, path
        if path.suffix == '.mcap' and not _has_end(path):
            raise EOFError('its end is missing')
        reader = self._opened()
        metadata = reader.get_metadata()
        self.start_ns = int(metadata.starting_time.nanoseconds)
        self.end_ns = self.start_ns + int(metadata.duration.nanoseconds) + 1
        definitions = _definitions(reader)
        self.topics = [TopicInfo(one.topic_metadata.name, one.topic_metadata.type,
                                     *definitions.get(one.topic_metadata.type, ('', '')), one.message_count,
                                     one.topic_metadata.serialization_format)
                       for one in metadata.topics_with_message_count]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield topic, receive time [ns] and serialized message (CDR), in the order of receive times.

        Raises:
            RuntimeError: rosbag2 cannot read on.
            EOFError: rosbag2 read fewer messages than the file has.
            ValueError: the file has no index, and its messages are not in the order of receive times.
        """
        wanted = {one.name: one.messages for one in self.topics if one.name in topics and one.messages}
        # An empty filter would pass all topics.
        if not wanted:
            return
        reader = self._opened()
        reader.set_filter(self._rosbag2.StorageFilter(topics=sorted(wanted)))
        left, last_ns = sum(wanted.values()), 0
        while reader.has_next():
            topic, raw, receive_ns = reader.read_next()
            # Since Jazzy, service events have a separate filter, which passes them.
            if topic not in wanted:
                continue
            if receive_ns < last_ns:
                raise ValueError('it has no index, and its messages are not in the order of time')
            left, last_ns = left - 1, receive_ns
            yield topic, receive_ns, raw
        # rosbag2 logs errors inside an MCAP file and continues.
        if left:
            raise EOFError(f'{left} of {sum(wanted.values())} messages cannot be read')

    def close(self) -> None:
        """Do nothing: each pass closes its own reader."""

    def _opened(self) -> Any:
        reader = self._rosbag2.SequentialReader()
        # Both formats are empty: the bytes of the bag are not converted.
        reader.open(self._rosbag2.StorageOptions(uri=str(self._file), storage_id=_STORAGES[self._file.suffix]),
                    self._rosbag2.ConverterOptions('', ''))
        return reader


def _definitions(reader: Any) -> dict[str, tuple[str, str]]:
    """Return encoding and text of the definitions by message type."""
    # Humble's rosbag2_py does not return the definitions of MCAP files: installed ones are used then.
    if not hasattr(reader, 'get_all_message_definitions'):
        return {}
    return {one.topic_type: (one.encoding, one.encoded_message_definition)
            for one in reader.get_all_message_definitions()}


def _has_end(path: Path) -> bool:
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC
