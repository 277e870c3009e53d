"""``metadata.yaml`` of a rosbag2 bag."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.metadata import dump_qos_v8

from apt_policy.core.atomic import write_text
from apt_recorder.storage import BagStorage, Compression

METADATA_FILE = 'metadata.yaml'
# Version 8 writes quality of service as text, which older rosbag2 reads too.
METADATA_VERSION = 8
_NEVER_NS = 2**63 - 1


@dataclass(kw_only=True)
class BagFileInfo:
    """Name, message counts and time range of one file of a bag."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    """Number of messages by topic."""
    start_ns: int = _NEVER_NS
    """Receive time of the first message [ns]."""
    end_ns: int = 0
    """Receive time of the last message [ns]."""

    @property
    def messages(self) -> int:
        """Number of messages in the file."""
        return sum(self.counts.values())

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last message [ns]."""
        return max(0, self.end_ns - self.start_ns)


def build_metadata(files: Sequence[BagFileInfo], connections: Sequence[Connection], *, storage: BagStorage,
                   compression: Compression, notes: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a bag as plain types.

    Args:
        files: its files, in order.
        connections: its topics.
        storage: format of the files.
        compression: compression of the messages.
        notes: ``custom_data``.
    """
    start_ns = min((file.start_ns for file in files), default=_NEVER_NS)
    by_message = compression is Compression.MESSAGE
    return {
        'version': METADATA_VERSION, 'storage_identifier': storage.value,
        'duration': {'nanoseconds': max([0, *(file.end_ns - start_ns for file in files)])},
        'starting_time': {'nanoseconds_since_epoch': start_ns},
        'message_count': sum(file.messages for file in files),
        'topics_with_message_count': [
            {'topic_metadata': _topic(connection),
             'message_count': sum(file.counts.get(connection.topic, 0) for file in files)}
            for connection in connections],
        'compression_format': 'zstd' if by_message else '',
        'compression_mode': 'message' if by_message else '',
        'relative_file_paths': [file.name for file in files],
        'files': [{'path': file.name, 'message_count': file.messages,
                   'starting_time': {'nanoseconds_since_epoch': file.start_ns},
                   'duration': {'nanoseconds': file.duration_ns}} for file in files],
        'custom_data': dict(notes) or None, 'ros_distro': os.environ.get('ROS_DISTRO', 'jazzy')}


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``metadata.yaml`` of the bag in ``folder`` atomically.

    Raises:
        OSError: it cannot be written.
    """
    text = yaml.safe_dump({'rosbag2_bagfile_information': dict(metadata)}, sort_keys=False)
    write_text(folder / METADATA_FILE, text)


def _topic(connection: Connection) -> dict[str, Any]:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return {'name': connection.topic, 'type': connection.msgtype,
            'serialization_format': connection.ext.serialization_format,
            'offered_qos_profiles': dump_qos_v8(connection.ext.offered_qos_profiles),
            'type_description_hash': connection.digest}
