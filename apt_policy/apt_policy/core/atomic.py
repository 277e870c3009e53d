"""Files and folders that appear whole or not at all.

What is written grows beside its target, under a hidden name that says which thread of which process writes it, and
takes the target's place by renaming. An error on the way leaves the target as it was and nothing beside it; a process
that is killed leaves a hidden rest, which the next writer of the same target removes. What is in it is not known here.
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

    def __init__(self, target: Path, *, durable: bool = False, shared: bool = False) -> None:
        """Name it; nothing is done before :meth:`begin`."""
        self.target, self.path = target, _partial_of(target)
        self._durable, self._shared = durable, shared

    def begin(self) -> None:
        """Remove what killed writers left; :attr:`path` may be written then."""
        if not self._shared:
            _remove_rests(self.target)

    def publish(self) -> None:
        """Put the complete file in place.

        Raises:
            OSError: it cannot be renamed, or not be brought to the disk.
        """
        if self._durable:
            _sync(self.path)
        os.replace(self.path, self.target)
        if self._durable:
            _sync(self.target.parent)

    def discard(self) -> None:
        """Remove what was not published."""
        self.path.unlink(missing_ok=True)


class PartialFolder:
    """The same for a folder; see :func:`atomic_folder`."""

    def __init__(self, target: Path, *, overwrite: bool, durable: bool = False, many_writers: bool = False) -> None:
        """Name it; nothing is done before :meth:`begin`.

        Args:
            many_writers: several processes fill it together, so its name is no single one's. Exactly one of them
                calls :meth:`begin`, before the others write: it removes what is there under that name.
        """
        self.target = target
        self._around = target.with_name(f'.{target.name}{_SUFFIX}') if many_writers else _partial_of(target)
        # What is in it may be named after it, as the files of a bag are: so it has its own name, in another folder.
        self.path = self._around / target.name
        self._overwrite, self._durable = overwrite, durable

    def begin(self) -> None:
        """Remove what killed writers left; a folder may be made at :attr:`path` then.

        A folder that one of them had put aside, and nothing in its place, is in its place again.
        """
        _put_back(self.target)
        _remove_rests(self.target)
        # That of many writers says nothing of who lives, so it is removed under this very name only.
        _remove(self._around)
        made = [folder for folder in self._around.parents if not folder.exists()]
        self._around.mkdir(parents=True)
        if self._durable:
            for folder in made:
                _sync(folder.parent)

    def publish(self) -> None:
        """Put the complete folder in place.

        Raises:
            FileExistsError: the target is there and holds something, and is not to be overwritten.
            OSError: it cannot be renamed, and the target is as it was; or it cannot be brought to the disk.
        """
        if self._durable:
            for path in (self.path, *self.path.rglob('*')):
                if path.is_file() or path.is_dir():
                    _sync(path)
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
        if self._durable:
            _sync(self.target.parent)
        if self._overwrite:
            _remove(backup_path(self.target))

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self._around, ignore_errors=True)

    def _take_place(self) -> None:
        previous = backup_path(self.target)
        _remove(previous)
        try:
            os.rename(self.target, previous)
            os.rename(self.path, self.target)
        except BaseException:
            _put_back(self.target)
            raise


@contextmanager
def atomic_file(target: Path, *, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to, which becomes ``target`` when the block ends without an error.

    Args:
        target: in a folder that is there; a file that is there by then is replaced.
        durable: have the content on the disk before it is in place, and its name at the end, so that both survive a
            loss of power.
        shared: others may be writing the same target now, on other machines too, and what they have begun is left
            alone. If not, only what a living process of this machine has begun is.

    Raises:
        OSError: it cannot be written.
    """
    partial = PartialFile(target, durable=durable, shared=shared)
    partial.begin()
    try:
        yield partial.path
        partial.publish()
    finally:
        partial.discard()


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool, durable: bool = False) -> Iterator[Path]:
    """Yield a path to make a folder at, which becomes ``target`` when the block ends without an error.

    While one folder takes the place of another, the older one stands for a moment at :func:`backup_path`.

    Args:
        target: folders above it are made.
        overwrite: whether a folder that is there by then is replaced; if not, one that holds something is an error.
        durable: as of :func:`atomic_file`, for all that is in it.

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


def write_text(target: Path, text: str, *, durable: bool = False, shared: bool = False) -> None:
    """Write a text file by :func:`atomic_file`."""
    with atomic_file(target, durable=durable, shared=shared) as path:
        path.write_text(text)


def backup_path(folder: Path) -> Path:
    """Where a folder stands during the moment in which a newer one takes its place."""
    return folder.with_name(f'.{folder.name}.previous')


def remove_partials_of(pid: int, folder: Path) -> None:
    """Remove from ``folder`` what a process that was killed had begun."""
    for rest in folder.glob(f'.*.p{pid}{_SUFFIX}'):
        _remove(rest)


def _partial_of(target: Path) -> Path:
    return target.with_name(f'.{target.name}.t{threading.get_native_id()}.p{os.getpid()}{_SUFFIX}')


def _remove_rests(target: Path) -> None:
    # The letters keep them apart from those of targets whose names go on with a number, as ``a.1`` beside ``a``.
    named = re.compile(rf'\.{re.escape(target.name)}\.t(\d+)\.p(\d+){re.escape(_SUFFIX)}')
    if target.parent.is_dir():
        for match in filter(None, map(named.fullmatch, os.listdir(target.parent))):
            if not _lives(thread=int(match[1]), pid=int(match[2])):
                _remove(target.with_name(match[0]))


def _lives(*, thread: int, pid: int) -> bool:
    """Whether a writer is still at it, other than the calling thread, which has only now begun."""
    if pid == os.getpid():
        return thread != threading.get_native_id() and thread in {one.native_id for one in threading.enumerate()}
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # It is another user's.
        return True
    return True


def _put_back(target: Path) -> None:
    """Undo the first of the two renamings by which a folder takes another one's place, where the second is missing."""
    if not os.path.lexists(target) and backup_path(target).is_dir():
        os.rename(backup_path(target), target)


def _remove(rest: Path) -> None:
    if rest.is_dir():
        shutil.rmtree(rest, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            rest.unlink()


def _sync(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems do this for files only.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, 'it exists and is not written over; choose another name, or remove it first',
                           str(target))
