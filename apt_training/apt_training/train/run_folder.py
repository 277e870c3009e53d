"""Folder of a run: checkpoints, the training state beside them, and the pointer to the latest complete one.

``iter_000100`` is a checkpoint as inference reads it, ``iter_000100_ema`` holds the averaged weights and
``state_000100`` the rest of the training state. ``latest`` names the iteration whose folders are all complete; it is
written last, so a failure before that leaves the older checkpoint in place.

This module knows paths; the callers know the content.
"""

import re
import shutil
from pathlib import Path

from apt_policy.core.atomic import PartialFolder, write_text
from apt_policy.core.errors import UserError
from apt_policy.model.checkpoint import LATEST_FILE, ema_path
from apt_training.train.config import CheckpointConfig

ITERATION_FOLDER = re.compile(r'^(?:iter|state)_(\d+)(?:_ema)?$')


class SaveError(UserError, RuntimeError):
    """Checkpoint that could not be written; the message tells why and which checkpoint remains."""


class RunFolder:
    """Paths and latest pointer of the run ``<ckpt_dir>/<name>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint_folder(self, iteration: int) -> Path:
        """Return the folder of the weights."""
        return self.folder / f'iter_{iteration:06d}'

    def ema_folder(self, iteration: int) -> Path:
        """Return the folder of the averaged weights."""
        return ema_path(self.checkpoint_folder(iteration))

    def state_folder(self, iteration: int) -> Path:
        """Return the folder of optimizer, random and data state."""
        return self.folder / f'state_{iteration:06d}'

    def latest_iteration(self) -> int | None:
        """Return the last iteration that was saved completely; None in a new run.

        Raises:
            SaveError: the pointer, or the checkpoint that it names, was damaged from outside.
        """
        pointer = self.folder / LATEST_FILE
        if not pointer.exists():
            return None
        match = re.fullmatch(r'iter_(\d+)\s*', pointer.read_text())
        if match is None or not self.checkpoint_folder(int(match[1])).is_dir():
            raise SaveError(f'{pointer} names {pointer.read_text()!r}, and there is no such checkpoint; write one of '
                            f'{", ".join(map(str, self.iterations())) or "(none)"} as iter_NNNNNN into the file, or '
                            'remove the file to start over')
        return int(match[1])

    def iterations(self) -> list[int]:
        """Return the iterations of all checkpoints, oldest first."""
        names = (ITERATION_FOLDER.match(path.name) for path in self.folder.glob('iter_*'))
        return sorted({int(match[1]) for match in names if match})

    def begin_state(self, iteration: int) -> None:
        """Create the empty folder :meth:`partial_state_folder`."""
        self._partial(iteration).begin()
        self.partial_state_folder(iteration).mkdir()

    def publish_state(self, iteration: int) -> None:
        """Move the complete training state to its final name."""
        partial = self._partial(iteration)
        partial.publish()
        partial.discard()

    def discard_partial_state(self, iteration: int) -> None:
        """Remove a training state that was not published."""
        self._partial(iteration).discard()

    def partial_state_folder(self, iteration: int) -> Path:
        """Return the folder of a training state that is being written."""
        return self._partial(iteration).path

    def set_latest(self, iteration: int) -> None:
        """Point ``latest`` to ``iteration``."""
        write_text(self.folder / LATEST_FILE, f'{self.checkpoint_folder(iteration).name}\n', durable=True)

    def prune(self, config: CheckpointConfig) -> None:
        """Remove the checkpoints that ``config`` does not keep, and the training state of milestones."""
        iterations = [i for i in self.iterations() if i <= (self.latest_iteration() or 0)]
        recent = set(iterations[-config.keep_latest:])
        for iteration in set(iterations) - recent:
            shutil.rmtree(self.state_folder(iteration), ignore_errors=True)
            if not config.milestone_interval or iteration % config.milestone_interval:
                shutil.rmtree(self.checkpoint_folder(iteration), ignore_errors=True)
                shutil.rmtree(self.ema_folder(iteration), ignore_errors=True)

    def _partial(self, iteration: int) -> PartialFolder:
        return PartialFolder(self.state_folder(iteration), overwrite=True, durable=True, many_writers=True)


def check_free_space(folder: Path, needed: int) -> None:
    """Check that a file system has enough free space.

    Args:
        folder: folder on the file system; it need not exist yet.
        needed: required space [bytes].

    Raises:
        SaveError: less is free.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SaveError(f'a checkpoint needs {needed / 1e6:.1f} MB, {existing} has {free / 1e6:.1f} MB left; '
                        'free some space, or choose another --ckpt_dir')
