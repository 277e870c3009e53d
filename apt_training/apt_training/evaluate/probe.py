"""Language probe: swaps instructions between episodes, and measures how much the plans change.

The policy plans for the same observation and the same noise with the episode's own instruction and with another one.
The distance of the two plans is compared with the noise floor, the distance of two plans that differ only in their
noise.

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
"""Share of the noise floor below which a change is rounding."""
FOLLOWED_SHARE = 0.5
"""Share of the noise floor above which the policy follows the instruction."""


class LanguageFollowing(Enum):
    """Conclusion of the probe; the values stand in reports."""

    IGNORES = 'ignores the instruction'
    WEAK = 'moves a little with the instruction, by less than half the noise floor'
    FOLLOWS = 'moves with the instruction'


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Means over observations, samples, steps and arms, by kind of error (see ``metrics.UNITS``)."""

    moved: dict[str, float]
    """Distance between plans for the own and a swapped instruction, with equal noise."""
    floor: dict[str, float]
    """Noise floor: distance between plans for the own instruction, with different noise."""
    error_own: dict[str, float]
    """Error of plans for the own instruction."""
    error_swapped: dict[str, float]
    """Error of plans for a swapped instruction; larger than :attr:`error_own` if language matters."""
    observations: int
    instructions: int
    """Number of different instructions that were swapped in."""

    @property
    def ratio(self) -> float:
        """Ratio of moved to floor for positions; 0 if the floor is 0."""
        return self.moved['position'] / self.floor['position'] if self.floor['position'] > 0 else 0.0

    @property
    def language_following(self) -> LanguageFollowing:
        """Conclusion from the distances of the positions."""
        if self.moved['position'] <= max(IGNORED_SHARE * self.floor['position'], 1e-6):
            return LanguageFollowing.IGNORES
        return LanguageFollowing.FOLLOWS if self.ratio > FOLLOWED_SHARE else LanguageFollowing.WEAK

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON."""
        return {**vars(self), 'ratio': self.ratio, 'verdict': self.language_following.value}


def swap_instructions(own: Sequence[str], others: Collection[str], numbers: Sequence[int], *, seed: int
                      ) -> tuple[str, ...]:
    """Draw another instruction for each observation.

    Args:
        own: (B,) instructions of the observations.
        others: instructions to draw from.
        numbers: (B,) numbers of the observations.
        seed: seed of the draws.

    Returns:
        (B,) instructions.

    Raises:
        ValueError: ``others`` holds no different instruction.
    """
    swapped = []
    for text, number in zip(own, numbers, strict=True):
        choices = sorted(set(others) - {text})
        if not choices:
            raise ValueError(f'there is no instruction other than {text!r} to swap in')
        # The third number separates this stream from the observation's noise, which is drawn from [seed, number].
        swapped.append(choices[np.random.default_rng([seed, number, 1]).integers(len(choices))])
    return tuple(swapped)


class ProbeAccumulator:
    """Accumulator of the probe's distances over batches."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {
            name: np.zeros(len(UNITS)) for name in ('moved', 'floor', 'error_own', 'error_swapped')}
        self._count = 0.0
        self._observations = 0
        self._prompts: set[str] = set()

    def update(self, own: ArrayLike, swapped: ArrayLike, label: ArrayLike, valid_arms: ArrayLike,
               prompts: Sequence[str]) -> None:
        """Add the distances of a batch.

        Args:
            own: (B, K, T, A, 17) plans for the own instructions; K is at least 2.
            swapped: (B, K, T, A, 17) plans for the swapped instructions, from the same noise.
            label: (B, T, A, 17) true states.
            valid_arms: (B, A) bool.
            prompts: (B,) swapped instructions.

        Raises:
            ValueError: K is 1, so that there is no noise floor.
        """
        own, swapped, label = (np.asarray(x, np.float64) for x in (own, swapped, label))
        valid = np.asarray(valid_arms, np.bool_)
        if own.shape[1] < 2:
            raise ValueError('got 1 sample per observation; the noise floor needs 2 or more')
        pairs = {'moved': (own, swapped), 'floor': (own, np.roll(own, 1, axis=1)), 'error_own': (own, label[:, None]),
                 'error_swapped': (swapped, label[:, None])}
        for name, (a, b) in pairs.items():
            errors = state_errors(a, b)
            per_arm = np.stack([getattr(errors, kind).mean(axis=(1, 2)) for kind in UNITS])
            self._sums[name] += np.where(valid, per_arm, 0.0).sum(axis=(1, 2))
        self._count += valid.sum()
        self._observations += len(own)
        self._prompts |= set(prompts)

    def compute(self) -> ProbeResult | None:
        """Return the means over all batches; None if there was none."""
        if not self._count:
            return None
        means = {name: dict(zip(UNITS, (sums / self._count).tolist(), strict=True))
                 for name, sums in self._sums.items()}
        return ProbeResult(**means, observations=self._observations, instructions=len(self._prompts))
