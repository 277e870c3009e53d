"""What a policy without weights does: a slow circle of a few centimetres, the same every time.

Nothing has been learned, so nothing of this comes from the images or the instruction; it
exists so that everything around the model can be tried. Knows nothing of the model.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import ArmState, Observation


@dataclass(frozen=True, kw_only=True)
class Circle:
    """In the world's x-z plane, up from where each arm was first seen; neighbours run mirrored."""

    radius_m: float = 0.04
    period_s: float = 8.0


class UntrainedMotion:
    """Remembers where each arm stood when an epoch began, so that the motion cannot drift."""

    def __init__(self, circle: Circle, *, horizon: int, step_ns: int) -> None:
        self._circle = circle
        self._offsets_s = np.arange(1, horizon + 1) * step_ns * 1e-9
        self._epoch: int | None = None
        self._start_ns = 0
        self._anchor: tuple[ArmState | None, ...] = ()

    def states(self, observation: Observation, epoch: int) -> NDArray[np.float64]:
        """(T, A, 17) future states; rows of an absent arm are the identity."""
        if epoch != self._epoch or len(self._anchor) != len(observation.arms):
            self._epoch, self._start_ns, self._anchor = epoch, observation.stamp_ns, observation.arms
        since_s = (observation.stamp_ns - self._start_ns) * 1e-9 + self._offsets_s
        angle = 2 * math.pi * since_s / self._circle.period_s
        return np.stack([self._arm(arm, angle, (-1.0) ** i) for i, arm in enumerate(self._anchor)], axis=1)

    def _arm(self, anchor: ArmState | None, angle: NDArray[np.floating], side: float) -> NDArray[np.float64]:
        poses = np.tile(np.eye(4) if anchor is None else anchor.world_from_ee, (len(angle), 1, 1))
        poses[:, 0, 3] += side * self._circle.radius_m * np.sin(angle)
        poses[:, 2, 3] += self._circle.radius_m * (1 - np.cos(angle))
        closed = 0.0 if anchor is None else anchor.gripper
        gripper = closed + (0.5 - closed) * (1 - np.cos(angle)) / 2
        return np.concatenate([poses.reshape(-1, 16), gripper[:, None]], axis=1)
