"""Files and folders that appear whole or not at all.

What is written grows beside its target, under a hidden name that says which process writes it, and takes the target's
place by renaming. An error on the way leaves the target as it was and nothing beside it; a process that is killed
leaves a hidden rest, which the next writer of the same target removes. What is in it is not known here.
"""

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = '.partial'


class PartialFile:
    """A file on its way to its place, for writers whose life is no ``with`` block; see :func:`atomic_file`."""

    def __init__(self, target: Path, *, overwrite: bool, durable: bool = False, shared: bool = False) -> None:
        """Name it; nothing is done before :meth:`begin`."""
        self.target, self.path = target, _partial_of(target)
        self._overwrite, self._durable, self._shared = overwrite, durable, shared

    def begin(self) -> None:
        """Remove what killed writers left; :attr:`path` may be written then."""
        if not self._shared:
            _remove_rests(self.target)

    def publish(self) -> None:
        """Put the complete file in place.

        Raises:
            FileExistsError: the target is there, and is not to be overwritten.
            OSError: it cannot be renamed.
        """
        if self._durable:
            _sync(self.path)
        if self._overwrite:
            os.replace(self.path, self.target)
            return
        try:
            # Unlike a renaming, a link never takes the place of another file.
            os.link(self.path, self.target)
        except FileExistsError as error:
            raise _exists(self.target) from error
        self.path.unlink()

    def discard(self) -> None:
        """Remove what was not published."""
        self.path.unlink(missing_ok=True)


class PartialFolder:
    """The same for a folder; see :func:`atomic_folder`."""

    def __init__(self, target: Path, *, overwrite: bool, durable: bool = False, many_writers: bool = False) -> None:
        """Name it; nothing is done before :meth:`begin`.

        Args:
            many_writers: several processes fill it together, so its name is no single one's.
        """
        self.target = target
        self._around = target.with_name(f'.{target.name}{_SUFFIX}') if many_writers else _partial_of(target)
        # What is in it may be named after it, as the files of a bag are: so it has its own name, in another folder.
        self.path = self._around / target.name
        self._overwrite, self._durable = overwrite, durable

    def begin(self) -> None:
        """Remove what killed writers left; a folder may be made at :attr:`path` then."""
        _remove_rests(self.target)
        self._around.mkdir(parents=True)

    def publish(self) -> None:
        """Put the complete folder in place.

        Raises:
            FileExistsError: the target is there and holds something, and is not to be overwritten.
            OSError: it cannot be renamed; the target is as it was.
        """
        if self._durable:
            for file in self.path.rglob('*'):
                if file.is_file():
                    _sync(file)
        if self._overwrite and self.target.exists():
            self._take_place()
        else:
            try:
                # An empty folder gives way by itself.
                os.rename(self.path, self.target)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise _exists(self.target) from error
                raise
        _remove(previous_of(self.target))

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self._around, ignore_errors=True)

    def _take_place(self) -> None:
        previous = previous_of(self.target)
        _remove(previous)
        os.rename(self.target, previous)
        try:
            os.rename(self.path, self.target)
        except OSError:
            os.rename(previous, self.target)
            raise


@contextmanager
def atomic_file(target: Path, *, overwrite: bool, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to, which becomes ``target`` when the block ends without an error.

    Args:
        target: in a folder that is there.
        overwrite: whether a file that is there by then is replaced; if not, that is an error.
        durable: have the content on the disk before it is in place, so that it survives a loss of power.
        shared: others may be writing the same target now, and what they have begun is left alone.

    Raises:
        FileExistsError: the target is there, and is not to be overwritten.
        OSError: it cannot be written.
    """
    partial = PartialFile(target, overwrite=overwrite, durable=durable, shared=shared)
    partial.begin()
    try:
        yield partial.path
        partial.publish()
    finally:
        partial.discard()


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool, durable: bool = False) -> Iterator[Path]:
    """Yield a path to make a folder at, which becomes ``target`` when the block ends without an error.

    While one folder takes the place of another, the older one stands for a moment at :func:`previous_of`.

    Args:
        target: folders above it are made.
        overwrite: whether a folder that is there by then is replaced; if not, one that holds something is an error.
        durable: as of :func:`atomic_file`, for every file in it.

    Raises:
        FileExistsError: the target is there and holds something, and is not to be overwritten.
        OSError: it cannot be written.
    """
    partial = PartialFolder(target, overwrite=overwrite, durable=durable)
    try:
        partial.begin()
        yield partial.path
        partial.publish()
    finally:
        partial.discard()


def write_text(target: Path, text: str, *, overwrite: bool, durable: bool = False, shared: bool = False) -> None:
    """Write a text file by :func:`atomic_file`."""
    with atomic_file(target, overwrite=overwrite, durable=durable, shared=shared) as path:
        path.write_text(text)


def previous_of(folder: Path) -> Path:
    """Where a folder stands during the moment in which a newer one takes its place."""
    return folder.with_name(f'.{folder.name}.previous')


def remove_rests_of(pid: int, folder: Path) -> None:
    """Remove from ``folder`` what a process that was killed had begun."""
    for rest in folder.glob(f'.*.{pid}{_SUFFIX}'):
        _remove(rest)


def _partial_of(target: Path) -> Path:
    thread = '' if threading.current_thread() is threading.main_thread() else f'.{threading.get_native_id()}'
    return target.with_name(f'.{target.name}{thread}.{os.getpid()}{_SUFFIX}')


def _remove_rests(target: Path) -> None:
    named = re.compile(rf'\.{re.escape(target.name)}(\.\d+)*{re.escape(_SUFFIX)}')
    if target.parent.is_dir():
        for name in filter(named.fullmatch, os.listdir(target.parent)):
            _remove(target.with_name(name))


def _remove(rest: Path) -> None:
    if rest.is_dir():
        shutil.rmtree(rest, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            rest.unlink()


def _sync(file: Path) -> None:
    with file.open('rb') as handle:
        os.fsync(handle.fileno())


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, 'it exists and is not written over; choose another name, or remove it first',
                           str(target))
