"""Reader of a rosbag2 bag, complete or damaged, folder or single file: topics, receive times and bytes.

``reader_backends`` reads complete files and ``recovery`` damaged ones. Messages are decoded on request only.
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

from apt_training.convert.rosbag.message_types import MessageDecoder, canonical_type_name
from apt_training.convert.rosbag.reader_backends import BagFile, ReaderBackend, ReaderChoice, available_backends
from apt_training.convert.rosbag.recovery import RecoveryError, recover_file
from apt_training.convert.source import ConvertError, one_line

METADATA = 'metadata.yaml'
RECOVERY = 'recovery'
"""Name of the reader of damaged files in reports."""
_SUFFIXES = ('.mcap', '.db3')
_ZSTD_FILE = '.zstd'
# First bytes of zstd frames (RFC 8878).
_ZSTD = b'\x28\xb5\x2f\xfd'
_CDR = 'cdr'


class TopicSummary(NamedTuple):
    """Message type and count of a topic."""

    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    messages: int
    """Number of messages."""


class BagReader:
    """Open bag; a context manager."""

    def __init__(self, path: Path, reader: ReaderChoice = ReaderChoice.AUTO) -> None:
        """Find the files of the bag.

        Args:
            path: folder or single file.
            reader: library to read with.

        Raises:
            ConvertError: there is no bag, or the requested library is not installed.
        """
        self.path = Path(path)
        self._backends = available_backends(reader)
        self.files = bag_files(self.path)
        self.topics: Mapping[str, TopicSummary] = {}
        """Topics by full name."""
        self.decoder = MessageDecoder()
        self.start_ns, self.end_ns = 0, 0
        """Receive time of the first message and time after the last one [ns]."""
        self.read_by: tuple[str, ...] = ()
        """Names of the libraries that read its files."""
        self._open_files: list[BagFile] = []
        self._foreign: dict[str, str] = {}
        self._damage: list[str] = []
        self._stack = ExitStack()
        self._closed = False

    def __enter__(self) -> 'BagReader':
        try:
            self.read_by = tuple(dict.fromkeys(filter(None, map(self._open, self.files))))
        except BaseException:
            self._stack.close()
            raise
        counts: dict[str, TopicSummary] = {}
        for file in self._open_files:
            for topic in file.topics:
                type_name = canonical_type_name(topic.type_name)
                before = counts.get(topic.name, TopicSummary(type_name, 0))
                counts[topic.name] = TopicSummary(type_name, before.messages + topic.messages)
                self.decoder.add_definition(type_name, topic.encoding, topic.definition)
                self._note_serialization(file.path, topic.name, topic.serialization)
        for name, serialization in _serializations(_metadata(self.path)).items():
            self._note_serialization(self.path / METADATA, name, serialization)
        self.topics = counts
        filled = [file for file in self._open_files if any(topic.messages for topic in file.topics)]
        if not filled:
            self._stack.close()
            raise ConvertError(self.damage or f'{self.path} has no messages: record again (apt-record), or omit it')
        self.start_ns = min(file.start_ns for file in filled)
        self.end_ns = max(file.end_ns for file in filled)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._stack.close()

    @property
    def damage(self) -> str:
        """Sentence about unreadable parts, with file and offset; complete after the last message."""
        return '; '.join(dict.fromkeys([*self._damage, *(file.damage for file in self._open_files if file.damage)]))

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Return an iterator of topic, receive time [ns] and serialized message (CDR), file after file.

        The iterator ends at damage, which :attr:`damage` describes then.

        Raises:
            ConvertError: at the call, if messages of one of the topics cannot be decoded: they are not CDR, or the bag
                defines their type differently from the installed one.
        """
        for topic in sorted(self.topics.keys() & set(topics)):
            if topic in self._foreign:
                raise ConvertError(self._foreign[topic])
            try:
                self.decoder.check_agreement(self.topics[topic].type_name)
            except ConvertError as error:
                raise ConvertError(f'{self.path}: {topic}: {error}') from error
        return self._messages(topics)

    def _messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        for file in self._open_files:
            try:
                for topic, receive_ns, raw in file.messages(topics):
                    # An SQLite column may hold values of any type: index() refuses what is not an integer.
                    compressed = bytes(raw[:4]) == _ZSTD
                    yield topic, index(receive_ns), zstd.decompress(raw) if compressed else raw
            # Damaged files raise errors of any kind, those of SQLite included.
            except Exception as error:
                if self._closed:
                    raise RuntimeError(f'{self.path} was closed during iteration') from error
                self._damage.append(_describe_damage(file.path, error))
                return

    def decode(self, topic: str, raw: bytes | memoryview) -> Any:
        """Decode a message of a topic.

        Raises:
            ConvertError: the type is unknown or differs, or the bytes are no such message; names bag and topic.
        """
        try:
            return self.decoder.decode(self.topics[topic].type_name, raw)
        except ConvertError as error:
            raise ConvertError(f'{self.path}: {topic}: {error}') from error

    def _note_serialization(self, where: Path, topic: str, serialization: str) -> None:
        if serialization != _CDR:
            self._foreign.setdefault(topic, f'{where}: {topic} is serialized as {serialization!r}, expected {_CDR!r}: '
                                            'convert the bag to CDR (ros2 bag convert), or record again')

    def _open(self, file: Path) -> str:
        """Open a file and return the name of its reader; empty if none can read it."""
        try:
            readable = self._decompress(file) if file.suffix == _ZSTD_FILE else file
            name, opened = _open_file(readable, file, self._backends)
        except OSError:
            raise
        # A damaged file raises errors of any kind.
        except Exception as error:
            expected = isinstance(error, (RecoveryError, zstd.ZstdError, EOFError))
            reason = one_line(error) if expected else f'{type(error).__name__} {one_line(error)}'
            self._damage.append(f'{file} cannot be read at all: {reason}')
            return ''
        self._stack.callback(opened.close)
        self._open_files.append(opened)
        return name

    def _decompress(self, file: Path) -> Path:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix='apt-convert-')))
        target = folder / file.stem
        with file.open('rb') as compressed, zstd.open(compressed, 'rb') as content, target.open('wb') as copy:
            shutil.copyfileobj(content, copy)
        return target


def bag_files(path: Path) -> list[Path]:
    """Return the files of a bag, in order: those in its metadata, else all in its folder.

    Raises:
        ConvertError: the path does not exist, or is no bag.
    """
    if not path.exists():
        raise ConvertError(f'{path} does not exist, expected a rosbag2 folder, a .mcap or a .db3 file')
    if path.is_file():
        if not _is_storage(path):
            raise ConvertError(f'{path} is no bag: its suffix is {path.suffix or "empty"!r}, expected '
                               f'{", ".join(_SUFFIXES)}, or these with {_ZSTD_FILE}')
        return [path]
    here = sorted((file for file in path.iterdir() if _is_storage(file)), key=_natural_order)
    named = _file_names(_metadata(path))
    wrong = [name for name in named if not _is_storage(Path(name))]
    if wrong:
        raise ConvertError(f'{path / METADATA} names the file {wrong[0]!r}, expected suffixes '
                           f'{", ".join(_SUFFIXES)}, or these with {_ZSTD_FILE}: run ros2 bag reindex')
    missing = [name for name in named if not (path / name).is_file()]
    if missing:
        raise ConvertError(f'{path / METADATA} names missing files {", ".join(missing)}: copy the '
                           'whole bag again')
    files = [path / name for name in named] or here
    if not files:
        raise ConvertError(f'{path} is no bag: it has neither .mcap nor .db3 files')
    return files


def _open_file(path: Path, shown_path: Path, backends: tuple[ReaderBackend, ...]) -> tuple[str, BagFile]:
    """Open a file with the first library that can, else recover it; return the name of its reader too."""
    if not path.stat().st_size:
        raise RecoveryError('it is empty')
    errors = []
    for backend in backends:
        try:
            return backend.name, backend.open(path, shown_path)
        # Damaged files raise errors of any kind.
        except Exception as error:
            errors.append(one_line(error))
    opened: BagFile = recover_file(path)
    opened.damage = opened.damage or f'{shown_path} is damaged: {errors[-1]}'
    opened.damage = opened.damage.replace(str(path), str(shown_path))
    return RECOVERY, opened


def _describe_damage(path: Path, error: Exception) -> str:
    """Return a sentence about damage that appears while a file is read."""
    try:
        found = recover_file(path).damage if path.suffix in _SUFFIXES else ''
    except RecoveryError:
        found = ''
    return found or f'{path} cannot be read further: {type(error).__name__} {one_line(error)}'


def _is_storage(path: Path) -> bool:
    return (path.with_suffix('') if path.suffix == _ZSTD_FILE else path).suffix in _SUFFIXES


def _natural_order(path: Path) -> tuple[str | int, ...]:
    """Return a sort key by which bag_2 comes before bag_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name))


def _metadata(folder: Path) -> Any:
    """Return the content of ``metadata.yaml``; None if it is missing, as after a killed recorder, or unreadable."""
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
    """Return the serialization format by topic."""
    try:
        topics = [topic['topic_metadata'] for topic in metadata['topics_with_message_count']]
        return {topic['name']: str(topic.get('serialization_format', _CDR)) for topic in topics}
    except (KeyError, TypeError, AttributeError):
        return {}
