"""Weighted mixture of datasets: an endless, numbered sequence of draws.

Draw n depends only on the seed and on n. Every rank takes its share of one sequence, and a run resumes at the exact
next sample from a single number.
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
"""Number of frames that a draw tries before it gives up."""


class BadFrameHandling(Enum):
    """Reaction to a frame that cannot be read."""

    RAISE = 'raise'
    """Raise the error, which ends the run."""
    REPLACE = 'replace'
    """Replace it by another frame of the same dataset, log a warning and count it."""


@dataclass(frozen=True, kw_only=True)
class MixtureComponent:
    """Dataset of a mixture, with its weight."""

    dataset: EpisodeDataset
    weight: float


class Mixture(Dataset[Sample]):
    """Datasets drawn from in proportion to their weights, with replacement.

    Episodes of one dataset are equally likely.
    """

    def __init__(self, components: Sequence[MixtureComponent], *, seed: int, epoch_draws: int | None = None,
                 bad_frames: BadFrameHandling = BadFrameHandling.REPLACE) -> None:
        """Describe the mixture.

        Args:
            components: at least one.
            seed: seed of all draws.
            epoch_draws: draws per epoch; None: the number of episodes.
            bad_frames: reaction to frames that cannot be read.

        Raises:
            ValueError: there are no components, or a weight is not positive.
        """
        weights = np.array([component.weight for component in components], np.float64)
        if not len(components) or not (np.isfinite(weights) & (weights > 0)).all():
            given = ', '.join(f'{component.dataset.spec.name}: {component.weight}' for component in components)
            raise ValueError(f'a mixture needs datasets with weights above 0, got {given or "nothing"}')
        self.components = tuple(components)
        self.seed = seed
        episodes = sum(len(component.dataset) for component in components)
        self.epoch_draws = episodes if epoch_draws is None else epoch_draws
        self.shares = weights / weights.sum()
        self._edges = np.cumsum(self.shares)
        self._bad_frames = bad_frames
        if self.epoch_draws < 1:
            raise ValueError(f'epoch_draws is {self.epoch_draws}; expected 1 or more')

    def __len__(self) -> int:
        return self.epoch_draws

    def __getitem__(self, draw: int) -> Sample:
        """Return the sample of a draw, counted from the first epoch on.

        Raises:
            EpisodeError: a frame cannot be read and is not to be replaced, or its replacements cannot be read either.
        """
        errors: list[str] = []
        for attempt in range(_ATTEMPTS):
            rng = self._generator(draw, attempt)
            index, episode = self._pick(rng, self._component(draw) if attempt else None)
            try:
                return replace(self.components[index].dataset.draw_sample(episode, rng), replaced=tuple(errors))
            except EpisodeError as error:
                if self._bad_frames is BadFrameHandling.RAISE:
                    raise
                log.warning('%s; another frame replaces it', error)
                errors.append(str(error))
        raise EpisodeError(f'{_ATTEMPTS} frames in a row cannot be read: ' + '; '.join(errors))

    def describe_draw(self, draw: int) -> str:
        """Return the dataset and file of a draw, for messages."""
        index, episode = self._pick(self._generator(draw, 0), None)
        dataset = self.components[index].dataset
        return f'{dataset.spec.name} ({dataset.files[episode]})'

    def describe(self) -> dict[str, object]:
        """Return what must be the same when a run resumes, as plain JSON; the keys are part of saved training state."""
        return {'seed': self.seed, 'epoch_draws': self.epoch_draws,
                'parts': [[component.dataset.spec.name, len(component.dataset), component.weight]
                          for component in self.components]}

    def close(self) -> None:
        """Close the files of all datasets."""
        for component in self.components:
            component.dataset.close()

    def _generator(self, draw: int, attempt: int) -> np.random.Generator:
        epoch, index = divmod(draw, self.epoch_draws)
        return np.random.default_rng((self.seed, epoch, index, attempt))

    def _component(self, draw: int) -> int:
        return self._pick(self._generator(draw, 0), None)[0]

    def _pick(self, rng: np.random.Generator, component: int | None) -> tuple[int, int]:
        """Return component and episode; a given component is drawn as well, so that later draws stay the same."""
        drawn = min(int(np.searchsorted(self._edges, rng.random(), side='right')), len(self.components) - 1)
        index = drawn if component is None else component
        return index, int(rng.integers(len(self.components[index].dataset)))


class DrawBatchSampler(Sampler[list[int]]):
    """Endless batches of draws for one rank.

    Rank r of w takes the draws r, r + w, r + 2 w, ..., so that all ranks together make the sequence of a single one.
    """

    def __init__(self, batch_size: int, *, rank: int = 0, world_size: int = 1, first_draw: int = 0) -> None:
        if batch_size < 1 or not 0 <= rank < world_size or first_draw < 0:
            raise ValueError(f'batch_size {batch_size}, rank {rank} of {world_size}, first_draw {first_draw}: expected '
                             'at least one sample, a rank below the number of processes, and a draw from 0 on')
        self.batch_size, self.rank, self.world_size, self.first_draw = batch_size, rank, world_size, first_draw

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first_draw
        while True:
            yield self.batch_from(first)
            first += self.batch_size * self.world_size

    def batch_from(self, first_draw: int) -> list[int]:
        """Return this rank's batch of the ``batch_size * world_size`` draws from ``first_draw`` on."""
        return [first_draw + self.rank + place * self.world_size for place in range(self.batch_size)]
