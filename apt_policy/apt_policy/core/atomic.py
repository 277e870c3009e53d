"""Atomic writes of files and folders.

The content is written beside the target, under a hidden name with the process and thread id, and renamed to the target
at the end. After an error the target is unchanged and the partial content is removed. A killed process leaves a
hidden partial, which the next writer of the same target removes.
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
    """Atomic write of a file for writers that outlive a ``with`` block; see :func:`atomic_file`."""

    def __init__(self, target: Path, *, durable: bool = False, shared: bool = False) -> None:
        """Choose the partial path; nothing is touched before :meth:`begin`."""
        self.target, self.path = target, _partial_of(target)
        self._durable, self._shared = durable, shared

    def begin(self) -> None:
        """Remove partials of killed writers; :attr:`path` may be written afterwards."""
        if not self._shared:
            _remove_partials(self.target)

    def publish(self) -> None:
        """Rename the complete file to the target.

        Raises:
            OSError: the file cannot be renamed or synced.
        """
        if self._durable:
            _sync(self.path)
        os.replace(self.path, self.target)
        if self._durable:
            _sync(self.target.parent)

    def discard(self) -> None:
        """Remove the partial if it was not published."""
        self.path.unlink(missing_ok=True)


class PartialFolder:
    """Atomic write of a folder; see :func:`atomic_folder`."""

    def __init__(self, target: Path, *, overwrite: bool, durable: bool = False, many_writers: bool = False) -> None:
        """Choose the partial path; nothing is touched before :meth:`begin`.

        Args:
            target: folder to write.
            overwrite: replace an existing target.
            durable: sync the content and its name to the disk.
            many_writers: several processes fill the folder together, so its partial name contains no process id.
                Exactly one of them calls :meth:`begin`, before the others write.
        """
        self.target = target
        self._around = target.with_name(f'.{target.name}{_SUFFIX}') if many_writers else _partial_of(target)
        # Files in it may be named after the folder, as those of a bag are: so it keeps its name, inside another folder.
        self.path = self._around / target.name
        self._overwrite, self._durable = overwrite, durable

    def begin(self) -> None:
        """Remove partials of killed writers; a folder may be created at :attr:`path` afterwards.

        A target that a killed writer had moved aside is moved back.
        """
        _put_back(self.target)
        _remove_partials(self.target)
        # The name for many writers contains no process id, so only this exact name is removed.
        _remove(self._around)
        made = [folder for folder in self._around.parents if not folder.exists()]
        self._around.mkdir(parents=True)
        if self._durable:
            for folder in made:
                _sync(folder.parent)

    def publish(self) -> None:
        """Rename the complete folder to the target.

        Raises:
            FileExistsError: the target exists, is not empty, and ``overwrite`` is false.
            OSError: the folder cannot be renamed (the target is unchanged) or synced.
        """
        if self._durable:
            for path in (self.path, *self.path.rglob('*')):
                if path.is_file() or path.is_dir():
                    _sync(path)
        if self._overwrite and self.target.exists():
            self._take_place()
        else:
            try:
                # rename(2) replaces an empty folder.
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
        """Remove the partial if it was not published."""
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
        target: file in an existing folder; an existing file is replaced.
        durable: sync the content to the disk before the rename and the folder after it, so that both survive a loss of
            power.
        shared: keep the partials of all other writers, because the target may be written from several machines. By
            default only partials of living processes of this machine are kept.

    Raises:
        OSError: the file cannot be written.
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
    """Yield a path to create a folder at, which becomes ``target`` when the block ends without an error.

    During a replacement the older folder is at :func:`backup_path` for a moment.

    Args:
        target: folder to write; its parents are created.
        overwrite: replace an existing folder; if false, a folder that is not empty is an error.
        durable: sync all content to the disk, as in :func:`atomic_file`.

    Raises:
        FileExistsError: the target exists, is not empty, and ``overwrite`` is false.
        OSError: the folder cannot be written.
    """
    partial = PartialFolder(target, overwrite=overwrite, durable=durable)
    try:
        partial.begin()
        yield partial.path
        partial.publish()
    finally:
        partial.discard()


def write_text(target: Path, text: str, *, durable: bool = False, shared: bool = False) -> None:
    """Write a text file with :func:`atomic_file`."""
    with atomic_file(target, durable=durable, shared=shared) as path:
        path.write_text(text)


def backup_path(folder: Path) -> Path:
    """Return the path of the older folder during a replacement."""
    return folder.with_name(f'.{folder.name}.previous')


def remove_partials_of(pid: int, folder: Path) -> None:
    """Remove the partials of the killed process ``pid`` from ``folder``."""
    for rest in folder.glob(f'.*.p{pid}{_SUFFIX}'):
        _remove(rest)


def _partial_of(target: Path) -> Path:
    return target.with_name(f'.{target.name}.t{threading.get_native_id()}.p{os.getpid()}{_SUFFIX}')


def _remove_partials(target: Path) -> None:
    # The letters t and p separate them from partials of targets such as ``a.1`` beside ``a``.
    named = re.compile(rf'\.{re.escape(target.name)}\.t(\d+)\.p(\d+){re.escape(_SUFFIX)}')
    if target.parent.is_dir():
        for match in filter(None, map(named.fullmatch, os.listdir(target.parent))):
            if not _is_alive(thread=int(match[1]), pid=int(match[2])):
                _remove(target.with_name(match[0]))


def _is_alive(*, thread: int, pid: int) -> bool:
    """Return whether another writer, not the calling thread, is alive."""
    if pid == os.getpid():
        return thread != threading.get_native_id() and thread in {one.native_id for one in threading.enumerate()}
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # The process belongs to another user.
        return True
    return True


def _put_back(target: Path) -> None:
    """Undo the first of the two renames of a replacement if the second did not happen."""
    if not os.path.lexists(target) and backup_path(target).is_dir():
        os.rename(backup_path(target), target)


def _remove(rest: Path) -> None:
    if rest.is_dir():
        shutil.rmtree(rest, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            rest.unlink()


def _sync(path: Path) -> None:
    """Sync the content of a file, or the names in a folder, to the disk."""
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
    return FileExistsError(
        errno.EEXIST, 'the target exists and is not overwritten; choose another name or remove it first', str(target))
