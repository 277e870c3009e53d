"""Trajectories of all arms: interpolation, blending and averaging, fast enough for the control tick.

Translation and gripper are linear between two knots, the rotation follows the shortest
arc on SO(3). Rotations are unit quaternions inside, so that an instant takes tens of
microseconds; inputs and outputs are matrices.

Letters: N instants, K knots, A arms, M members of an average.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import make_pose, pose_to_quaternion
from apt_policy.core.sample import ArmState

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Below this angle the arc equals its chord to rounding.
_STRAIGHT_RAD = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """Poses of all arms at N instants, in the world. Entries of invalid arms are arbitrary."""

    translation: Floats
    """(N, A, 3) [m]."""
    quaternion: Floats
    """(N, A, 4) unit quaternions, x y z w."""
    gripper: Floats
    """(N, A), 0 closed .. 1 open."""
    valid_arms: Flags
    """(A,)."""

    @classmethod
    def from_matrices(cls, world_from_ee: Floats, gripper: Floats, valid_arms: Flags) -> 'Poses':
        """Build from poses (N, A, 4, 4), openings (N, A) and flags (A,); entries of invalid arms are ignored."""
        translation, quaternion = pose_to_quaternion(
            np.where(valid_arms[:, None, None], world_from_ee, np.eye(4)))
        return cls(translation=translation, quaternion=quaternion,
                   gripper=np.where(valid_arms, gripper, 0.0), valid_arms=valid_arms)

    @classmethod
    def from_arm_states(cls, arms: Sequence[ArmState | None]) -> 'Poses':
        """Build one instant (N = 1) from arm states; None is an invalid arm."""
        return cls.from_matrices(
            np.array([[np.eye(4) if arm is None else arm.world_from_ee for arm in arms]]),
            np.array([[0.0 if arm is None else arm.gripper for arm in arms]]),
            np.array([arm is not None for arm in arms]))

    def to_matrices(self) -> tuple[Floats, Floats]:
        """Return poses (N, A, 4, 4) and openings (N, A), with NaN for invalid arms so that their use is noticed."""
        poses, gripper = make_pose(_matrices(self.quaternion), self.translation), self.gripper.copy()
        poses[:, ~self.valid_arms] = np.nan
        gripper[:, ~self.valid_arms] = np.nan
        return poses, gripper


class Trajectory:
    """Poses interpolated between knots in time; constant before the first and after the last knot."""

    def __init__(self, times_ns: Instants, knots: Poses) -> None:
        """Create a trajectory from knots.

        Args:
            times_ns: (K,) strictly increasing instants [ns], K >= 1.
            knots: poses at these instants.
        """
        self._times = times_ns
        self._knots = knots
        self.end_ns = int(times_ns[-1])

    @classmethod
    def standing_still(cls, poses: Poses) -> 'Trajectory':
        """Build the constant trajectory at ``poses`` (N = 1)."""
        return cls(np.zeros(1, dtype=np.int64), poses)

    def times_within(self, first_ns: int, last_ns: int) -> Instants:
        """Return the knots' instants inside an interval [ns]."""
        return self._times[(self._times >= first_ns) & (self._times <= last_ns)]

    def interpolate(self, times_ns: Instants) -> Poses:
        """Interpolate the poses at (N,) instants [ns]."""
        last, knots = len(self._times) - 1, self._knots
        low = np.searchsorted(self._times[1:-1], times_ns, side='right')
        high = np.minimum(low + 1, last)
        span = np.maximum(self._times[high] - self._times[low], 1)
        share = ((times_ns - self._times[low]) / span).clip(0.0, 1.0)[:, None]
        return Poses(translation=_mix(knots.translation[low], knots.translation[high], share[..., None]),
                     quaternion=_slerp(knots.quaternion[low], knots.quaternion[high], share),
                     gripper=_mix(knots.gripper[low], knots.gripper[high], share),
                     valid_arms=knots.valid_arms)


def blend(outgoing: Poses, incoming: Poses, share: Floats) -> Poses:
    """Blend from ``outgoing`` (share 0) to ``incoming`` (share 1), (N,) shares.

    Validity is that of ``incoming``; an arm that is invalid in ``outgoing`` follows ``incoming`` at once.
    """
    weight = np.where(outgoing.valid_arms, share[:, None], 1.0)
    return Poses(translation=_mix(outgoing.translation, incoming.translation, weight[..., None]),
                 quaternion=_slerp(outgoing.quaternion, incoming.quaternion, weight),
                 gripper=_mix(outgoing.gripper, incoming.gripper, weight), valid_arms=incoming.valid_arms)


def average(members: Sequence[Poses], weights: Floats) -> Poses:
    """Average poses with (M,) weights; the rotation is the chordal mean on SO(3).

    Its quaternion is the leading eigenvector of the weighted outer products (Markley et al.,
    Averaging Quaternions, 2007). A member contributes to its valid arms; validity is that
    of the last member.
    """
    last = members[-1]
    share = weights[:, None] * np.array([member.valid_arms for member in members])
    share[-1, ~last.valid_arms] = 1.0
    share /= share.sum(axis=0)
    quaternion = np.array([member.quaternion for member in members])
    moment = np.einsum('ma,mnai,mnaj->naij', share, quaternion, quaternion)
    return Poses(
        translation=np.einsum('ma,mnai->nai', share, np.array([member.translation for member in members])),
        quaternion=np.linalg.eigh(moment)[1][..., -1],
        gripper=np.einsum('ma,mna->na', share, np.array([member.gripper for member in members])),
        valid_arms=last.valid_arms)


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    return (1.0 - share) * first + share * second


def _slerp(first: Floats, second: Floats, share: Floats) -> Floats:
    """Interpolate quaternions (N, A, 4) along the shorter arc; (N, A) or (N, 1) shares."""
    cosine = (first * second).sum(axis=-1)
    angle = np.arccos(np.abs(cosine).clip(max=1.0))
    curved = angle > _STRAIGHT_RAD
    sine = np.where(curved, np.sin(angle), 1.0)
    of_first = np.where(curved, np.sin((1.0 - share) * angle) / sine, 1.0 - share)
    of_second = np.where(curved, np.sin(share * angle) / sine, share)
    mixed = of_first[..., None] * first + (of_second * np.copysign(1.0, cosine))[..., None] * second
    return mixed / np.sqrt((mixed * mixed).sum(axis=-1, keepdims=True))


def _matrices(quaternion: Floats) -> Floats:
    """Return rotations (..., 3, 3) of unit quaternions (..., 4)."""
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return np.stack(rows, axis=-1).reshape(*quaternion.shape[:-1], 3, 3)
