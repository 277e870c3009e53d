"""What can still be read of a bag's file that is damaged: from its front to where it breaks off.

MCAP files whose recorder was killed lack their index, SQLite files may lack pages. Whole files
are read by rosbags (``reading``), not here.
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
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x03, 0x04, 0x05, 0x06
_ENCODINGS = {'ros2msg', 'ros2idl'}


class SalvagedTopic(NamedTuple):
    """One topic of a damaged file."""

    name: str
    kind: str
    encoding: str
    """Of the definition: ``ros2msg``, ``ros2idl`` or empty."""
    definition: str
    messages: int
    serialization: str
    """Of its messages; ``cdr`` is the only one that can be decoded."""


class SalvageError(UserError, ValueError):
    """A file of which nothing can be read."""


class SalvagedMcap:
    """An MCAP file, record by record."""

    def __init__(self, path: Path) -> None:
        """Look through the whole file once.

        Raises:
            SalvageError: it does not begin as an MCAP file does, or holds no topics.
        """
        self.path = path
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, tuple[int, str, str]] = {}
        self.damage = ''
        """Where reading ended, and why; empty while nothing is known to be wrong."""
        counts: dict[str, int] = {}
        self.start_ns, self.end_ns = 2**63 - 1, 0
        for topic, stamp_ns, _ in self._records():
            counts[topic] = counts.get(topic, 0) + 1
            self.start_ns, self.end_ns = min(self.start_ns, stamp_ns), max(self.end_ns, stamp_ns + 1)
        if not self._channels:
            raise SalvageError(self.damage or f'{path} holds no topics')
        self.topics = [SalvagedTopic(topic, *self._schemas.get(schema, ('', '', '')), counts.get(topic, 0), encoding)
                       for schema, topic, encoding in self._channels.values()]

    def close(self) -> None:
        """Nothing is held open."""

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and content of every message, in the order of the file."""
        return (found for found in self._records() if found[0] in topics)

    def _records(self) -> Iterator[tuple[str, int, bytes | memoryview]]:
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise SalvageError(f'{self.path} does not begin as an MCAP file does')
            while (offset := file.tell()) < size:
                head = file.read(9)
                if head == MAGIC:
                    return
                kind, length = struct.unpack('<BQ', head.ljust(9, b'\0'))
                if offset + 9 + length > size:
                    self._broke_off(offset, size, 'it is truncated')
                    yield from self._partial_chunk(file, kind, size - offset - 9)
                    return
                try:
                    yield from self._record(kind, memoryview(file.read(length)))
                except (struct.error, ValueError, RuntimeError, zstd.ZstdError, KeyError) as error:
                    self._broke_off(offset, size, f'{type(error).__name__} {error}')
                    return
                file.seek(offset + 9 + length)
            self._broke_off(size, size, 'its index and end are missing')

    def _broke_off(self, offset: int, size: int, why: str) -> None:
        self.damage = f'{self.path} cannot be read beyond byte {offset} of {size}: {why}'

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
            yield from self._inside(_unpacked(packed, compression))

    def _inside(self, chunk: memoryview) -> Iterator[tuple[str, int, bytes | memoryview]]:
        place = 0
        while place + 9 <= len(chunk):
            kind, length = struct.unpack_from('<BQ', chunk, place)
            if place + 9 + length > len(chunk):
                return
            yield from self._record(kind, chunk[place + 9:place + 9 + length])
            place += 9 + length

    def _partial_chunk(self, file: BinaryIO, kind: int, length: int
                       ) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """The whole messages of a last chunk that was cut off, if it was not compressed."""
        if kind != _CHUNK or length < 40:
            return
        data = memoryview(file.read(length))
        compression, place = _text(data, 28)
        if not compression:
            yield from self._inside(data[place + 8:])


class SalvagedSqlite:
    """An SQLite file, in the order in which its messages were written."""

    def __init__(self, path: Path) -> None:
        """Read the list of topics.

        Raises:
            SalvageError: not even that is there.
        """
        self.path = path
        self.damage = ''
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self._connection = sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True)
        # Else SQLite refuses a file that is shorter than its header says.
        self._connection.execute('PRAGMA writable_schema = ON')
        try:
            self._names = {number: names for number, *names in self._connection.execute(
                'SELECT id, name, type, serialization_format FROM topics')}
        except sqlite3.Error as error:
            raise SalvageError(f'{path} cannot be read: {error}{_lost_pages(path)}') from error
        counts: dict[str, int] = {}
        for topic, stamp_ns, _ in self._rows('length(data)'):
            counts[topic] = counts.get(topic, 0) + 1
            self.start_ns, self.end_ns = min(self.start_ns, stamp_ns), max(self.end_ns, stamp_ns + 1)
        definitions = self._definitions()
        self.topics = [SalvagedTopic(name, kind, *definitions.get(kind, ('', '')), counts.get(name, 0), serialization)
                       for name, kind, serialization in self._names.values()]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and content of every message, in the order of the file."""
        return (found for found in self._rows('data') if found[0] in topics)

    def _rows(self, content: str) -> Iterator[tuple[str, int, Any]]:
        last_ns = 0
        try:
            for number, stamp_ns, data in self._connection.execute(
                    f'SELECT topic_id, timestamp, {content} FROM messages ORDER BY id'):
                last_ns = int(stamp_ns)
                yield self._names[number][0], last_ns, data
        # SQLite keeps any value in any column.
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            where = f'after the message received at {last_ns / 1e9:.3f} s' if last_ns else 'at its first message'
            self.damage = f'{self.path} cannot be read {where}: {error}{_lost_pages(self.path)}'

    def _definitions(self) -> dict[str, tuple[str, str]]:
        try:
            return {kind: (encoding, text) for kind, encoding, text in self._connection.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions')}
        # Bags of ROS Humble and before have no such table.
        except sqlite3.Error:
            return {}


def salvage(path: Path) -> SalvagedMcap | SalvagedSqlite:
    """Open what is left of ``path``, by its ending.

    Raises:
        SalvageError: nothing.
    """
    return SalvagedMcap(path) if path.suffix == '.mcap' else SalvagedSqlite(path)


def _text(data: memoryview, place: int) -> tuple[str, int]:
    """A string and where the next thing begins."""
    length, = struct.unpack_from('<I', data, place)
    return bytes(data[place + 4:place + 4 + length]).decode(), place + 4 + length


def _unpacked(data: memoryview, compression: str) -> memoryview:
    if compression == 'zstd':
        return memoryview(zstd.decompress(data))
    if compression == 'lz4':
        return memoryview(lz4.frame.decompress(data))
    if compression:
        raise ValueError(f'chunks are compressed with {compression!r}; zstd and lz4 can be read')
    return data


def _lost_pages(path: Path) -> str:
    """What the file's own header says of its length, if it is shorter."""
    with path.open('rb') as file:
        head = file.read(32)
    if len(head) < 32 or not head.startswith(b'SQLite format 3\0'):
        return '; it does not begin as an SQLite file does'
    page, pages = struct.unpack_from('>H', head, 16)[0], struct.unpack_from('>I', head, 28)[0]
    size, whole = os.path.getsize(path), (65536 if page == 1 else page) * pages
    return f'; it ends at byte {size}, its header promises {whole}' if size < whole else ''
