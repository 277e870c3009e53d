"""Decoder of the messages of a bag.

Definitions come from installed packages, else from rosbags, else from the bag. A definition of the bag never replaces a
known one: a type whose definitions differ is refused. Types are looked up when they are needed, so that topics that
are not read may have any type.
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
"""Encodings of definitions that can be parsed."""
_IDL_RULE = '=' * 80 + '\n'
_KIND = re.compile(r'[A-Za-z]\w*/(msg|srv|action)/[A-Za-z]\w*')
_PLACEHOLDER = 'structure_needs_at_least_one_member'
"""Field that ROS adds to messages without fields; only some definitions have it."""


class _Definition(NamedTuple):
    """Definition of one type, without those that it uses."""

    constants: list[Any]
    fields: list[Any]
    origin: str
    """Source of the definition, for messages."""


class MessageDecoder:
    """Decoder of serialized messages."""

    def __init__(self) -> None:
        self._store: Typestore = get_typestore(Stores.EMPTY)
        self._shipped: Typestore | None = None
        self._texts: dict[str, dict[tuple[str, str], None]] = {}
        # Caches: each pass over a bag looks types up again.
        self._found: dict[str, _Definition | None] = {}
        self._agreed: dict[str, dict[str, _Definition]] = {}
        self._usable: set[str] = set()

    def add_definition(self, type_name: str, encoding: str, text: str) -> None:
        """Add a definition from the bag.

        Args:
            type_name: message type, such as ``sensor_msgs/msg/Image``.
            encoding: ``ros2msg`` or ``ros2idl``; others are ignored.
            text: definition, with those of the types that it uses.
        """
        if text and encoding in ENCODINGS:
            self._texts.setdefault(type_name, {})[encoding, text] = None
            self._agreed.pop(type_name, None)

    def check_agreement(self, type_name: str) -> None:
        """Check that the definitions of a type in the bag, and of all types that it uses, agree with the known ones.

        An unknown type passes.

        Raises:
            ConvertError: the definitions differ.
        """
        # An unreadable definition matters only for a type without another one, which is refused when it is used.
        with suppress(_UnreadableDefinition):
            self._definitions_in_bag(type_name)

    def decode(self, type_name: str, raw: bytes | memoryview) -> Any:
        """Decode a message; its arrays are views of ``raw``.

        Raises:
            ConvertError: the type is unknown, its definitions differ, or ``raw`` is no such message.
        """
        if type_name not in self._usable:
            self._make_usable(type_name)
        try:
            return self._store.deserialize_cdr(memoryview(raw), type_name)
        except (SerdeError, ValueError, IndexError) as error:
            raise ConvertError(f'{len(raw)} bytes are no {type_name}: {one_line(error)}') from error

    def _make_usable(self, type_name: str) -> None:
        try:
            definitions = self._definitions_in_bag(type_name)
        except _UnreadableDefinition:
            if self._known(type_name) is None:
                raise
            definitions = {}
        try:
            self._register(type_name, definitions, ())
            # This compiles the type: rosbags refuses types here that it cannot decode, such as wide strings.
            self._store.get_msgdef(type_name)
        except ConvertError:
            raise
        # A definition may be any text, and the code generated from it may fail in any way.
        except Exception as error:
            raise ConvertError(f'the definition of {type_name} cannot be used: {one_line(error)}') from error
        self._usable.add(type_name)

    def _definitions_in_bag(self, type_name: str) -> dict[str, _Definition]:
        """Return the types in the bag's definitions of a type, by name.

        Raises:
            ConvertError: one of them differs from another, or from the known one.
        """
        if type_name in self._agreed:
            return self._agreed[type_name]
        seen: dict[str, _Definition] = {}
        for encoding, text in self._texts.get(type_name, {}):
            for name, definition in _parsed(type_name, encoding, text).items():
                before = seen.setdefault(name, definition)
                for other in filter(None, (before, self._known(name))):
                    _refuse_difference(type_name, name, definition, other)
        self._agreed[type_name] = seen
        return seen

    def _register(self, type_name: str, definitions: dict[str, _Definition], users: tuple[str, ...]) -> None:
        """Register a type after all types that it uses."""
        if type_name in users:
            raise ConvertError(f'{type_name} contains itself through {" and ".join(users)}')
        if type_name in self._store.fielddefs:
            return
        found = self._known(type_name) or definitions.get(type_name)
        if found is None:
            raise ConvertError(_unknown(type_name))
        for used in filter(None, (_field_type(field) for _, field in found.fields)):
            self._register(used, definitions, (*users, type_name))
        self._store.register({type_name: (found.constants, found.fields)})

    def _known(self, type_name: str) -> _Definition | None:
        """Return the definition of an installed package, else the one of rosbags; None if there is none."""
        if type_name not in self._found:
            self._found[type_name] = _installed(type_name) or self._in_rosbags(type_name)
        return self._found[type_name]

    def _in_rosbags(self, type_name: str) -> _Definition | None:
        if self._shipped is None:
            self._shipped = get_typestore(Stores.LATEST)
        found = self._shipped.fielddefs.get(type_name)
        return None if found is None else _Definition(found[0], found[1], 'rosbags')


class _UnreadableDefinition(ConvertError):
    """Error of a definition in a bag that cannot be parsed."""


def canonical_type_name(type_name: str) -> str:
    """Return a type in the notation of ROS 2: ``sensor_msgs/msg/Image`` for ``sensor_msgs/Image`` of ROS 1."""
    package, slash, name = type_name.partition('/')
    long = f'{package}/msg/{name}'
    return long if slash and _KIND.fullmatch(long) else type_name


def _parsed(type_name: str, encoding: str, text: str) -> dict[str, _Definition]:
    try:
        if encoding == 'ros2msg':
            parsed = dict(get_types_from_msg(text, type_name))
        elif text.startswith(f'{_IDL_RULE}IDL: '):
            parts = (part.split('\n', 1)[1] for part in text.split(_IDL_RULE)[1:])
            parsed = {name: found for part in parts for name, found in get_types_from_idl(part).items()}
        else:
            parsed = dict(get_types_from_idl(text))
    # The text may be anything, and parsers may raise anything.
    except Exception as error:
        raise _UnreadableDefinition(
            f'cannot parse the definition of {type_name} in the bag: {one_line(error)}') from error
    return {name: _Definition(constants, fields, 'the bag') for name, (constants, fields) in parsed.items()}


def _refuse_difference(type_name: str, name: str, in_bag: _Definition, known: _Definition) -> None:
    """Raise ConvertError if two definitions of the type ``name``, used by ``type_name``, have different layouts."""
    ours, theirs = _layout(in_bag), _layout(known)
    if ours == theirs:
        return
    place = next((index for index, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other),
                 min(len(ours), len(theirs)))
    within = '' if name == type_name else f' (used by {type_name})'
    other = 'elsewhere in it' if known.origin == in_bag.origin else f'in {known.origin}'
    raise ConvertError(
        f'{name}{within} is defined differently in the bag and {other}: field {place + 1} is '
        f'{_field_text(ours, place)} in the bag, {_field_text(theirs, place)} there: source the workspace with which '
        'the bag was recorded, or record again')


def _layout(definition: _Definition) -> list[tuple[str, Any]]:
    """Return the names and types of the fields; names in lower case, since ROS 1 has ``K`` for ``k`` of ROS 2."""
    return [(name.lower(), _plain(field)) for name, field in definition.fields if name != _PLACEHOLDER]


def _plain(field: Any) -> Any:
    kind, content = field
    if kind is Nodetype.BASE:
        # A char of ROS 2 is a uint8, which .idl files use.
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


def _installed(type_name: str) -> _Definition | None:
    """Return the definition in the ``.msg`` files of the sourced workspaces; None if there is none.

    Raises:
        ConvertError: the file cannot be parsed.
    """
    if not _KIND.fullmatch(type_name) or type_name.split('/')[1] != 'msg':
        return None
    package, _, name = type_name.split('/')
    for prefix in filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        path = Path(prefix) / 'share' / package / 'msg' / f'{name}.msg'
        if path.is_file():
            try:
                constants, fields = get_types_from_msg(path.read_text(), type_name)[type_name]
            except (TypesysError, ValueError, KeyError) as error:
                raise ConvertError(f'cannot parse {path}: {one_line(error)}') from error
            return _Definition(constants, fields, str(path))
    return None


def _unknown(type_name: str) -> str:
    if not _KIND.fullmatch(type_name):
        return f'{type_name!r} is no message type, expected package/msg/Name, such as sensor_msgs/msg/Image'
    package = type_name.partition('/')[0]
    return (f'the bag has no definition of {type_name}, and package {package} is not installed: source its workspace, '
            'or record with storage mcap, which stores definitions')


def _field_type(field: Any) -> str:
    """Return the message type of a field or its elements; empty for numbers and strings."""
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    return '' if kind is Nodetype.BASE else _field_type(content[0])
