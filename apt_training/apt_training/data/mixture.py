"""Several datasets drawn from with given weights: an endless, numbered row of draws.

Draw n is a function of the seed and of n alone. So every process can take its share of one
row, and a run goes on at the exact next sample from a single number.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from torch.utils.data import Dataset, Sampler

from apt_training.data.dataset import EpisodeDataset
from apt_training.data.sample import Sample
from apt_training.episodes.episode import EpisodeError

log = logging.getLogger(__name__)

_ATTEMPTS = 8


class BadFrames(Enum):
    """What a draw does whose frame cannot be read."""

    RAISE = 'raise'
    """The error ends the run."""
    REPLACE = 'replace'
    """Another frame of the same dataset takes its place, with a warning, and is counted."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A dataset of a mixture."""

    dataset: EpisodeDataset
    weight: float


class Mixture(Dataset[Sample]):
    """Datasets, drawn from in proportion to their weights; within one, every episode alike. With replacement."""

    def __init__(self, parts: Sequence[Part], *, seed: int, epoch_draws: int | None = None,
                 bad_frames: BadFrames = BadFrames.REPLACE) -> None:
        """Describe the mixture.

        Args:
            parts: at least one.
            seed: of all draws.
            epoch_draws: draws in an epoch; None: as many as there are episodes.
            bad_frames: what to do about them.

        Raises:
            ValueError: no parts, or weights that are not positive.
        """
        weights = np.array([part.weight for part in parts], np.float64)
        if not len(parts) or not (np.isfinite(weights) & (weights > 0)).all():
            given = ', '.join(f'{part.dataset.declaration.name}: {part.weight}' for part in parts) or 'nothing'
            raise ValueError(f'a mixture needs datasets with weights above 0, got {given}')
        self.parts = tuple(parts)
        self.seed = seed
        self.epoch_draws = sum(len(part.dataset) for part in parts) if epoch_draws is None else epoch_draws
        self.shares = weights / weights.sum()
        self._edges = np.cumsum(self.shares)
        self._bad_frames = bad_frames
        if self.epoch_draws < 1:
            raise ValueError(f'epoch_draws is {self.epoch_draws}, expected at least 1')

    def __len__(self) -> int:
        return self.epoch_draws

    def __getitem__(self, draw: int) -> Sample:
        """The sample of a draw, counted from the first of the first epoch.

        Raises:
            EpisodeError: a frame cannot be read, and bad frames are not replaced, or nothing near it can.
        """
        errors: list[str] = []
        for attempt in range(_ATTEMPTS):
            rng = self._generator(draw, attempt)
            part, episode = self._pick(rng, self._part(draw) if attempt else None)
            try:
                return replace(self.parts[part].dataset.sample(episode, rng), replaced=tuple(errors))
            except EpisodeError as error:
                if self._bad_frames is BadFrames.RAISE:
                    raise
                log.warning('%s; another frame takes its place', error)
                errors.append(str(error))
        raise EpisodeError(f'{_ATTEMPTS} frames in a row cannot be read: ' + '; '.join(errors))

    def episode_of(self, draw: int) -> str:
        """Which file a draw is made from: dataset and path."""
        part, episode = self._pick(self._generator(draw, 0), None)
        dataset = self.parts[part].dataset
        return f'{dataset.declaration.name} ({dataset.files[episode]})'

    def describe(self) -> dict[str, object]:
        """What must be the same for a run to go on with these draws, in plain JSON types."""
        return {'seed': self.seed, 'epoch_draws': self.epoch_draws,
                'parts': [[part.dataset.declaration.name, len(part.dataset), part.weight] for part in self.parts]}

    def close(self) -> None:
        """Close the files."""
        for part in self.parts:
            part.dataset.close()

    def _generator(self, draw: int, attempt: int) -> np.random.Generator:
        epoch, index = divmod(draw, self.epoch_draws)
        return np.random.default_rng((self.seed, epoch, index, attempt))

    def _part(self, draw: int) -> int:
        return self._pick(self._generator(draw, 0), None)[0]

    def _pick(self, rng: np.random.Generator, part: int | None) -> tuple[int, int]:
        """Part and episode; the part is drawn even where it is given, so that what follows stays the same."""
        drawn = min(int(np.searchsorted(self._edges, rng.random(), side='right')), len(self.parts) - 1)
        part = drawn if part is None else part
        return part, int(rng.integers(len(self.parts[part].dataset)))


class DrawBatches(Sampler[list[int]]):
    """The draws of one process among several, batch by batch, without end.

    Process r of w takes the draws r, r + w, r + 2 w .. of the row, so that all processes
    together make the row that a single one makes.
    """

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1, first_draw: int = 0) -> None:
        if batch_size < 1 or not 0 <= rank < world or first_draw < 0:
            raise ValueError(f'batch_size {batch_size}, rank {rank} of {world}, first_draw {first_draw}: expected '
                             'at least one sample, a rank below the number of processes, and a draw from 0 on')
        self.batch_size, self.rank, self.world, self.first_draw = batch_size, rank, world, first_draw

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first_draw
        while True:
            yield self.batch_from(first)
            first += self.batch_size * self.world

    def batch_from(self, first_draw: int) -> list[int]:
        """This process's batch of the ``batch_size * world`` draws from ``first_draw`` on."""
        return [first_draw + self.rank + place * self.world for place in range(self.batch_size)]
