"""History of one frame's pose relative to its parent, and quaternion arithmetic.

Plain floats are used because a look-up composes one transform at a time, where small arrays
cost more than the arithmetic.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum, auto

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Gap(Enum):
    """Reason why a history has no pose for an instant."""

    EMPTY = auto()
    ONLY_ONE = auto()
    """There is only one pose, at another instant."""
    FUTURE = auto()
    PAST = auto()


@dataclass(frozen=True, slots=True)
class FramePose:
    """Pose ``parent_from_frame`` of a frame in its parent."""

    parent: str
    translation: Vector
    quaternion: Quaternion
    """Unit quaternion, x y z w."""


class FrameHistory:
    """Poses of a moving frame, oldest first, of the last ``duration_ns`` before the newest."""

    def __init__(self, duration_ns: int) -> None:
        self._duration_ns = duration_ns
        self._stamps: list[int] = []
        self._poses: list[FramePose] = []

    def insert(self, stamp_ns: int, pose: FramePose) -> bool:
        """Insert a pose in order of time; return False if it is older than the history.

        Several poses of one instant are kept; the last one inserted is used.
        """
        stamps, poses = self._stamps, self._poses
        if stamps and stamp_ns < stamps[-1] - self._duration_ns:
            return False
        place = bisect_right(stamps, stamp_ns)
        if place and stamps[place - 1] == stamp_ns and poses[place - 1] == pose:
            return True
        stamps.insert(place, stamp_ns)
        poses.insert(place, pose)
        if stamps[0] < stamps[-1] - self._duration_ns:
            stale = bisect_right(stamps, stamps[-1] - self._duration_ns - 1)
            del stamps[:stale], poses[:stale]
        return True

    def pose_at(self, stamp_ns: int) -> FramePose | Gap:
        """Interpolate the pose at ``stamp_ns``; across a change of parent the older neighbour is used."""
        stamps = self._stamps
        if not stamps:
            return Gap.EMPTY
        place = bisect_right(stamps, stamp_ns)
        if place and stamps[place - 1] == stamp_ns:
            return self._poses[place - 1]
        if len(stamps) == 1:
            return Gap.ONLY_ONE
        if place == 0:
            return Gap.PAST
        if place == len(stamps):
            return Gap.FUTURE
        older, newer = self._poses[place - 1], self._poses[place]
        if older.parent != newer.parent:
            return older
        ratio = (stamp_ns - stamps[place - 1]) / (stamps[place] - stamps[place - 1])
        (ax, ay, az), (bx, by, bz) = older.translation, newer.translation
        return FramePose(older.parent, (ax + ratio * (bx - ax), ay + ratio * (by - ay), az + ratio * (bz - az)),
                      slerp(older.quaternion, newer.quaternion, ratio))

    def newest(self) -> FramePose | None:
        """Return the newest pose, None if there is none."""
        return self._poses[-1] if self._poses else None

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest pose, 0 if there is none."""
        return self._stamps[-1] if self._stamps else 0

    @property
    def oldest_ns(self) -> int:
        """Stamp of the oldest pose, 0 if there is none."""
        return self._stamps[0] if self._stamps else 0


class FixedFrame:
    """Static frame: one pose, valid at every instant."""

    newest_ns = 0
    oldest_ns = 0

    def __init__(self, pose: FramePose) -> None:
        self._pose = pose

    def pose_at(self, stamp_ns: int) -> FramePose | Gap:
        """Return the static pose for any instant."""
        return self._pose

    def newest(self) -> FramePose | None:
        """Return the static pose."""
        return self._pose


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Multiply two quaternions: the rotation ``b`` followed by ``a``."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz)


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Rotate ``v`` by the unit quaternion ``q``."""
    x, y, z, w = q
    vx, vy, vz = v
    # v + 2 u x (u x v + w v), u the vector part
    cx, cy, cz = y * vz - z * vy + w * vx, z * vx - x * vz + w * vy, x * vy - y * vx + w * vz
    return vx + 2 * (y * cz - z * cy), vy + 2 * (z * cx - x * cz), vz + 2 * (x * cy - y * cx)


def slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    """Interpolate from ``a`` to ``b`` along the shorter arc at constant speed."""
    cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    sign = 1.0 if cosine >= 0 else -1.0
    angle = math.acos(min(1.0, sign * cosine))
    sine = math.sin(angle)
    if sine < 1e-6:
        # At this angle the chord equals the arc to rounding; also avoids 0 / 0.
        share_a, share_b = 1.0 - ratio, sign * ratio
    else:
        share_a = math.sin((1.0 - ratio) * angle) / sine
        share_b = sign * math.sin(ratio * angle) / sine
    return normalised((share_a * a[0] + share_b * b[0], share_a * a[1] + share_b * b[1],
                       share_a * a[2] + share_b * b[2], share_a * a[3] + share_b * b[3]))


def normalised(q: Quaternion) -> Quaternion:
    """Scale ``q`` to length 1."""
    x, y, z, w = q
    length = math.sqrt(x * x + y * y + z * z + w * w)
    return x / length, y / length, z / length, w / length
