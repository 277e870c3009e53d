"""Makes files readable whose recording was killed, and bags of them.

An MCAP file is cut behind its last whole record and given an end; SQLite undoes by itself what was not
committed. What was on disk stays, in place, without a second copy.
"""

import re
import sqlite3
import struct
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from apt_policy.core.errors import UserError
from apt_recorder import metadata
from apt_recorder.metadata import PartFacts
from apt_recorder.storage import MAGIC, Compression, Storage

_FOOTER, _DATA_END, _LAST_KIND = 0x02, 0x0F, 0x0F
_END = struct.pack('<BQI', _DATA_END, 4, 0) + struct.pack('<BQQQI', _FOOTER, 20, 0, 0, 0) + MAGIC
_ZSTD = b'\x28\xb5\x2f\xfd'


class RepairError(UserError, ValueError):
    """A folder or file in which there is nothing to save; the message says which."""


def repair(path: Path) -> PartFacts:
    """Make one file readable and say what it holds; a whole file stays as it is.

    Raises:
        RepairError: not even its beginning is there.
    """
    facts, _ = _mended(path)
    return facts


def recover(folder: Path) -> tuple[PartFacts, ...]:
    """Make a bag of what a killed recording left behind in ``folder``.

    Raises:
        RepairError: no file in it can be read.
    """
    files = sorted((path for path in folder.glob('*') if path.suffix in ('.mcap', '.db3')), key=_number)
    if not files:
        raise RepairError(f'{folder} holds neither .mcap nor .db3 files: it is no bag')
    parts: list[PartFacts] = []
    connections: dict[str, Connection] = {}
    failures = []
    for path in files:
        try:
            facts, found = _mended(path)
        except RepairError as error:
            failures.append(str(error))
            continue
        parts.append(facts)
        connections |= {connection.topic: connection for connection in found}
    if not parts:
        raise RepairError('; '.join(failures))
    (folder / '.ballast').unlink(missing_ok=True)
    storage = Storage.MCAP if files[0].suffix == '.mcap' else Storage.SQLITE3
    metadata.write(folder, metadata.describe(
        parts, list(connections.values()), storage=storage, compression=_compression(folder / parts[0].name),
        notes={'recovered': 'the recording was killed'}))
    return tuple(parts)


def _mended(path: Path) -> tuple[PartFacts, list[Connection]]:
    try:
        if path.suffix == '.mcap':
            _end_mcap(path)
        else:
            _settle_sqlite(path)
        with Reader(path) as reader:
            counts = {connection.topic: connection.msgcount for connection in reader.connections}
            facts = PartFacts(name=path.name, counts=counts)
            if reader.message_count:
                facts = replace(facts, start_ns=reader.start_time, end_ns=reader.end_time - 1)
            return facts, list(reader.connections)
    except (ReaderError, sqlite3.Error, OSError) as error:
        raise RepairError(f'{path} cannot be saved: {error}') from error


def _end_mcap(path: Path) -> None:
    with path.open('r+b') as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RepairError(f'{path} cannot be saved: it does not begin like an MCAP file')
        if _is_whole(file):
            return
        file.seek(len(MAGIC))
        file.truncate(_last_whole(file))
        file.seek(0, 2)
        file.write(_END)


def _is_whole(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    file.seek(max(size - len(MAGIC), len(MAGIC)))
    return file.read() == MAGIC


def _last_whole(file: BinaryIO) -> int:
    """Where the last complete record of the data ends; ``file`` stands behind the magic."""
    size, end = file.seek(0, 2), len(MAGIC)
    while end + 9 <= size:
        file.seek(end)
        kind, length = struct.unpack('<BQ', file.read(9))
        # The disk of a machine that lost its power may hold zeros.
        if not 0 < kind < _LAST_KIND or kind == _FOOTER or end + 9 + length > size:
            break
        end += 9 + length
    return end


def _settle_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        # Whatever was not committed is rolled back by the first look.
        connection.execute('SELECT count(*) FROM messages').fetchone()
    finally:
        connection.close()


def _compression(path: Path) -> Compression:
    with Reader(path) as reader:
        first = next((data for _, _, data in reader.messages()), b'')
    return Compression.MESSAGE if first[:4] == _ZSTD else Compression.NONE


def _number(path: Path) -> tuple[int, str]:
    found = re.search(r'_(\d+)$', path.stem)
    return (int(found[1]) if found else -1, path.name)
