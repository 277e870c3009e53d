"""A rosbag2 bag: a folder of one or more files and the description that ties them together.

Splits by size or time, and begins every file with what was latched before it. It knows topics and bytes;
what they mean, and which thread it is, is the caller's matter.
"""

import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from backports import zstd
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import dump_qos_v8

from apt_policy.core.errors import UserError
from apt_recorder import metadata
from apt_recorder.definitions import Definitions
from apt_recorder.metadata import PartFacts
from apt_recorder.repair import repair
from apt_recorder.storage import Compression, Storage, StorageFile, open_file

_BALLAST_BYTES = 2**18
# What a crash may cost at most, besides half a second.
_FLUSH_BYTES = 2**23


class BagError(UserError, RuntimeError):
    """A bag that cannot be written, or written on; the message says why and what was saved."""


@dataclass(frozen=True, kw_only=True)
class BagSettings:
    """How a bag is laid out."""

    storage: Storage = Storage.MCAP
    compression: Compression = Compression.NONE
    max_bytes: int = 0
    """A file is followed by another beyond this size; 0: never."""
    max_ns: int = 0
    """Likewise for its duration."""
    min_free_bytes: int = 64 * 2**20
    """Recording ends while the disk still has this much room."""

    def __post_init__(self) -> None:
        if self.compression is Compression.CHUNK and self.storage is not Storage.MCAP:
            raise ValueError(f'{self.storage.value} has no chunks to compress; choose message or none, or mcap')


class Bag:
    """A bag that is being written. Not for two threads at once."""

    def __init__(self, folder: Path, settings: BagSettings, definitions: Definitions | None = None) -> None:
        """Make the folder and the first file.

        Raises:
            BagError: the folder exists, cannot be made, or its disk is full.
        """
        self.folder = folder
        self._settings = settings
        self._definitions = definitions or Definitions()
        self._topics: dict[str, Connection] = {}
        self._latched: dict[str, list[bytes]] = {}
        self._notes: dict[str, str] = {}
        self._parts: list[PartFacts] = []
        self._file: StorageFile | None = None
        self._part_bytes = 0
        self._flushed_s, self._flushed_bytes = time.monotonic(), 0
        self.bytes = 0
        """Of all messages so far."""
        try:
            folder.mkdir(parents=True)
            self._ballast.write_bytes(bytes(_BALLAST_BYTES))
            self._begin()
        except FileExistsError as error:
            raise BagError(f'{folder} exists; recordings are never written over: choose another name') from error
        except OSError as error:
            raise BagError(f'cannot make {folder}: {error.strerror}') from error

    @property
    def free_bytes(self) -> int:
        """Room left on the disk."""
        return shutil.disk_usage(self.folder).free

    @property
    def parts(self) -> tuple[PartFacts, ...]:
        """Every file so far."""
        return tuple(self._parts)

    def add_topic(self, topic: str, kind: str, offered: list[Qos]) -> None:
        """Announce a topic by its full name; once more changes nothing.

        Raises:
            UnknownType: no definition of ``kind`` is installed.
            BagError: see :meth:`write`.
        """
        if topic in self._topics:
            return
        found = self._definitions.of(kind)
        connection = Connection(
            id=len(self._topics) + 1, topic=topic, msgtype=kind,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, found.text), digest=found.digest, msgcount=0,
            ext=ConnectionExtRosbag2(serialization_format='cdr', offered_qos_profiles=offered), owner=self)
        is_new = all(known.msgtype != kind for known in self._topics.values())
        self._topics[topic] = connection
        self._announce(connection, with_type=is_new)

    def write(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """Append a message of an announced topic.

        Raises:
            BagError: the disk is full; the bag is closed and readable up to here.
        """
        settings, part = self._settings, self._parts[-1]
        if part.messages and (0 < settings.max_bytes <= self._part_bytes
                              or 0 < settings.max_ns <= stamp_ns - part.start_ns):
            self._split(stamp_ns)
        self._put(topic, stamp_ns, data)

    def keep(self, topic: str, data: bytes, *, only_last: bool) -> None:
        """Begin every further file with this message too: it is latched, and may never come again."""
        kept = [] if only_last else self._latched.setdefault(topic, [])
        if data not in kept:
            self._latched[topic] = [*kept, data]

    def flush(self) -> None:
        """Make all that was written survive the death of this process, and look whether the disk has room.

        Raises:
            BagError: see :meth:`write`.
        """
        try:
            if self._file is not None:
                self._file.flush()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        if (free := self.free_bytes) < self._settings.min_free_bytes:
            self.close()
            raise BagError(f'the disk of {self.folder} has {free / 2**20:.0f} MiB left, less than the '
                           f'{self._settings.min_free_bytes / 2**20:.0f} MiB that are kept free; the recording '
                           'ends here and is whole up to here')

    def flush_if_due(self, period_s: float) -> None:
        """:meth:`flush`, unless the last one was less than ``period_s`` and a few megabytes ago.

        Raises:
            BagError: see :meth:`write`.
        """
        if self._file is not None and (time.monotonic() - self._flushed_s >= period_s
                                       or self.bytes - self._flushed_bytes >= _FLUSH_BYTES):
            self._flushed_s, self._flushed_bytes = time.monotonic(), self.bytes
            self.flush()

    def close(self, notes: Mapping[str, str] | None = None) -> None:
        """Finish the bag; a second time changes nothing but the notes.

        Args:
            notes: go into the description as ``custom_data``.

        Raises:
            BagError: see :meth:`write`.
        """
        self._ballast.unlink(missing_ok=True)
        self._finish_part()
        if notes is not None:
            self._notes = dict(notes)
        self._write_metadata()

    @property
    def _ballast(self) -> Path:
        """Room to finish in when the disk is full."""
        return self.folder / '.ballast'

    def _begin(self) -> None:
        name = f'{self.folder.name}_{len(self._parts)}{self._settings.storage.suffix}'
        self._file = open_file(self.folder / name, self._settings.storage, self._settings.compression)
        self._parts.append(PartFacts(name=name))
        self._part_bytes = 0
        types: set[str] = set()
        for connection in self._topics.values():
            self._announce(connection, with_type=connection.msgtype not in types)
            types.add(connection.msgtype)

    def _announce(self, connection: Connection, *, with_type: bool) -> None:
        assert self._file is not None, 'announced while a file is open'
        assert isinstance(connection.ext, ConnectionExtRosbag2)
        try:
            if with_type:
                self._file.add_msgtype(connection)
            self._file.add_connection(connection, dump_qos_v8(connection.ext.offered_qos_profiles))
            self._file.flush()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def _put(self, topic: str, stamp_ns: int, data: bytes) -> None:
        if self._file is None:
            raise BagError(f'{self.folder} is closed')
        if self._settings.compression is Compression.MESSAGE:
            data = zstd.compress(data)
        try:
            self._file.write(self._topics[topic], stamp_ns, data)
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        part = self._parts[-1]
        part.counts[topic] = part.counts.get(topic, 0) + 1
        part.start_ns, part.end_ns = min(part.start_ns, stamp_ns), max(part.end_ns, stamp_ns)
        self._part_bytes += len(data)
        self.bytes += len(data)

    def _split(self, stamp_ns: int) -> None:
        self._finish_part()
        # From here on a crash leaves all finished files readable as a bag.
        self._write_metadata()
        self._begin()
        for topic, kept in self._latched.items():
            for data in kept:
                self._put(topic, stamp_ns, data)

    def _finish_part(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close(metadata.VERSION, yaml.safe_dump(self._description(self._parts[-1:])))
        except (OSError, sqlite3.Error) as error:
            self._file = file
            self._fail(error)

    def _description(self, parts: Sequence[PartFacts]) -> dict[str, Any]:
        return metadata.describe(parts, list(self._topics.values()), storage=self._settings.storage,
                                 compression=self._settings.compression, notes=self._notes)

    def _write_metadata(self) -> None:
        try:
            metadata.write(self.folder, self._description(self._parts))
        except OSError as error:
            raise BagError(f'cannot write {self.folder / metadata.NAME}: {error.strerror}; make room, then '
                           f'"apt-record --recover {self.folder}" makes a bag of what is there') from error

    def _fail(self, error: Exception) -> NoReturn:
        """Save what there is, then say what happened."""
        file, self._file = self._file, None
        self._ballast.unlink(missing_ok=True)
        part = self._parts[-1]
        if file is not None:
            # Closing flushes, which fails for the same reason.
            with suppress(OSError, sqlite3.Error):
                file.abort()
            self._parts[-1] = repair(self.folder / part.name)
        self._notes['ended'] = str(error)
        self._write_metadata()
        kept = sum(one.messages for one in self._parts)
        raise BagError(f'cannot write {self.folder / part.name}: {error}; the bag is whole up to here, '
                       f'with {kept} messages') from error
