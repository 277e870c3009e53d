"""The message types of a bag: as they are installed, else as rosbags ships them, else as the bag defines them.

A bag's own definition never replaces a known one: where the two differ, the type is refused. Types
are looked up when they are needed, so that a topic nobody reads may have any type.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from apt_training.convert.source import ConvertError, one_line

ENCODINGS = ('ros2msg', 'ros2idl')
"""Of definitions that can be read."""
_IDL_RULE = '=' * 80 + '\n'
_KIND = re.compile(r'[A-Za-z]\w*/(msg|srv|action)/[A-Za-z]\w*')
_PLACEHOLDER = 'structure_needs_at_least_one_member'
"""Field that ROS puts into messages without fields; some definitions have it, some do not."""


class _Definition(NamedTuple):
    """One type, without those that it uses."""

    constants: list[Any]
    fields: list[Any]
    home: str
    """Where it was found, for people."""


class MessageTypes:
    """Makes messages of bytes."""

    def __init__(self) -> None:
        self._store: Typestore = get_typestore(Stores.EMPTY)
        self._shipped: Typestore | None = None
        self._texts: dict[str, dict[tuple[str, str], None]] = {}
        # Looked up for every pass over a bag; files are read and texts are parsed once.
        self._found: dict[str, _Definition | None] = {}
        self._agreed: dict[str, dict[str, _Definition]] = {}
        self._usable: set[str] = set()

    def define(self, kind: str, encoding: str, text: str) -> None:
        """Remember a definition that the bag has.

        Args:
            kind: of the message, such as ``sensor_msgs/msg/Image``.
            encoding: ``ros2msg`` or ``ros2idl``; anything else is no definition.
            text: the definition, with those that it uses.
        """
        if text and encoding in ENCODINGS:
            self._texts.setdefault(kind, {})[encoding, text] = None
            self._agreed.pop(kind, None)

    def check_agreement(self, kind: str) -> None:
        """Compare what the bag says of a type, and of all that it uses, with what is known here.

        A type that is not known at all passes.

        Raises:
            ConvertError: the definitions differ; names both.
        """
        # A text that cannot be parsed hides nothing; a type that only it defines is refused when it is needed.
        with suppress(_UnreadableDefinition):
            self._inside(kind)

    def message(self, kind: str, raw: bytes | memoryview) -> Any:
        """The message, arrays being views of ``raw``.

        Raises:
            ConvertError: the type is not known, its definitions differ, or ``raw`` is not such a message.
        """
        if kind not in self._usable:
            self._make_usable(kind)
        try:
            return self._store.deserialize_cdr(memoryview(raw), kind)
        except (SerdeError, ValueError, IndexError) as error:
            raise ConvertError(f'{len(raw)} bytes are no {kind}: {one_line(error)}') from error

    def _make_usable(self, kind: str) -> None:
        try:
            inside = self._inside(kind)
        except _UnreadableDefinition:
            if self._known(kind) is None:
                raise
            inside = {}
        try:
            self._register(kind, inside, ())
            # Compiles the type: rosbags refuses here what it cannot decode, such as wide strings.
            self._store.get_msgdef(kind)
        except ConvertError:
            raise
        # A definition may be any text, and what is generated from it may fail in any way.
        except Exception as error:
            raise ConvertError(f'the definition of {kind} cannot be used: {one_line(error)}') from error
        self._usable.add(kind)

    def _inside(self, kind: str) -> dict[str, _Definition]:
        """Each type that the bag's definitions of ``kind`` have, by name.

        Raises:
            ConvertError: one of them contradicts another, or what is known here.
        """
        if kind in self._agreed:
            return self._agreed[kind]
        seen: dict[str, _Definition] = {}
        for encoding, text in self._texts.get(kind, {}):
            for name, said in _parsed(kind, encoding, text).items():
                before = seen.setdefault(name, said)
                for other in filter(None, (before, self._known(name))):
                    _refuse_difference(kind, name, said, other)
        self._agreed[kind] = seen
        return seen

    def _register(self, kind: str, inside: dict[str, _Definition], users: tuple[str, ...]) -> None:
        """Register a type after all that it uses."""
        if kind in users:
            raise ConvertError(f'{kind} contains itself, by way of {" and ".join(users)}')
        if kind in self._store.fielddefs:
            return
        found = self._known(kind) or inside.get(kind)
        if found is None:
            raise ConvertError(_unknown(kind))
        for used in filter(None, (_used(field) for _, field in found.fields)):
            self._register(used, inside, (*users, kind))
        self._store.register({kind: (found.constants, found.fields)})

    def _known(self, kind: str) -> _Definition | None:
        """A type as it is known without the bag: an installed package's, else the one that rosbags ships."""
        if kind not in self._found:
            self._found[kind] = _installed(kind) or self._in_rosbags(kind)
        return self._found[kind]

    def _in_rosbags(self, kind: str) -> _Definition | None:
        if self._shipped is None:
            self._shipped = get_typestore(Stores.LATEST)
        found = self._shipped.fielddefs.get(kind)
        return None if found is None else _Definition(found[0], found[1], 'rosbags')


class _UnreadableDefinition(ConvertError):
    """A definition inside a bag that cannot be parsed."""


def canonical_kind(kind: str) -> str:
    """A type's name as ROS 2 writes it: ``sensor_msgs/msg/Image`` for ROS 1's ``sensor_msgs/Image``."""
    package, slash, name = kind.partition('/')
    long = f'{package}/msg/{name}'
    return long if slash and _KIND.fullmatch(long) else kind


def _parsed(kind: str, encoding: str, text: str) -> dict[str, _Definition]:
    try:
        if encoding == 'ros2msg':
            parsed = dict(get_types_from_msg(text, kind))
        elif text.startswith(f'{_IDL_RULE}IDL: '):
            parts = (part.split('\n', 1)[1] for part in text.split(_IDL_RULE)[1:])
            parsed = {name: found for part in parts for name, found in get_types_from_idl(part).items()}
        else:
            parsed = dict(get_types_from_idl(text))
    # The text may be anything, and so are the errors that it makes in a parser.
    except Exception as error:
        raise _UnreadableDefinition(f'the definition of {kind} in the bag cannot be used: {one_line(error)}') from error
    return {name: _Definition(constants, fields, 'the bag') for name, (constants, fields) in parsed.items()}


def _refuse_difference(kind: str, name: str, said: _Definition, known: _Definition) -> None:
    """Raise ConvertError where two definitions of the type ``name``, used by ``kind``, have other bytes."""
    ours, theirs = _layout(said), _layout(known)
    if ours == theirs:
        return
    place = next((index for index, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other),
                 min(len(ours), len(theirs)))
    within = '' if name == kind else f' (of which {kind} is made)'
    other = 'elsewhere in it' if known.home == said.home else f'in {known.home}'
    raise ConvertError(
        f'{name}{within} is defined differently in the bag and {other}: field {place + 1} is '
        f'{_field_text(ours, place)} in the bag, {_field_text(theirs, place)} there; source the workspace with which '
        'the bag was recorded, or record again')


def _layout(definition: _Definition) -> list[tuple[str, Any]]:
    """What decides how bytes are read: names without case (ROS 1 had ``K`` where ROS 2 has ``k``) and types."""
    return [(name.lower(), _plain(field)) for name, field in definition.fields if name != _PLACEHOLDER]


def _plain(field: Any) -> Any:
    kind, content = field
    if kind is Nodetype.BASE:
        # ROS 2 defines a char as a uint8, and .idl files say so.
        return kind, ('uint8' if content[0] == 'char' else content[0], content[1])
    return (kind, content) if kind is Nodetype.NAME else (kind, (_plain(content[0]), content[1]))


def _field_text(layout: list[tuple[str, Any]], place: int) -> str:
    if place >= len(layout):
        return 'missing'
    name, field = layout[place]
    return f"'{_type_text(field)} {name}'"


def _type_text(field: Any) -> str:
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    if kind is Nodetype.BASE:
        return f'{content[0]}<={content[1]}' if content[1] else str(content[0])
    bound = str(content[1] or '')
    return f'{_type_text(content[0])}[{f"<={bound}" if bound and kind is Nodetype.SEQUENCE else bound}]'


def _installed(kind: str) -> _Definition | None:
    """From the ``.msg`` files of the sourced workspaces.

    Raises:
        ConvertError: the file cannot be used.
    """
    if not _KIND.fullmatch(kind) or kind.split('/')[1] != 'msg':
        return None
    package, _, name = kind.split('/')
    for prefix in filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        path = Path(prefix) / 'share' / package / 'msg' / f'{name}.msg'
        if path.is_file():
            try:
                constants, fields = get_types_from_msg(path.read_text(), kind)[kind]
            except (TypesysError, ValueError, KeyError) as error:
                raise ConvertError(f'{path} cannot be used: {one_line(error)}') from error
            return _Definition(constants, fields, str(path))
    return None


def _unknown(kind: str) -> str:
    if not _KIND.fullmatch(kind):
        return f'{kind!r} is no message type; expected package/msg/Name, such as sensor_msgs/msg/Image'
    package = kind.partition('/')[0]
    return (f'the bag does not say what a {kind} is, and package {package} is not installed here: source the workspace '
            'that has it, or record with storage mcap, which keeps definitions')


def _used(field: Any) -> str:
    """The message type that a field has, behind arrays; empty for numbers and strings."""
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    return '' if kind is Nodetype.BASE else _used(content[0])
