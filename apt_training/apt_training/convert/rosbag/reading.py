"""Reading a rosbag2 bag: a folder or a single file, whole or damaged, as topics, times and bytes.

What reads a file stands behind the port in ``readers``; ``salvage`` reads what is not whole. What
topics mean is not known here, and nothing is decoded unless asked for.
"""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from operator import index
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from backports import zstd

from apt_training.convert.rosbag.message_types import MessageTypes, canonical_kind
from apt_training.convert.rosbag.readers import BagFile, BagReader, ReaderChoice, readers_of
from apt_training.convert.rosbag.salvage import SalvageError, salvage
from apt_training.convert.source import ConvertError, one_line

METADATA = 'metadata.yaml'
RECOVERY = 'recovery'
"""What reads damaged files, in reports."""
_SUFFIXES = ('.mcap', '.db3')
_ZSTD_FILE = '.zstd'
_ZSTD = b'\x28\xb5\x2f\xfd'
_CDR = 'cdr'


class BagTopic(NamedTuple):
    """What is known of a topic before anything is read."""

    kind: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    messages: int


class Bag:
    """An open bag; a context manager."""

    def __init__(self, path: Path, reader: ReaderChoice = ReaderChoice.AUTO) -> None:
        """Remember where the bag is.

        Raises:
            ConvertError: there is no bag, or the reader that was asked for is not installed.
        """
        self.path = Path(path)
        self._readers = readers_of(reader)
        self.files = bag_files(self.path)
        self.topics: Mapping[str, BagTopic] = {}
        """By full name."""
        self.types = MessageTypes()
        self.start_ns, self.end_ns = 0, 0
        """Receive times of the first message and after the last one."""
        self.read_by: tuple[str, ...] = ()
        """The libraries that read its files."""
        self._parts: list[BagFile] = []
        self._foreign: dict[str, str] = {}
        self._damage: list[str] = []
        self._stack = ExitStack()
        self._closed = False

    def __enter__(self) -> 'Bag':
        try:
            self.read_by = tuple(dict.fromkeys(filter(None, map(self._open, self.files))))
        except BaseException:
            self._stack.close()
            raise
        counts: dict[str, BagTopic] = {}
        for part in self._parts:
            for topic in part.topics:
                kind = canonical_kind(topic.kind)
                before = counts.get(topic.name, BagTopic(kind, 0))
                counts[topic.name] = BagTopic(kind, before.messages + topic.messages)
                self.types.define(kind, topic.encoding, topic.definition)
                self._note_serialization(part.path, topic.name, topic.serialization)
        for name, serialization in _serializations(_metadata(self.path)).items():
            self._note_serialization(self.path / METADATA, name, serialization)
        self.topics = counts
        filled = [part for part in self._parts if any(topic.messages for topic in part.topics)]
        if not filled:
            self._stack.close()
            raise ConvertError(self.damage or f'{self.path} holds no messages; record again (apt-record), or leave it '
                               'out')
        self.start_ns = min(part.start_ns for part in filled)
        self.end_ns = max(part.end_ns for part in filled)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._stack.close()

    @property
    def damage(self) -> str:
        """What could not be read, with file and offset; final when all messages were taken."""
        return '; '.join(dict.fromkeys([*self._damage, *(part.damage for part in self._parts if part.damage)]))

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Topic, receive time [ns] and CDR bytes of every message, file after file.

        Ends where a file cannot be read on; :attr:`damage` then says so.

        Raises:
            ConvertError: at once, if messages of one of the topics cannot be decoded: they are not CDR, or the bag
                defines their type otherwise than it is known here.
        """
        for topic in sorted(self.topics.keys() & set(topics)):
            if topic in self._foreign:
                raise ConvertError(self._foreign[topic])
            try:
                self.types.check_agreement(self.topics[topic].kind)
            except ConvertError as error:
                raise ConvertError(f'{self.path}: {topic}: {error}') from error
        return self._messages(topics)

    def _messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        for part in self._parts:
            try:
                for topic, receive_ns, raw in part.messages(topics):
                    # SQLite keeps any value in any column: what is no number or no bytes is refused here.
                    packed = bytes(raw[:4]) == _ZSTD
                    yield topic, index(receive_ns), zstd.decompress(raw) if packed else raw
            # Whatever the readers of damaged files come across, SQLite's own errors among them.
            except Exception as error:
                if self._closed:
                    raise RuntimeError(f'{self.path} was closed while it was read') from error
                self._damage.append(_located(part.path, error))
                return

    def message(self, topic: str, raw: bytes | memoryview) -> Any:
        """The message of bytes of a topic.

        Raises:
            ConvertError: naming bag and topic.
        """
        try:
            return self.types.message(self.topics[topic].kind, raw)
        except ConvertError as error:
            raise ConvertError(f'{self.path}: {topic}: {error}') from error

    def _note_serialization(self, where: Path, topic: str, serialization: str) -> None:
        if serialization != _CDR:
            self._foreign.setdefault(topic, f'{where}: {topic} is serialized as {serialization!r}, expected {_CDR!r}; '
                                            'convert the bag to CDR (ros2 bag convert), or record again')

    def _open(self, file: Path) -> str:
        """Open a file and return what reads it; empty if nothing does."""
        try:
            readable = self._unzipped(file) if file.suffix == _ZSTD_FILE else file
            name, part = _open_part(readable, file, self._readers)
        except OSError:
            raise
        # A damaged file makes errors of every kind in whatever looks at it.
        except Exception as error:
            named = isinstance(error, (SalvageError, zstd.ZstdError, EOFError))
            why = one_line(error) if named else f'{type(error).__name__} {one_line(error)}'
            self._damage.append(f'{file} cannot be read at all: {why}')
            return ''
        self._stack.callback(part.close)
        self._parts.append(part)
        return name

    def _unzipped(self, file: Path) -> Path:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix='apt-convert-')))
        target = folder / file.stem
        with file.open('rb') as packed, zstd.open(packed, 'rb') as content, target.open('wb') as copy:
            shutil.copyfileobj(content, copy)
        return target


def bag_files(path: Path) -> list[Path]:
    """The files of a bag, in order; of a folder those that its metadata names, else all that it holds.

    Raises:
        ConvertError: no such path, or no bag.
    """
    if not path.exists():
        raise ConvertError(f'{path} does not exist; give rosbag2 folders, .mcap or .db3 files')
    if path.is_file():
        if not _is_storage(path):
            raise ConvertError(f'{path} is no bag: its name ends in {path.suffix or "nothing"!r}, expected '
                               f'{", ".join(_SUFFIXES)}, or these with {_ZSTD_FILE}')
        return [path]
    here = sorted((file for file in path.iterdir() if _is_storage(file)), key=_counted)
    named = _file_names(_metadata(path))
    odd = [name for name in named if not _is_storage(Path(name))]
    if odd:
        raise ConvertError(f'{path / METADATA} names {odd[0]!r} as a file of the bag, expected names that end in '
                           f'{", ".join(_SUFFIXES)}, or these with {_ZSTD_FILE}; make it anew (ros2 bag reindex)')
    missing = [name for name in named if not (path / name).is_file()]
    if missing:
        raise ConvertError(f'{path / METADATA} names files that are missing: {", ".join(missing)}; copy the bag again, '
                           'whole')
    files = [path / name for name in named] or here
    if not files:
        raise ConvertError(f'{path} is no bag: it holds neither .mcap nor .db3 files')
    return files


def _open_part(path: Path, called: Path, readers: tuple[BagReader, ...]) -> tuple[str, BagFile]:
    """Open a file with the first reader that can, else recover it; also says what reads it."""
    if not path.stat().st_size:
        raise SalvageError('it is empty')
    errors = []
    for reader in readers:
        try:
            return reader.name, reader.open(path, called)
        # Readers meet damaged files with errors of every kind.
        except Exception as error:
            errors.append(one_line(error))
    part: BagFile = salvage(path)
    part.damage = part.damage or f'{called} is damaged: {errors[-1]}'
    part.damage = part.damage.replace(str(path), str(called))
    return RECOVERY, part


def _located(path: Path, error: Exception) -> str:
    """Says where a file that was opened whole breaks off after all."""
    try:
        found = salvage(path).damage if path.suffix in _SUFFIXES else ''
    except SalvageError:
        found = ''
    return found or f'{path} cannot be read on: {type(error).__name__} {one_line(error)}'


def _is_storage(path: Path) -> bool:
    return (path.with_suffix('') if path.suffix == _ZSTD_FILE else path).suffix in _SUFFIXES


def _counted(path: Path) -> tuple[str | int, ...]:
    """bag_2 comes before bag_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name))


def _metadata(folder: Path) -> Any:
    """What ``metadata.yaml`` says of the bag; None where there is none to be read: a killed recorder leaves none."""
    try:
        return yaml.safe_load((folder / METADATA).read_text())['rosbag2_bagfile_information']
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, RecursionError):
        return None


def _file_names(metadata: Any) -> list[str]:
    try:
        return [PurePath(name).name for name in metadata['relative_file_paths']]
    except (KeyError, TypeError):
        return []


def _serializations(metadata: Any) -> dict[str, str]:
    """By topic."""
    try:
        said = [topic['topic_metadata'] for topic in metadata['topics_with_message_count']]
        return {topic['name']: str(topic.get('serialization_format', _CDR)) for topic in said}
    except (KeyError, TypeError, AttributeError):
        return {}
