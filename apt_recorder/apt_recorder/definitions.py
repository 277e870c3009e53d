"""Message definitions as a bag stores them: the text of every type and its hash.

They come from the ``.msg`` files that ROS installed, so a bag describes exactly what this machine sent.
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


class UnknownType(UserError, ValueError):
    """A message type whose definition is not installed; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One message type."""

    kind: str
    """Such as ``sensor_msgs/msg/Image``."""
    text: str
    """Its definition, followed by those that it uses."""
    digest: str
    """RIHS01 hash."""


class Definitions:
    """Finds definitions and remembers them."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def of(self, kind: str) -> Definition:
        """The definition of a type.

        Raises:
            UnknownType: its package, or one that it uses, is not installed here.
        """
        if kind not in self._known:
            self._load(kind)
            text, _ = self._store.generate_msgdef(kind, ros_version=2)
            self._known[kind] = Definition(kind=kind, text=text, digest=self._store.hash_rihs01(kind))
        return self._known[kind]

    def settled(self, kind: str, raw: bytes) -> bytes:
        """A serialized message with zeros between its fields, where the middleware leaves what its memory held.

        Raises:
            UnknownType: see :meth:`of`.
        """
        self.of(kind)
        return bytes(self._store.serialize_cdr(self._store.deserialize_cdr(raw, kind), kind))

    @cached_property
    def _store(self) -> Typestore:
        return get_typestore(Stores.EMPTY)

    def _load(self, kind: str) -> None:
        """Register a type and all that it uses."""
        if kind in self._store.fielddefs:
            return
        types = get_types_from_msg(_source(kind).read_text(), kind)
        for name, (_, fields) in types.items():
            for _, field in fields:
                if used := _used(field):
                    self._load(used)
            if name not in self._store.fielddefs:
                self._store.register({name: types[name]})


def _source(kind: str) -> Path:
    package, _, name = kind.split('/')
    try:
        path = Path(get_package_share_directory(package)) / 'msg' / f'{name}.msg'
    except PackageNotFoundError as error:
        raise UnknownType(f'{kind} cannot be recorded: package {package} is not installed here, or its workspace '
                          'is not sourced') from error
    if not path.is_file():
        raise UnknownType(f'{kind} cannot be recorded: {path} does not exist')
    return path


def _used(field: Any) -> str:
    """The message type that a field of a definition refers to; empty for a plain one."""
    kind, content = field
    if kind is Nodetype.NAME:
        return str(content)
    return '' if kind is Nodetype.BASE else _used(content[0])
