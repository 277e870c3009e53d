"""Errors of predicted states with respect to the labels.

This module knows arrays only, no models, files or episodes.

Letters: B observations, K samples of each, T horizon, A arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_policy.core.actions import unpack_state
from apt_policy.core.geometry import angle_between

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class StateErrors:
    """Errors between states; every field has the same leading axes."""

    position: Array
    """Distance between end-effector positions [m]."""
    rotation: Array
    """Angle between the orientations [deg], 0..180."""
    gripper: Array
    """Absolute difference of the openings, 0..1."""


UNITS = {'position': 'm', 'rotation': 'deg', 'gripper': ''}


@dataclass(frozen=True, kw_only=True, eq=False)
class HorizonErrors:
    """Mean errors over all observations, by step and arm; NaN for an arm that no observation has."""

    mean: StateErrors
    """(T, A) mean over all samples."""
    best: StateErrors
    """(T, A) of the best sample of each observation; see :func:`best_samples`."""
    hold: StateErrors
    """(T, A) of an arm that does not move, as a baseline."""
    observations: NDArray[np.int64]
    """(A,) number of observations that have the arm."""
    samples: int
    """K, samples per observation."""


def state_errors(predicted: ArrayLike, label: ArrayLike) -> StateErrors:
    """Compute the errors between states.

    Args:
        predicted: (..., 17).
        label: (..., 17), broadcast against ``predicted``.

    Returns:
        Errors of shape (...).
    """
    poses, opening = unpack_state(predicted)
    label_poses, label_opening = unpack_state(label)
    gap = poses[..., :3, 3] - label_poses[..., :3, 3]
    turn = angle_between(poses[..., :3, :3], label_poses[..., :3, :3])
    return StateErrors(position=np.linalg.norm(gap, axis=-1), rotation=np.rad2deg(turn),
                       gripper=np.abs(opening - label_opening))


def best_samples(errors: StateErrors, valid_arms: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the sample of each observation with the least position error over horizon and valid arms.

    Args:
        errors: (B, K, T, A).
        valid_arms: (B, A).

    Returns:
        (B,) indices 0..K-1.
    """
    counted = np.where(valid_arms[:, None, None], errors.position, 0.0)
    return counted.sum(axis=(2, 3)).argmin(axis=1)


class HorizonErrorAccumulator:
    """Accumulator of errors over batches, with constant memory."""

    def __init__(self, horizon: int, arms: int) -> None:
        self._mean, self._best, self._hold = (_zeros(horizon, arms) for _ in range(3))
        self._count = np.zeros(arms, np.int64)
        self._samples = 0

    def update(self, predicted: ArrayLike, label: ArrayLike, now: ArrayLike, valid_arms: ArrayLike) -> None:
        """Add the errors of a batch.

        Args:
            predicted: (B, K, T, A, 17) predicted states.
            label: (B, T, A, 17) true states.
            now: (B, A, 17) present states.
            valid_arms: (B, A) bool; the values of other arms are ignored.

        Raises:
            ValueError: a prediction of a valid arm is not finite, or K differs from earlier batches.
        """
        predicted, label, now = (np.asarray(x, np.float64) for x in (predicted, label, now))
        valid = np.asarray(valid_arms, np.bool_)
        if self._samples not in (0, predicted.shape[1]):
            raise ValueError(f'got {predicted.shape[1]} samples per observation, expected {self._samples} as in '
                             'earlier batches')
        self._samples = predicted.shape[1]
        bad = ~np.isfinite(predicted).all(axis=(1, 2, 4)) & valid
        if bad.any():
            raise ValueError(f'the prediction for observation {int(np.argwhere(bad)[0, 0])} of the batch is not '
                             'finite; the weights are damaged, use an older checkpoint')
        errors = state_errors(predicted, label[:, None])
        chosen = best_samples(errors, valid)
        _accumulate(self._mean, _map(errors, lambda e: e.mean(axis=1)), valid)
        _accumulate(self._best, _map(errors, lambda e: e[np.arange(len(e)), chosen]), valid)
        _accumulate(self._hold, state_errors(now[:, None], label), valid)
        self._count += valid.sum(axis=0)

    def compute(self) -> HorizonErrors:
        """Return the means over all batches.

        Raises:
            ValueError: there was no batch.
        """
        if not self._samples:
            raise ValueError('no observation was added; there is nothing to average')
        count = np.where(self._count, self._count, np.nan)
        mean, best, hold = (_map(sums, lambda e: e / count) for sums in (self._mean, self._best, self._hold))
        return HorizonErrors(mean=mean, best=best, hold=hold, observations=self._count.copy(),
                             samples=self._samples)


def mean_over_horizon(errors: StateErrors, observations: NDArray[np.int64]) -> dict[str, float]:
    """Average errors (T, A) over steps and arms, arms weighted by their (A,) ``observations``."""
    seen = observations > 0
    return {name: float(np.average(getattr(errors, name)[:, seen].mean(axis=0), weights=observations[seen]))
            for name in UNITS}


def errors_to_dict(errors: StateErrors, arms: Sequence[str]) -> dict[str, Any]:
    """Return errors (T, A) as plain lists by kind and arm; arms without observations are omitted."""
    return {name: {arm: column.tolist() for arm, column in zip(arms, getattr(errors, name).T, strict=True)
                   if np.isfinite(column).all()}
            for name in UNITS}


def _zeros(horizon: int, arms: int) -> StateErrors:
    return StateErrors(**{field.name: np.zeros((horizon, arms)) for field in fields(StateErrors)})


def _map(errors: StateErrors, function: Any) -> StateErrors:
    return StateErrors(**{field.name: function(getattr(errors, field.name)) for field in fields(StateErrors)})


def _accumulate(sums: StateErrors, errors: StateErrors, valid: NDArray[np.bool_]) -> None:
    """Add errors (B, T, A) of valid arms to sums (T, A)."""
    for field in fields(StateErrors):
        # Absent arms may hold NaN, which multiplication with zero would keep.
        getattr(sums, field.name)[...] += np.where(valid[:, None], getattr(errors, field.name), 0.0).sum(axis=0)
