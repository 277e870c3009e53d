"""Pushes a demonstration off its path, so that the data shows how to come back.

What is executed is disturbed, what is written down as the label is not (DART, Laskey et al. 2017). Pure
numbers from a seed.
"""

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import make_pose
from apt_policy.core.sample import ArmState, Target

# Drawn back to zero within the first time, smoothed over the second: a hand strays, it does not tremble.
_RELAXATION_S, _SMOOTHING_S = 0.6, 0.25
# Of the whole disturbance where fingers are at an object; more would make most grasps fail.
_LEAST_SHARE = 0.15
_LOW, _HIGH = 0.06, 0.13
_MOVED = 0.01


class Disturbance:
    """A random walk that is drawn back to zero, smaller near the table."""

    def __init__(self, size: float, period_s: float, start: tuple[ArmState, ...], random: np.random.Generator) -> None:
        """
        Args:
            size: standard deviation of the pull, far above the table [m]; 0 disturbs nothing.
            period_s: between two targets [s].
            start: where the arms are; one that has not left that place is left alone.
        """
        self._size, self._random = size, random
        self._decay = float(np.exp(-period_s / _RELAXATION_S))
        self._follow = 1.0 - float(np.exp(-period_s / _SMOOTHING_S))
        self._start = np.stack([arm.world_from_ee[:3, 3] for arm in start])
        self._pull = np.zeros((len(start), 3))
        self._offsets = np.zeros_like(self._pull)

    def apply(self, target: Target) -> Target:
        """What is executed instead of ``target``."""
        if not self._size:
            return target
        kick = self._size * np.sqrt(1.0 - self._decay**2)
        self._pull = self._decay * self._pull + kick * self._random.standard_normal(self._pull.shape)
        self._offsets = self._offsets + self._follow * (self._pull - self._offsets)
        poses = np.stack([self._moved(pose, start, offset) for pose, start, offset in
                          zip(target.world_from_ee, self._start, self._offsets, strict=True)])
        return Target(due_ns=target.due_ns, world_from_ee=poses, gripper=target.gripper,
                      valid_arms=target.valid_arms, epoch=target.epoch)

    def _moved(self, pose: NDArray[np.float64], start: NDArray[np.float64],
               offset: NDArray[np.float64]) -> NDArray[np.float64]:
        if np.linalg.norm(pose[:3, 3] - start) < _MOVED:
            return pose
        height = np.clip((pose[2, 3] - _LOW) / (_HIGH - _LOW), 0.0, 1.0)
        return make_pose(pose[:3, :3], pose[:3, 3] + (_LEAST_SHARE + (1 - _LEAST_SHARE) * height) * offset)
