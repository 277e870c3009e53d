"""Message definitions as a bag stores them: the text and the hash of every type.

They come from the installed ``.msg`` files, so that a bag has the definitions that this machine used.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from apt_policy.core.errors import UserError


class UnknownTypeError(UserError, ValueError):
    """Error of a message type whose definition is not installed."""


@dataclass(frozen=True, kw_only=True)
class TypeDefinition:
    """Definition of one message type."""

    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""
    text: str
    """Definition, followed by those of the types that it uses."""
    digest: str
    """RIHS01 hash (REP 2016)."""


class TypeDefinitions:
    """Cache of the definitions of installed message types."""

    def __init__(self) -> None:
        self._known: dict[str, TypeDefinition] = {}

    def definition(self, type_name: str) -> TypeDefinition:
        """Return the definition of a message type.

        Raises:
            UnknownTypeError: its package, or one that it uses, is not installed.
        """
        if type_name not in self._known:
            self._load(type_name)
            text, _ = self._store.generate_msgdef(type_name, ros_version=2)
            self._known[type_name] = TypeDefinition(type_name=type_name, text=text,
                                                    digest=self._store.hash_rihs01(type_name))
        return self._known[type_name]

    def zero_padding(self, type_name: str, raw: bytes) -> bytes:
        """Return a serialized message with zeros as padding, where the middleware leaves uninitialised memory.

        Raises:
            UnknownTypeError: its package, or one that it uses, is not installed.
        """
        self.definition(type_name)
        return bytes(self._store.serialize_cdr(self._store.deserialize_cdr(raw, type_name), type_name))

    @cached_property
    def _store(self) -> Typestore:
        return get_typestore(Stores.EMPTY)

    def _load(self, type_name: str) -> None:
        """Register a type and all types that it uses."""
        if type_name in self._store.fielddefs:
            return
        types = get_types_from_msg(_msg_file(type_name).read_text(), type_name)
        for name, (_, fields) in types.items():
            for _, field in fields:
                if used := _field_type(field):
                    self._load(used)
            if name not in self._store.fielddefs:
                self._store.register({name: types[name]})


def _msg_file(type_name: str) -> Path:
    package, _, name = type_name.split('/')
    try:
        path = Path(get_package_share_directory(package)) / 'msg' / f'{name}.msg'
    except PackageNotFoundError as error:
        raise UnknownTypeError(f'cannot record {type_name}: package {package} is not installed, or its workspace is '
                               'not sourced') from error
    if not path.is_file():
        raise UnknownTypeError(f'cannot record {type_name}: {path} does not exist')
    return path


def _field_type(field: Any) -> str:
    """Return the message type of a field of a definition; empty for a primitive type."""
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    return '' if kind is Nodetype.BASE else _field_type(content[0])
