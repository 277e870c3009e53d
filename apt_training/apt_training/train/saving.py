"""The folder of a run: checkpoints, the training state beside them, and which of them is the last good one.

``iter_000100`` is a checkpoint as inference reads it, ``iter_000100_ema`` the averaged weights,
``state_000100`` what training needs to go on. ``latest`` names the iteration whose folders are all
complete; it changes last, so whatever goes wrong before leaves the older one in force.

This module knows paths; what stands in them is its callers'.
"""

import re
import shutil
from pathlib import Path

from apt_policy.core.atomic import PartialFolder, write_text
from apt_policy.core.errors import UserError
from apt_policy.model.checkpoint import LATEST_FILE, average_of
from apt_training.train.config import KeepConfig

ITERATION_FOLDER = re.compile(r'^(?:iter|state)_(\d+)(?:_ema)?$')


class SaveError(UserError, RuntimeError):
    """A checkpoint could not be written; the message says why and what is still there."""


class RunFolder:
    """``<ckpt_dir>/<name>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint(self, iteration: int) -> Path:
        """Weights."""
        return self.folder / f'iter_{iteration:06d}'

    def average(self, iteration: int) -> Path:
        """Averaged weights."""
        return average_of(self.checkpoint(iteration))

    def state(self, iteration: int) -> Path:
        """Everything else."""
        return self.folder / f'state_{iteration:06d}'

    def latest(self) -> int | None:
        """The last iteration saved completely; None in a new run.

        Raises:
            SaveError: the pointer or what it points to was damaged from outside.
        """
        pointer = self.folder / LATEST_FILE
        if not pointer.exists():
            return None
        match = re.fullmatch(r'iter_(\d+)\s*', pointer.read_text())
        if match is None or not self.checkpoint(int(match[1])).is_dir():
            raise SaveError(f'{pointer} says {pointer.read_text()!r}, and there is no such checkpoint; write the '
                            f'name of one of {", ".join(map(str, self.iterations())) or "(none)"} as iter_NNNNNN '
                            'into it, or remove it to start over')
        return int(match[1])

    def iterations(self) -> list[int]:
        """Of all checkpoints here, oldest first."""
        names = (ITERATION_FOLDER.match(path.name) for path in self.folder.glob('iter_*'))
        return sorted({int(match[1]) for match in names if match})

    def begin_state(self, iteration: int) -> None:
        """Make an empty folder, :meth:`partial_state`, to be filled."""
        self._state_on_its_way(iteration).begin()
        self.partial_state(iteration).mkdir()

    def finish_state(self, iteration: int) -> None:
        """It is full: put it in place under its name."""
        partial = self._state_on_its_way(iteration)
        partial.publish()
        partial.discard()

    def drop_partial(self, iteration: int) -> None:
        """Remove what was begun and not finished."""
        self._state_on_its_way(iteration).discard()

    def partial_state(self, iteration: int) -> Path:
        """Where the state is until it is complete."""
        return self._state_on_its_way(iteration).path

    def point_to(self, iteration: int) -> None:
        """Make ``iteration`` the latest."""
        write_text(self.folder / LATEST_FILE, f'{self.checkpoint(iteration).name}\n', durable=True)

    def _state_on_its_way(self, iteration: int) -> PartialFolder:
        return PartialFolder(self.state(iteration), overwrite=True, many_writers=True)

    def tidy(self, keep: KeepConfig) -> None:
        """Remove what ``keep`` does not name: old checkpoints, and training state behind milestones."""
        iterations = [i for i in self.iterations() if i <= (self.latest() or 0)]
        recent = set(iterations[-keep.last:])
        for iteration in set(iterations) - recent:
            shutil.rmtree(self.state(iteration), ignore_errors=True)
            if not keep.milestone_every or iteration % keep.milestone_every:
                shutil.rmtree(self.checkpoint(iteration), ignore_errors=True)
                shutil.rmtree(self.average(iteration), ignore_errors=True)


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot fit.

    Args:
        folder: existing or not, on the disk in question.
        needed: [bytes].

    Raises:
        SaveError: less is free.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SaveError(f'a checkpoint needs {needed / 1e6:.1f} MB, {existing} has {free / 1e6:.1f} MB left; '
                        'make room, or choose another --ckpt_dir')
