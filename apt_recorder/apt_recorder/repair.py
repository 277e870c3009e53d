"""Recovery of bags whose recording was killed.

An MCAP file is cut behind its last complete record and given an end; SQLite rolls back what was not committed. Files
are repaired in place.
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
from apt_recorder.metadata import BagFileInfo
from apt_recorder.storage import MAGIC, BagStorage, Compression

# Opcodes of MCAP records (mcap.dev/spec).
_FOOTER, _DATA_END, _LAST_KIND = 0x02, 0x0F, 0x0F
# A data section without checksum, a footer without summary, and the magic bytes.
_END = struct.pack('<BQI', _DATA_END, 4, 0) + struct.pack('<BQQQI', _FOOTER, 20, 0, 0, 0) + MAGIC
# First bytes of zstd frames (RFC 8878).
_ZSTD = b'\x28\xb5\x2f\xfd'


class RepairError(UserError, ValueError):
    """Error of a folder or file from which nothing can be recovered."""


def repair_file(path: Path) -> BagFileInfo:
    """Make a storage file readable and return its content; a complete file is not changed.

    Raises:
        RepairError: it is no storage file, or its beginning is damaged.
    """
    info, _ = _repair(path)
    return info


def recover_bag(folder: Path) -> tuple[BagFileInfo, ...]:
    """Repair the files in ``folder`` and write its ``metadata.yaml``.

    Returns:
        The files of the bag.

    Raises:
        RepairError: the folder has no readable file.
    """
    files = sorted((path for path in folder.glob('*') if path.suffix in ('.mcap', '.db3')), key=_number)
    if not files:
        raise RepairError(f'{folder} is no bag: it has neither .mcap nor .db3 files')
    recovered: list[BagFileInfo] = []
    connections: dict[str, Connection] = {}
    failures = []
    for path in files:
        try:
            info, found = _repair(path)
        except RepairError as error:
            failures.append(str(error))
            continue
        recovered.append(info)
        connections |= {connection.topic: connection for connection in found}
    if not recovered:
        raise RepairError('; '.join(failures))
    (folder / '.ballast').unlink(missing_ok=True)
    storage = BagStorage.MCAP if files[0].suffix == '.mcap' else BagStorage.SQLITE3
    metadata.write_metadata(folder, metadata.build_metadata(
        recovered, list(connections.values()), storage=storage, compression=_compression(folder / recovered[0].name),
        notes={'recovered': 'the recording was killed'}))
    return tuple(recovered)


def _repair(path: Path) -> tuple[BagFileInfo, list[Connection]]:
    try:
        if path.suffix == '.mcap':
            _finish_mcap(path)
        else:
            _roll_back_sqlite(path)
        with Reader(path) as reader:
            counts = {connection.topic: connection.msgcount for connection in reader.connections}
            info = BagFileInfo(name=path.name, counts=counts)
            if reader.message_count:
                info = replace(info, start_ns=reader.start_time, end_ns=reader.end_time - 1)
            return info, list(reader.connections)
    except (ReaderError, sqlite3.Error, OSError) as error:
        raise RepairError(f'cannot recover {path}: {error}') from error


def _finish_mcap(path: Path) -> None:
    with path.open('r+b') as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RepairError(f'cannot recover {path}: it does not begin with the MCAP magic bytes')
        if _is_complete(file):
            return
        file.seek(len(MAGIC))
        file.truncate(_last_record_end(file))
        file.seek(0, 2)
        file.write(_END)


def _is_complete(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    file.seek(max(size - len(MAGIC), len(MAGIC)))
    return file.read() == MAGIC


def _last_record_end(file: BinaryIO) -> int:
    """Return the offset behind the last complete record of the data section [B]."""
    size, end = file.seek(0, 2), len(MAGIC)
    while end + 9 <= size:
        file.seek(end)
        kind, length = struct.unpack('<BQ', file.read(9))
        # After a power failure the rest of a file may be zeros.
        if not 0 < kind < _LAST_KIND or kind == _FOOTER or end + 9 + length > size:
            break
        end += 9 + length
    return end


def _roll_back_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        # The first query rolls back what was not committed.
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
