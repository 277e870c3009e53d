"""Does the policy listen? Instructions are swapped between episodes, and the action is watched.

The same observation with the same noise is asked with its own instruction and with another
episode's. How far the two answers lie apart is set against the noise floor: how far two answers
lie apart that differ in nothing but the noise they start from.

Letters: B observations, K samples of each, T horizon, A arms.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_training.evaluate.metrics import UNITS, state_errors

IGNORED_SHARE = 1e-4
"""Of the noise floor: what moves less than this is rounding."""
FOLLOWED_SHARE = 0.5


class Verdict(Enum):
    """What the probe says."""

    IGNORES = 'ignores the instruction'
    WEAK = 'moves a little with the instruction, by less than half the noise floor'
    FOLLOWS = 'moves with the instruction'


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Means over observations, samples, steps and arms, by kind of error (see ``metrics.UNITS``)."""

    moved: dict[str, float]
    """Between answers to the own and to a swapped instruction, noise equal."""
    floor: dict[str, float]
    """Between answers to the own instruction, noise unequal."""
    error_own: dict[str, float]
    """From the label, own instruction."""
    error_swapped: dict[str, float]
    """From the label, swapped instruction: more than :attr:`error_own` where the words matter."""
    observations: int
    instructions: int
    """Different ones that were swapped in."""

    @property
    def ratio(self) -> float:
        """Of the positions: moved over floor; 0 where both are nothing."""
        return self.moved['position'] / self.floor['position'] if self.floor['position'] > 0 else 0.0

    @property
    def verdict(self) -> Verdict:
        """In words."""
        if self.moved['position'] <= max(IGNORED_SHARE * self.floor['position'], 1e-6):
            return Verdict.IGNORES
        return Verdict.FOLLOWS if self.ratio > FOLLOWED_SHARE else Verdict.WEAK

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), 'ratio': self.ratio, 'verdict': self.verdict.value}


def swap_instructions(own: Sequence[str], others: Collection[str], numbers: Sequence[int], *, seed: int
                      ) -> tuple[str, ...]:
    """Another instruction for each of ``own``, drawn from ``others``.

    Args:
        own: (B,) of the observations.
        others: to draw from.
        numbers: (B,) of the observations.
        seed: of the draws.

    Raises:
        ValueError: ``others`` holds nothing that differs.
    """
    swapped = []
    for text, number in zip(own, numbers, strict=True):
        choices = sorted(set(others) - {text})
        if not choices:
            raise ValueError(f'there is no instruction other than {text!r} to swap in')
        # A stream of its own: the noise of the observation is drawn from [seed, number].
        swapped.append(choices[np.random.default_rng([seed, number, 1]).integers(len(choices))])
    return tuple(swapped)


class ProbeSums:
    """Adds up distances batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {
            name: np.zeros(len(UNITS)) for name in ('moved', 'floor', 'error_own', 'error_swapped')}
        self._count = 0.0
        self._observations = 0
        self._said: set[str] = set()

    def add(self, own: ArrayLike, swapped: ArrayLike, label: ArrayLike, valid_arms: ArrayLike,
            said: Sequence[str]) -> None:
        """Take in a batch.

        Args:
            own: (B, K, T, A, 17) answers to the own instructions; K is at least 2.
            swapped: the same shape, to the swapped ones, from the same noise.
            label: (B, T, A, 17).
            valid_arms: (B, A) bool.
            said: (B,) the swapped instructions.

        Raises:
            ValueError: there is one sample only, which has no noise floor.
        """
        own, swapped, label = (np.asarray(x, np.float64) for x in (own, swapped, label))
        valid = np.asarray(valid_arms, np.bool_)
        if own.shape[1] < 2:
            raise ValueError('the noise floor needs at least 2 samples of an observation, got 1')
        pairs = {'moved': (own, swapped), 'floor': (own, np.roll(own, 1, axis=1)), 'error_own': (own, label[:, None]),
                 'error_swapped': (swapped, label[:, None])}
        for name, (a, b) in pairs.items():
            errors = state_errors(a, b)
            per_arm = np.stack([getattr(errors, kind).mean(axis=(1, 2)) for kind in UNITS])
            self._sums[name] += np.where(valid, per_arm, 0.0).sum(axis=(1, 2))
        self._count += valid.sum()
        self._observations += len(own)
        self._said |= set(said)

    def result(self) -> ProbeResult | None:
        """Means of all that was added; None if nothing was."""
        if not self._count:
            return None
        means = {name: dict(zip(UNITS, (sums / self._count).tolist(), strict=True))
                 for name, sums in self._sums.items()}
        return ProbeResult(**means, observations=self._observations, instructions=len(self._said))
