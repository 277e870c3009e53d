"""How far predicted states are from the labels: the suite's one definition of it.

Numbers in, numbers out: nothing of models, files or episodes. The trainer's validation and
``apt-eval`` both call it.

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
class Errors:
    """Distances between states; every field has the same leading axes."""

    position: Array
    """Between end-effector positions [m]."""
    rotation: Array
    """Angle of the turn from one to the other [deg], 0..180."""
    gripper: Array
    """Between openings 0..1, absolute."""


UNITS = {'position': 'm', 'rotation': 'deg', 'gripper': ''}


@dataclass(frozen=True, kw_only=True, eq=False)
class HorizonErrors:
    """Means over all observations, by step and arm; NaN for an arm that no observation has."""

    mean: Errors
    """(T, A): of all samples."""
    best: Errors
    """(T, A): of the sample of every observation that :func:`best_samples` names."""
    hold: Errors
    """(T, A): of staying where the arm is, as a yardstick."""
    observations: NDArray[np.int64]
    """(A,) how many observations have that arm."""
    samples: int
    """K."""


def state_errors(predicted: ArrayLike, label: ArrayLike) -> Errors:
    """Between states (..., 17) and (..., 17) that broadcast; fields (...)."""
    poses, opening = unpack_state(predicted)
    label_poses, label_opening = unpack_state(label)
    gap = poses[..., :3, 3] - label_poses[..., :3, 3]
    turn = angle_between(poses[..., :3, :3], label_poses[..., :3, :3])
    return Errors(position=np.linalg.norm(gap, axis=-1), rotation=np.rad2deg(turn),
                  gripper=np.abs(opening - label_opening))


def best_samples(errors: Errors, valid_arms: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B,) the sample nearest to the label: least position error over horizon and valid arms.

    Args:
        errors: (B, K, T, A).
        valid_arms: (B, A).
    """
    counted = np.where(valid_arms[:, None, None], errors.position, 0.0)
    return counted.sum(axis=(2, 3)).argmin(axis=1)


class HorizonSums:
    """Adds up errors batch by batch, in memory that does not grow."""

    def __init__(self, horizon: int, arms: int) -> None:
        self._mean, self._best, self._hold = (_zeros(horizon, arms) for _ in range(3))
        self._count = np.zeros(arms, np.int64)
        self._samples = 0

    def add(self, predicted: ArrayLike, label: ArrayLike, now: ArrayLike, valid_arms: ArrayLike) -> None:
        """Take in a batch.

        Args:
            predicted: (B, K, T, A, 17).
            label: (B, T, A, 17).
            now: (B, A, 17) where the arms are.
            valid_arms: (B, A) bool; the rows of others mean nothing.

        Raises:
            ValueError: a prediction of a valid arm is not finite, or K is not that of earlier batches.
        """
        predicted, label, now = (np.asarray(x, np.float64) for x in (predicted, label, now))
        valid = np.asarray(valid_arms, np.bool_)
        if self._samples not in (0, predicted.shape[1]):
            raise ValueError(f'{predicted.shape[1]} samples of an observation, earlier batches had {self._samples}')
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

    def result(self) -> HorizonErrors:
        """Means of all that was added.

        Raises:
            ValueError: nothing was.
        """
        if not self._samples:
            raise ValueError('no observation was added; there is nothing to average')
        count = np.where(self._count, self._count, np.nan)
        mean, best, hold = (_map(sums, lambda e: e / count) for sums in (self._mean, self._best, self._hold))
        return HorizonErrors(mean=mean, best=best, hold=hold, observations=self._count.copy(),
                             samples=self._samples)


def overall(errors: Errors, observations: NDArray[np.int64]) -> dict[str, float]:
    """One number of each kind from (T, A): the mean over steps and arms, arms weighted by ``observations``."""
    seen = observations > 0
    return {name: float(np.average(getattr(errors, name)[:, seen].mean(axis=0), weights=observations[seen]))
            for name in UNITS}


def errors_to_dict(errors: Errors, arms: Sequence[str]) -> dict[str, Any]:
    """(T, A) errors as plain lists by kind and arm, ready for JSON; an arm never seen is left out."""
    return {name: {arm: column.tolist() for arm, column in zip(arms, getattr(errors, name).T, strict=True)
                   if np.isfinite(column).all()}
            for name in UNITS}


def _zeros(horizon: int, arms: int) -> Errors:
    return Errors(**{field.name: np.zeros((horizon, arms)) for field in fields(Errors)})


def _map(errors: Errors, function: Any) -> Errors:
    return Errors(**{field.name: function(getattr(errors, field.name)) for field in fields(Errors)})


def _accumulate(sums: Errors, errors: Errors, valid: NDArray[np.bool_]) -> None:
    """Add (B, T, A) of valid arms to (T, A)."""
    for field in fields(Errors):
        # Rows of absent arms may hold NaN, which a product with zero would keep.
        getattr(sums, field.name)[...] += np.where(valid[:, None], getattr(errors, field.name), 0.0).sum(axis=0)
