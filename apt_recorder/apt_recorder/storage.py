"""Storage files of a bag, MCAP or SQLite, written with ``rosbags`` so that they survive a crash.

Beyond ``rosbags``: a file has its final name from the start, big messages are copied once rather than five times, and
:meth:`StorageFile.flush` bounds what a ``kill -9`` can lose.
"""

import sqlite3
import struct
from collections import defaultdict
from enum import Enum
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from backports import zstd
from rosbags.interfaces import Connection
from rosbags.rosbag2.storage_mcap import McapWriter, PendingChunk
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

MAGIC = b'\x89MCAP0\r\n'
HEADER, MESSAGE, CHUNK, MESSAGE_INDEX = 0x01, 0x05, 0x06, 0x07
"""Opcodes of MCAP records (mcap.dev/spec)."""

_MESSAGE = struct.Struct('<BQHIQQ')
_INDEX = struct.Struct('<BQHI')
_CHUNK_HEAD = struct.Struct('<QQQI')
# Size of an MCAP chunk or an SQLite transaction, after which it is written [B].
_CHUNK_BYTES = 2**20
_NEVER_NS = 2**63 - 1


class BagStorage(Enum):
    """Storage formats of rosbag2."""

    MCAP = 'mcap'
    SQLITE3 = 'sqlite3'

    @property
    def suffix(self) -> str:
        """Suffix of file names."""
        return '.mcap' if self is BagStorage.MCAP else '.db3'


class Compression(Enum):
    """Scope of zstd compression."""

    NONE = 'none'
    CHUNK = 'chunk'
    """Compresses chunks of about a megabyte; MCAP only."""
    MESSAGE = 'message'
    """Compresses each message separately."""


class StorageFile(Protocol):
    """Storage file of either format."""

    def add_msgtype(self, connection: Connection) -> None:
        """Store the definition of a message type; called once per type."""

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        """Add a topic."""

    def write(self, connection: Connection, timestamp: int, data: bytes) -> None:
        """Append a message."""

    def flush(self) -> None:
        """Hand all messages to the operating system."""

    def close(self, version: int, metadata: str) -> None:
        """Finish the file."""

    def abort(self) -> None:
        """Close the file without finishing it."""


def open_file(path: Path, storage: BagStorage, compression: Compression) -> StorageFile:
    """Create a storage file, which must not exist.

    Raises:
        OSError: it exists or cannot be created.
        sqlite3.Error: it cannot be created.
    """
    if storage is BagStorage.MCAP:
        return _McapFile(path, compress=compression is Compression.CHUNK)
    return _SqliteFile(path)


class _McapFile(McapWriter):
    """MCAP writer of ``rosbags`` that copies each message once."""

    def __init__(self, path: Path, *, compress: bool) -> None:
        # The inherited constructor names the file after its folder.
        self.path = path
        self.bio = path.open('xb')
        header = _text('ros2') + _text(f'rosbags-{version("rosbags")}')
        self.bio.write(MAGIC + _record(HEADER, header))
        self.schemas, self.channels, self.chunks = [], [], []
        self.chunk = _empty_chunk()
        self.compression = 'zstd' if compress else ''
        self.compressor = zstd.compress if compress else bytes
        self.message_start_time, self.message_end_time = _NEVER_NS, 0
        self.channel_stats = {}
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, connection: Connection, timestamp: int, data: Any) -> None:
        """Append a message."""
        self._append_buffered_records()
        chunk = self.chunk
        chunk.message_start_time = min(timestamp, chunk.message_start_time)
        chunk.message_end_time = max(timestamp, chunk.message_end_time)
        self.message_start_time = min(timestamp, self.message_start_time)
        self.message_end_time = max(timestamp, self.message_end_time)
        self.channel_stats[connection.id] += 1
        chunk.msgs[connection.id].append((timestamp, self._size))
        self._append(_MESSAGE.pack(MESSAGE, 22 + len(data), connection.id, 0, timestamp, timestamp))
        self._append(data)
        if self._size > _CHUNK_BYTES:
            self.close_chunk()

    def flush(self) -> None:
        """Hand all messages to the operating system."""
        self._append_buffered_records()
        if self.chunk.msgs:
            self.close_chunk()
        self.bio.flush()

    def close_chunk(self) -> None:
        """Write the pending chunk and its index."""
        self._append_buffered_records()
        chunk, size = self.chunk, self._size
        content = self.compressor(b''.join(self._pieces))
        compression = _text(self.compression) + struct.pack('<Q', len(content))
        times = (chunk.message_start_time, chunk.message_end_time)
        start = self.bio.tell()
        head = _CHUNK_HEAD.pack(*times, size, 0) + compression
        self.bio.write(struct.pack('<BQ', CHUNK, len(head) + len(content)) + head)
        self.bio.write(content)
        end = self.bio.tell()
        offsets = []
        for channel, entries in chunk.msgs.items():
            offsets.append(struct.pack('<HQ', channel, self.bio.tell()))
            table = b''.join(struct.pack('<QQ', *entry) for entry in entries)
            self.bio.write(_INDEX.pack(MESSAGE_INDEX, 6 + len(table), channel, len(table)) + table)
        # All records are complete here: a crash after this loses nothing of the chunk.
        self.bio.flush()
        index = BytesIO()
        index.write(struct.pack('<QQQQI', *times, start, end - start, 10 * len(offsets)) + b''.join(offsets))
        index.write(struct.pack('<Q', self.bio.tell() - end) + compression + struct.pack('<Q', size))
        self.chunks.append(index)
        self.chunk, self._pieces, self._size = _empty_chunk(), [], 0

    def close(self, version: int, metadata: str) -> None:
        """Write the last chunk and the summary."""
        self._append_buffered_records()
        if self._pieces:
            self.close_chunk()
        super().close(version, metadata)

    def _append_buffered_records(self) -> None:
        """Append the schemas and channels that the inherited methods wrote to the chunk's buffer."""
        if self.chunk.bio.tell():
            self._append(self.chunk.bio.getvalue())
            self.chunk.bio = BytesIO()

    def _append(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)


class _SqliteFile(Sqlite3Writer):
    """SQLite writer of ``rosbags`` that commits when it is flushed."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise FileExistsError(f'{path} exists')
        self.path = path
        # It is opened in one thread, and written and closed in another.
        self.conn = sqlite3.connect(f'file:{path}', uri=True, check_same_thread=False)
        # A crash of the program loses nothing that was committed; syncing each commit to the disk would cost seconds.
        self.conn.execute('PRAGMA synchronous=OFF')
        self.conn.executescript(self.SQLITE_SCHEMA)
        self.cursor = self.conn.cursor()
        self._open_bytes = 0

    def write(self, connection: Connection, timestamp: int, data: Any) -> None:
        """Append a message."""
        super().write(connection, timestamp, data)
        self._open_bytes += len(data)
        if self._open_bytes > _CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit the open transaction."""
        self.conn.commit()
        self._open_bytes = 0


def _empty_chunk() -> PendingChunk:
    return PendingChunk(_NEVER_NS, 0, BytesIO(), defaultdict(list))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack('<I', len(data)) + data


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack('<BQ', kind, len(content)) + content
