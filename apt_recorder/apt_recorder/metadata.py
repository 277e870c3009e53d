"""``metadata.yaml``, which makes a folder of files a rosbag2 bag."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.metadata import dump_qos_v8

from apt_policy.core.atomic import write_text
from apt_recorder.storage import Compression, Storage

NAME = 'metadata.yaml'
# 8 writes qualities of service as text, which older rosbag2 reads too.
VERSION = 8
_NEVER_NS = 2**63 - 1


@dataclass(kw_only=True)
class PartFacts:
    """What one file of a bag holds."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    """Messages by topic."""
    start_ns: int = _NEVER_NS
    end_ns: int = 0

    @property
    def messages(self) -> int:
        """In the whole file."""
        return sum(self.counts.values())

    @property
    def duration_ns(self) -> int:
        """From the first to the last message."""
        return max(0, self.end_ns - self.start_ns)


def describe(parts: Sequence[PartFacts], connections: Sequence[Connection], *, storage: Storage,
             compression: Compression, notes: Mapping[str, str]) -> dict[str, Any]:
    """The description of a bag of these files, in plain types."""
    start_ns = min((part.start_ns for part in parts), default=_NEVER_NS)
    by_message = compression is Compression.MESSAGE
    return {
        'version': VERSION, 'storage_identifier': storage.value,
        'duration': {'nanoseconds': max([0, *(part.end_ns - start_ns for part in parts)])},
        'starting_time': {'nanoseconds_since_epoch': start_ns},
        'message_count': sum(part.messages for part in parts),
        'topics_with_message_count': [
            {'topic_metadata': _topic(connection),
             'message_count': sum(part.counts.get(connection.topic, 0) for part in parts)}
            for connection in connections],
        'compression_format': 'zstd' if by_message else '',
        'compression_mode': 'message' if by_message else '',
        'relative_file_paths': [part.name for part in parts],
        'files': [{'path': part.name, 'message_count': part.messages,
                   'starting_time': {'nanoseconds_since_epoch': part.start_ns},
                   'duration': {'nanoseconds': part.duration_ns}} for part in parts],
        'custom_data': dict(notes) or None, 'ros_distro': os.environ.get('ROS_DISTRO', 'jazzy')}


def write(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the description of the bag in ``folder``, whole or not at all."""
    text = yaml.safe_dump({'rosbag2_bagfile_information': dict(description)}, sort_keys=False)
    # After each file of the bag anew.
    write_text(folder / NAME, text)


def _topic(connection: Connection) -> dict[str, Any]:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return {'name': connection.topic, 'type': connection.msgtype,
            'serialization_format': connection.ext.serialization_format,
            'offered_qos_profiles': dump_qos_v8(connection.ext.offered_qos_profiles),
            'type_description_hash': connection.digest}
