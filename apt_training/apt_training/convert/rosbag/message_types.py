"""The message types of a bag: as the bag defines them, else as they are installed, else as rosbags knows them.

Types are looked up when they are needed, so that a topic nobody reads may have any type.
"""

import os
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from apt_training.convert.source import ConvertError

_IDL_RULE = '=' * 80 + '\n'


class MessageTypes:
    """Makes messages of bytes."""

    def __init__(self) -> None:
        self._store: Typestore = get_typestore(Stores.EMPTY)
        self._fallback: Typestore | None = None
        self._definitions: dict[str, tuple[str, str]] = {}

    def define(self, kind: str, encoding: str, text: str) -> None:
        """Remember a definition that the bag has.

        Args:
            kind: of the message, such as ``sensor_msgs/msg/Image``.
            encoding: ``ros2msg`` or ``ros2idl``; anything else is no definition.
            text: the definition, with those that it uses.
        """
        if text and encoding in ('ros2msg', 'ros2idl'):
            self._definitions.setdefault(kind, (encoding, text))

    def message(self, kind: str, raw: bytes | memoryview) -> Any:
        """The message, arrays being views of ``raw``.

        Raises:
            ConvertError: nobody knows the type, or ``raw`` is not such a message.
        """
        store = self._store if kind in self._store.fielddefs else self._known(kind)
        try:
            return store.deserialize_cdr(memoryview(raw), kind)
        except (SerdeError, ValueError, IndexError) as error:
            raise ConvertError(f'{len(raw)} bytes are no {kind}: {error}') from error

    def _known(self, kind: str) -> Typestore:
        """The store that has ``kind``, after registering it if need be."""
        if self._fallback is not None and kind in self._fallback.fielddefs and kind not in self._definitions:
            return self._fallback
        try:
            if kind in self._definitions:
                self._store.register(_parsed(kind, *self._definitions[kind]))
                return self._store
            if self._fallback is None:
                self._fallback = get_typestore(Stores.LATEST)
            if kind not in self._fallback.fielddefs:
                self._register_installed(self._fallback, kind)
        except TypesysError as error:
            raise ConvertError(f'the definition of {kind} cannot be used: {error}') from error
        return self._fallback

    def _register_installed(self, store: Typestore, kind: str) -> None:
        """Take a type from the ``.msg`` files of the sourced workspaces, and what it uses."""
        types = get_types_from_msg(_installed(kind), kind)
        for _, fields in types.values():
            for used in (_used(field) for _, field in fields):
                if used and used not in store.fielddefs and used not in types:
                    self._register_installed(store, used)
        store.register(types)


def _parsed(kind: str, encoding: str, text: str) -> dict[str, Any]:
    if encoding == 'ros2msg':
        return dict(get_types_from_msg(text, kind))
    if not text.startswith(f'{_IDL_RULE}IDL: '):
        return dict(get_types_from_idl(text))
    parts = (part.split('\n', 1)[1] for part in text.split(_IDL_RULE)[1:])
    return {name: found for part in parts for name, found in get_types_from_idl(part).items()}


def _installed(kind: str) -> str:
    package, _, name = kind.split('/')
    for prefix in filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
        path = Path(prefix) / 'share' / package / 'msg' / f'{name}.msg'
        if path.is_file():
            return path.read_text()
    raise ConvertError(f'the bag does not say what a {kind} is, and package {package} is not installed here: source '
                       'the workspace that has it, or record with storage mcap, which keeps definitions')


def _used(field: Any) -> str:
    """The message type that a field has, behind arrays; empty for numbers and strings."""
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    return '' if kind is Nodetype.BASE else _used(content[0])
