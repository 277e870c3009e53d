"""Writer of a rosbag2 bag: a folder of storage files and its ``metadata.yaml``.

Files are split by size or duration, and each begins with the latched messages before it. The writer handles topics
and serialized bytes only; decoding and threading are left to the caller.
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
from apt_recorder.metadata import BagFileInfo
from apt_recorder.repair import repair_file
from apt_recorder.storage import BagStorage, Compression, StorageFile, open_file
from apt_recorder.type_definitions import TypeDefinitions

# Freed on a full disk, so that the last file and the metadata can still be written.
_BALLAST_BYTES = 2**18
# Upper bound of what a crash can lose, besides half a second of messages.
_FLUSH_BYTES = 2**23


class BagError(UserError, RuntimeError):
    """Error of a bag that cannot be written, with the reason and what was saved."""


@dataclass(frozen=True, kw_only=True)
class BagConfig:
    """Storage, compression and splitting of a bag."""

    storage: BagStorage = BagStorage.MCAP
    compression: Compression = Compression.NONE
    max_bytes: int = 0
    """Size at which a new file begins [B]; 0: no limit."""
    max_ns: int = 0
    """Duration after which a new file begins [ns]; 0: no limit."""
    min_free_bytes: int = 64 * 2**20
    """Free disk space at which the recording ends [B]."""

    def __post_init__(self) -> None:
        if self.compression is Compression.CHUNK and self.storage is not BagStorage.MCAP:
            raise ValueError(f'{self.storage.value} has no chunks to compress: choose compression message or none, or '
                             'storage mcap')


class BagWriter:
    """Writer of one bag. Not thread-safe."""

    def __init__(self, folder: Path, config: BagConfig, definitions: TypeDefinitions | None = None) -> None:
        """Create the folder and the first file.

        Args:
            folder: folder of the bag, which must not exist.
            config: storage, compression and splitting.
            definitions: message definitions to share with others; None: a new store.

        Raises:
            BagError: the folder exists or cannot be created, or the disk is full.
        """
        self.folder = folder
        self._config = config
        self._definitions = definitions or TypeDefinitions()
        self._topics: dict[str, Connection] = {}
        self._latched: dict[str, list[bytes]] = {}
        self._notes: dict[str, str] = {}
        self._files: list[BagFileInfo] = []
        self._storage_file: StorageFile | None = None
        self._file_bytes = 0
        self._flushed_s, self._flushed_bytes = time.monotonic(), 0
        self.bytes = 0
        """Size of all messages so far [B]."""
        try:
            folder.mkdir(parents=True)
            self._ballast.write_bytes(bytes(_BALLAST_BYTES))
            self._begin_file()
        except FileExistsError as error:
            raise BagError(f'{folder} exists, and recordings are never overwritten: choose another name') from error
        except OSError as error:
            raise BagError(f'cannot create {folder}: {error.strerror}') from error

    @property
    def free_bytes(self) -> int:
        """Free space on the disk [B]."""
        return shutil.disk_usage(self.folder).free

    @property
    def files(self) -> tuple[BagFileInfo, ...]:
        """Files written so far, in order."""
        return tuple(self._files)

    def add_topic(self, topic: str, type_name: str, offered: list[Qos]) -> None:
        """Add a topic, unless the bag has it.

        Args:
            topic: full name.
            type_name: message type, such as ``sensor_msgs/msg/Image``.
            offered: quality of service of each publisher.

        Raises:
            UnknownTypeError: the definition of the type is not installed.
            BagError: the disk is full; the bag is closed and readable up to here.
        """
        if topic in self._topics:
            return
        found = self._definitions.definition(type_name)
        connection = Connection(
            id=len(self._topics) + 1, topic=topic, msgtype=type_name,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, found.text), digest=found.digest, msgcount=0,
            ext=ConnectionExtRosbag2(serialization_format='cdr', offered_qos_profiles=offered), owner=self)
        is_new = all(known.msgtype != type_name for known in self._topics.values())
        self._topics[topic] = connection
        self._write_topic(connection, with_type=is_new)

    def write(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """Append a message.

        Args:
            topic: full name, which was added before.
            stamp_ns: receive time [ns].
            data: serialized message (CDR).

        Raises:
            BagError: the disk is full; the bag is closed and readable up to here.
        """
        config, file = self._config, self._files[-1]
        if file.messages and (0 < config.max_bytes <= self._file_bytes
                              or 0 < config.max_ns <= stamp_ns - file.start_ns):
            self._split(stamp_ns)
        self._append(topic, stamp_ns, data)

    def latch_message(self, topic: str, data: bytes, *, only_last: bool) -> None:
        """Repeat a latched message at the beginning of every later file.

        Args:
            topic: full name, which was added before.
            data: serialized message (CDR).
            only_last: True if the message replaces earlier ones of its topic.
        """
        latched = [] if only_last else self._latched.setdefault(topic, [])
        if data not in latched:
            self._latched[topic] = [*latched, data]

    def flush(self) -> None:
        """Hand all messages to the operating system, and check the free disk space.

        Raises:
            BagError: the disk is full; the bag is closed and readable up to here.
        """
        try:
            if self._storage_file is not None:
                self._storage_file.flush()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        if (free := self.free_bytes) < self._config.min_free_bytes:
            self.close()
            raise BagError(f'the disk of {self.folder} has {free / 2**20:.0f} MiB left, less than the '
                           f'{self._config.min_free_bytes / 2**20:.0f} MiB to keep free (min_free_bytes); the bag '
                           'is closed, and complete up to here')

    def flush_if_due(self, period_s: float) -> None:
        """Flush if the last flush is ``period_s`` [s] or a few megabytes ago.

        Raises:
            BagError: the disk is full; the bag is closed and readable up to here.
        """
        if self._storage_file is not None and (time.monotonic() - self._flushed_s >= period_s
                                       or self.bytes - self._flushed_bytes >= _FLUSH_BYTES):
            self._flushed_s, self._flushed_bytes = time.monotonic(), self.bytes
            self.flush()

    def close(self, notes: Mapping[str, str] | None = None) -> None:
        """Finish the bag. A second call only replaces the notes.

        Args:
            notes: ``custom_data`` of ``metadata.yaml``.

        Raises:
            BagError: the disk is full; the bag is readable up to here.
        """
        self._ballast.unlink(missing_ok=True)
        self._finish_file()
        if notes is not None:
            self._notes = dict(notes)
        self._write_metadata()

    @property
    def _ballast(self) -> Path:
        """File that is deleted on a full disk, to make room for the end of the bag."""
        return self.folder / '.ballast'

    def _begin_file(self) -> None:
        name = f'{self.folder.name}_{len(self._files)}{self._config.storage.suffix}'
        self._storage_file = open_file(self.folder / name, self._config.storage, self._config.compression)
        self._files.append(BagFileInfo(name=name))
        self._file_bytes = 0
        types: set[str] = set()
        for connection in self._topics.values():
            self._write_topic(connection, with_type=connection.msgtype not in types)
            types.add(connection.msgtype)

    def _write_topic(self, connection: Connection, *, with_type: bool) -> None:
        assert self._storage_file is not None, 'topics are added while a file is open'
        assert isinstance(connection.ext, ConnectionExtRosbag2)
        try:
            if with_type:
                self._storage_file.add_msgtype(connection)
            self._storage_file.add_connection(connection, dump_qos_v8(connection.ext.offered_qos_profiles))
            self._storage_file.flush()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def _append(self, topic: str, stamp_ns: int, data: bytes) -> None:
        if self._storage_file is None:
            raise BagError(f'cannot write to {self.folder}: it is closed')
        if self._config.compression is Compression.MESSAGE:
            data = zstd.compress(data)
        try:
            self._storage_file.write(self._topics[topic], stamp_ns, data)
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        file = self._files[-1]
        file.counts[topic] = file.counts.get(topic, 0) + 1
        file.start_ns, file.end_ns = min(file.start_ns, stamp_ns), max(file.end_ns, stamp_ns)
        self._file_bytes += len(data)
        self.bytes += len(data)

    def _split(self, stamp_ns: int) -> None:
        self._finish_file()
        # A crash after this leaves all finished files readable as a bag.
        self._write_metadata()
        self._begin_file()
        for topic, latched in self._latched.items():
            for data in latched:
                self._append(topic, stamp_ns, data)

    def _finish_file(self) -> None:
        storage_file, self._storage_file = self._storage_file, None
        if storage_file is None:
            return
        try:
            storage_file.close(metadata.METADATA_VERSION, yaml.safe_dump(self._metadata(self._files[-1:])))
        except (OSError, sqlite3.Error) as error:
            self._storage_file = storage_file
            self._fail(error)

    def _metadata(self, files: Sequence[BagFileInfo]) -> dict[str, Any]:
        return metadata.build_metadata(files, list(self._topics.values()), storage=self._config.storage,
                                       compression=self._config.compression, notes=self._notes)

    def _write_metadata(self) -> None:
        try:
            metadata.write_metadata(self.folder, self._metadata(self._files))
        except OSError as error:
            raise BagError(f'cannot write {self.folder / metadata.METADATA_FILE}: {error.strerror}; free disk space, '
                           f'then run "apt-record --recover {self.folder}"') from error

    def _fail(self, error: Exception) -> NoReturn:
        """Close the bag so that it is readable, then raise BagError."""
        storage_file, self._storage_file = self._storage_file, None
        self._ballast.unlink(missing_ok=True)
        info = self._files[-1]
        if storage_file is not None:
            # Closing flushes, and fails for the same reason.
            with suppress(OSError, sqlite3.Error):
                storage_file.abort()
            self._files[-1] = repair_file(self.folder / info.name)
        self._notes['ended'] = str(error)
        self._write_metadata()
        count = sum(one.messages for one in self._files)
        raise BagError(f'cannot write {self.folder / info.name}: {error}; the bag is complete up to here, '
                       f'with {count} messages') from error
