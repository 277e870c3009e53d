"""Readers of damaged files of a bag, which read up to the damage.

MCAP files of a killed recorder lack their index, SQLite files may lack pages. Complete files are read by the libraries
in ``reader_backends``.
"""

import os
import sqlite3
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import lz4.frame
from backports import zstd

from apt_policy.core.errors import UserError

MAGIC = b'\x89MCAP0\r\n'
# Opcodes of MCAP records (mcap.dev/spec).
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x03, 0x04, 0x05, 0x06
_ENCODINGS = {'ros2msg', 'ros2idl'}


class TopicInfo(NamedTuple):
    """Topic of a file of a bag."""

    name: str
    """Full name."""
    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    encoding: str
    """Encoding of the definition: ``ros2msg``, ``ros2idl`` or empty."""
    definition: str
    """Text of the definition; empty if the file has none."""
    messages: int
    """Number of messages."""
    serialization: str
    """Serialization format; only ``cdr`` can be decoded."""


class RecoveryError(UserError, ValueError):
    """Error of a file that cannot be read at all."""


class RecoveringMcapReader:
    """Reader of a damaged MCAP file, record by record."""

    def __init__(self, path: Path) -> None:
        """Scan the file once.

        Raises:
            RecoveryError: it does not begin with the MCAP magic bytes, or has no topics.
        """
        self.path = path
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, tuple[int, str, str]] = {}
        self.damage = ''
        """Sentence about the position and cause of damage; empty while none is known."""
        counts: dict[str, int] = {}
        self.start_ns, self.end_ns = 2**63 - 1, 0
        for topic, stamp_ns, _ in self._records():
            counts[topic] = counts.get(topic, 0) + 1
            self.start_ns, self.end_ns = min(self.start_ns, stamp_ns), max(self.end_ns, stamp_ns + 1)
        if not self._channels:
            raise RecoveryError(self.damage or f'{path} has no topics')
        self.topics = [TopicInfo(topic, *self._schemas.get(schema, ('', '', '')), counts.get(topic, 0), encoding)
                       for schema, topic, encoding in self._channels.values()]

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield topic, receive time [ns] and serialized message (CDR), in the order of the file."""
        return (found for found in self._records() if found[0] in topics)

    def _records(self) -> Iterator[tuple[str, int, bytes | memoryview]]:
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise RecoveryError(f'{self.path} does not begin with the MCAP magic bytes')
            while (offset := file.tell()) < size:
                head = file.read(9)
                if head == MAGIC:
                    return
                kind, length = struct.unpack('<BQ', head.ljust(9, b'\0'))
                if offset + 9 + length > size:
                    self._set_damage(offset, size, 'it is truncated')
                    yield from self._partial_chunk(file, kind, size - offset - 9)
                    return
                try:
                    yield from self._record(kind, memoryview(file.read(length)))
                except (struct.error, ValueError, RuntimeError, zstd.ZstdError, KeyError) as error:
                    self._set_damage(offset, size, f'{type(error).__name__} {error}')
                    return
                file.seek(offset + 9 + length)
            self._set_damage(size, size, 'its index and end are missing')

    def _set_damage(self, offset: int, size: int, reason: str) -> None:
        self.damage = f'{self.path} cannot be read beyond byte {offset} of {size}: {reason}'

    def _record(self, kind: int, data: memoryview) -> Iterator[tuple[str, int, bytes | memoryview]]:
        if kind == _SCHEMA:
            number, = struct.unpack_from('<H', data)
            name, place = _text(data, 2)
            encoding, place = _text(data, place)
            self._schemas[number] = name, encoding if encoding in _ENCODINGS else '', _text(data, place)[0]
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from('<HH', data)
            topic, place = _text(data, 4)
            self._channels[number] = schema, topic, _text(data, place)[0]
        elif kind == _MESSAGE:
            number, _, stamp_ns = struct.unpack_from('<HIQ', data)
            yield self._channels[number][1], stamp_ns, data[22:]
        elif kind == _CHUNK:
            compression, place = _text(data, 28)
            length, = struct.unpack_from('<Q', data, place)
            packed = data[place + 8:place + 8 + length]
            yield from self._chunk_records(_decompress(packed, compression))

    def _chunk_records(self, chunk: memoryview) -> Iterator[tuple[str, int, bytes | memoryview]]:
        place = 0
        while place + 9 <= len(chunk):
            kind, length = struct.unpack_from('<BQ', chunk, place)
            if place + 9 + length > len(chunk):
                return
            yield from self._record(kind, chunk[place + 9:place + 9 + length])
            place += 9 + length

    def _partial_chunk(self, file: BinaryIO, kind: int, length: int
                       ) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield the complete messages of a truncated last chunk, if it is not compressed."""
        if kind != _CHUNK or length < 40:
            return
        data = memoryview(file.read(length))
        compression, place = _text(data, 28)
        if not compression:
            yield from self._chunk_records(data[place + 8:])


class RecoveringSqliteReader:
    """Reader of a damaged SQLite file, in the order in which its messages were written."""

    def __init__(self, path: Path) -> None:
        """Read the topics.

        Raises:
            RecoveryError: the topics cannot be read.
        """
        self.path = path
        self.damage = ''
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self._connection = sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True)
        # Otherwise SQLite refuses a file that is shorter than its header says.
        self._connection.execute('PRAGMA writable_schema = ON')
        try:
            self._names = {number: names for number, *names in self._connection.execute(
                'SELECT id, name, type, serialization_format FROM topics')}
        except sqlite3.Error as error:
            raise RecoveryError(f'{path} cannot be read: {error}{_truncation(path)}') from error
        counts: dict[str, int] = {}
        for topic, stamp_ns, _ in self._rows('length(data)'):
            counts[topic] = counts.get(topic, 0) + 1
            self.start_ns, self.end_ns = min(self.start_ns, stamp_ns), max(self.end_ns, stamp_ns + 1)
        definitions = self._definitions()
        self.topics = [TopicInfo(name, kind, *definitions.get(kind, ('', '')), counts.get(name, 0), serialization)
                       for name, kind, serialization in self._names.values()]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Yield topic, receive time [ns] and serialized message (CDR), in the order of the file."""
        return (found for found in self._rows('data') if found[0] in topics)

    def _rows(self, content: str) -> Iterator[tuple[str, int, Any]]:
        last_ns = 0
        try:
            for number, stamp_ns, data in self._connection.execute(
                    f'SELECT topic_id, timestamp, {content} FROM messages ORDER BY id'):
                last_ns = int(stamp_ns)
                yield self._names[number][0], last_ns, data
        # An SQLite column may hold values of any type.
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            where = f'after the message received at {last_ns / 1e9:.3f} s' if last_ns else 'at its first message'
            self.damage = f'{self.path} cannot be read {where}: {error}{_truncation(self.path)}'

    def _definitions(self) -> dict[str, tuple[str, str]]:
        try:
            return {kind: (encoding, text) for kind, encoding, text in self._connection.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions')}
        # Bags of ROS Humble and older have no such table.
        except sqlite3.Error:
            return {}


def recover_file(path: Path) -> RecoveringMcapReader | RecoveringSqliteReader:
    """Open a damaged file; its suffix gives the format.

    Raises:
        RecoveryError: nothing can be read.
    """
    return RecoveringMcapReader(path) if path.suffix == '.mcap' else RecoveringSqliteReader(path)


def _text(data: memoryview, place: int) -> tuple[str, int]:
    """Return a string and the offset behind it [B]."""
    length, = struct.unpack_from('<I', data, place)
    return bytes(data[place + 4:place + 4 + length]).decode(), place + 4 + length


def _decompress(data: memoryview, compression: str) -> memoryview:
    if compression == 'zstd':
        return memoryview(zstd.decompress(data))
    if compression == 'lz4':
        return memoryview(lz4.frame.decompress(data))
    if compression:
        raise ValueError(f'chunks are compressed with {compression!r}, expected zstd or lz4')
    return data


def _truncation(path: Path) -> str:
    """Return a phrase about a file that is shorter than its header says; else empty."""
    with path.open('rb') as file:
        head = file.read(32)
    if len(head) < 32 or not head.startswith(b'SQLite format 3\0'):
        return '; it does not begin with the SQLite magic bytes'
    page, pages = struct.unpack_from('>H', head, 16)[0], struct.unpack_from('>I', head, 28)[0]
    size, whole = os.path.getsize(path), (65536 if page == 1 else page) * pages
    return f'; it has {size} bytes, expected {whole} by its header' if size < whole else ''
