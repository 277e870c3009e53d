"""Buffer for /tf with tf2's semantics, for machines without tf2_ros.

The semantics are those of tf2 (geometry2, ``BufferCore`` and ``TimeCache``): a stamp of 0 asks for the latest
instant that is common to all links of the path; a single sample is valid only at its own
instant; nothing is extrapolated; a frame may change its parent over time; a frame becomes
static or moving with its newest message; ``clear`` keeps static frames.
"""

import math
from collections.abc import Container
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.frame_history import (
    FixedFrame,
    FrameHistory,
    FramePose,
    Gap,
    Quaternion,
    Vector,
    multiply,
    normalised,
    rotate,
)

LATEST = 0
"""Stamp that asks for the latest common time of all links between two frames."""

CACHE_NS = 10_000_000_000
"""Length of the history of a moving frame [ns], as in tf2."""

# Tolerance of the squared length of a quaternion, as in tf2.
_NORM_TOLERANCE = 10e-3

_ALWAYS = 2**63 - 1

_Motion = tuple[Quaternion, Vector]
_STILL: _Motion = ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


class TransformError(Exception):
    """Error of a transform that cannot be looked up or inserted; the message names frames and instants."""


class UnknownFrameError(TransformError):
    """Error of a frame that was never published."""


class UnconnectedError(TransformError):
    """Error of two frames in different trees."""


class ExtrapolationError(TransformError):
    """Error of an instant outside the recorded history."""


class TransformRefusedError(TransformError):
    """Error of an invalid transform that is not inserted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StampedTransform:
    """Pose ``parent_from_child`` at one instant."""

    parent: str
    child: str
    stamp_ns: int
    translation: Vector
    """[m]."""
    quaternion_xyzw: Quaternion


class TransformSource(Protocol):
    """Interface of a transform buffer: :class:`TransformBuffer` or tf2_ros."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return ``target_from_source`` (4, 4) at ``stamp_ns`` or :data:`LATEST`; raises TransformError."""

    def latest_common_ns(self, target: str, source: str) -> int:
        """Return the newest common instant of the path [ns], 0 if it is static; raises TransformError."""

    def clear(self) -> None:
        """Drop all but static frames after a jump of the clock."""


class TransformBuffer:
    """Thread-safe buffer of transforms with look-up through time."""

    def __init__(self, cache_ns: int = CACHE_NS) -> None:
        self._cache_ns = cache_ns
        self._lock = Lock()
        self._frames: dict[str, FrameHistory | FixedFrame] = {}
        self._parents: set[str] = set()

    def set_transform(self, transform: StampedTransform) -> None:
        """Insert one transform of /tf.

        Raises:
            TransformRefusedError: the transform is not finite, has no unit quaternion, has no frame names, has
                equal frame names, or is older than the history (tf2's TF_OLD_DATA).
        """
        parent, child, sample = _checked(transform)
        with self._lock:
            history = self._frames.get(child)
            if not isinstance(history, FrameHistory):
                history = self._frames[child] = FrameHistory(self._cache_ns)
            if not history.insert(transform.stamp_ns, sample):
                raise TransformRefusedError(
                    f'{parent} -> {child} at {_seconds(transform.stamp_ns)} is older than the '
                    f'{self._cache_ns / 1e9:g} s kept before {_seconds(history.newest_ns)}; '
                    'clear the buffer after a jump of the clock')
            self._parents.add(parent)

    def set_static_transform(self, transform: StampedTransform) -> None:
        """Insert one transform of /tf_static, valid at all times; raises as :meth:`set_transform`."""
        parent, child, sample = _checked(transform)
        with self._lock:
            self._frames[child] = FixedFrame(sample)
            self._parents.add(parent)

    def clear(self) -> None:
        """Drop the history of all moving frames; static frames and all frame names are kept."""
        with self._lock:
            for child, history in self._frames.items():
                if isinstance(history, FrameHistory):
                    self._frames[child] = FrameHistory(self._cache_ns)

    def lookup(self, target: str, source: str, stamp_ns: int = LATEST) -> NDArray[np.float64]:
        """Return ``target_from_source`` (4, 4) at ``stamp_ns``, or at the latest common instant.

        Raises:
            TransformError: a subclass that gives the reason; the message names both frames.
        """
        if target == source:
            return np.eye(4)
        with self._lock:
            self._require(target, source)
            if stamp_ns == LATEST:
                stamp_ns = self._latest_common(target, source)
            return self._compose(target, source, stamp_ns)

    def latest_common_ns(self, target: str, source: str) -> int:
        """Return the newest instant common to all moving links between the frames [ns]; 0 if all are static.

        Raises:
            UnknownFrameError: a frame was never published.
            UnconnectedError: the frames are in different trees.
        """
        with self._lock:
            if target == source:
                known = self._frames.get(source)
                return known.newest_ns if known else 0
            self._require(target, source)
            return self._latest_common(target, source)

    def _require(self, target: str, source: str) -> None:
        for frame in (target, source):
            if frame not in self._frames and frame not in self._parents:
                known = sorted({*self._frames, *self._parents})
                raise UnknownFrameError(
                    f'transform {target} <- {source}: frame {frame!r} was never published; '
                    f'known frames are {", ".join(known) or "none"}')

    def _latest_common(self, target: str, source: str) -> int:
        below = self._newest_above(source, stop=(target,))
        above = self._newest_above(target, stop=below)
        meeting = next(reversed(above))
        if meeting not in below:
            raise _unconnected(target, source)
        newest = min(above[meeting], below[meeting])
        return 0 if newest == _ALWAYS else newest

    def _newest_above(self, start: str, stop: Container[str]) -> dict[str, int]:
        """Return the newest common instant between ``start`` and each ancestor up to the first in ``stop``."""
        frame, newest = start, _ALWAYS
        reached = {start: newest}
        while frame not in stop:
            history = self._frames.get(frame)
            sample = history.newest() if history else None
            if history is None or sample is None:
                break
            newest = min(newest, history.newest_ns or _ALWAYS)
            frame = _check_no_loop(sample.parent, reached)
            reached[frame] = newest
        return reached

    def _compose(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        below = self._motion_above(source, stamp_ns, stop=(target,))
        above = self._motion_above(target, stamp_ns, stop=below)
        meeting = next(reversed(above))
        if meeting not in below:
            for end in (meeting, next(reversed(below))):
                self._refuse_gap(end, target, source, stamp_ns)
            raise _unconnected(target, source)
        (source_turn, source_offset), (target_turn, target_offset) = below[meeting], above[meeting]
        back = (-target_turn[0], -target_turn[1], -target_turn[2], target_turn[3])
        offset = (source_offset[0] - target_offset[0], source_offset[1] - target_offset[1],
                  source_offset[2] - target_offset[2])
        return _matrix(multiply(back, source_turn), rotate(back, offset))

    def _motion_above(self, start: str, stamp_ns: int, stop: Container[str]) -> dict[str, _Motion]:
        """Return the pose of ``start`` in itself and in each ancestor up to the first in ``stop`` or to a gap."""
        frame, (turn, offset) = start, _STILL
        reached = {start: _STILL}
        while frame not in stop:
            history = self._frames.get(frame)
            sample = history.pose_at(stamp_ns) if history else Gap.EMPTY
            if isinstance(sample, Gap):
                break
            turned = rotate(sample.quaternion, offset)
            step = sample.translation
            offset = (turned[0] + step[0], turned[1] + step[1], turned[2] + step[2])
            turn = multiply(sample.quaternion, turn)
            frame = _check_no_loop(sample.parent, reached)
            reached[frame] = (turn, offset)
        return reached

    def _refuse_gap(self, frame: str, target: str, source: str, stamp_ns: int) -> None:
        history = self._frames.get(frame)
        gap = history.pose_at(stamp_ns) if history else None
        if history is None or not isinstance(gap, Gap):
            return
        wanted, newest, oldest = _seconds(stamp_ns), _seconds(history.newest_ns), _seconds(history.oldest_ns)
        why = {Gap.EMPTY: f'nothing is known of {frame!r} since the buffer was cleared',
               Gap.ONLY_ONE: f'{frame!r} is known at {newest} only',
               Gap.FUTURE: f'extrapolation into the future: the newest data of {frame!r} is at {newest}',
               Gap.PAST: f'extrapolation into the past: the oldest data of {frame!r} is at {oldest}'}
        raise ExtrapolationError(f'transform {target} <- {source} at {wanted}: {why[gap]}')


def _checked(transform: StampedTransform) -> tuple[str, str, FramePose]:
    parent, child = transform.parent.removeprefix('/'), transform.child.removeprefix('/')
    quaternion = transform.quaternion_xyzw
    squared = sum(value * value for value in quaternion)
    if not parent or not child:
        problem = 'a frame name is empty'
    elif parent == child:
        problem = 'parent and child are the same frame'
    elif not all(map(math.isfinite, transform.translation)) or not math.isfinite(squared):
        problem = f'translation {transform.translation} and quaternion {quaternion} must be finite'
    elif abs(squared - 1.0) >= _NORM_TOLERANCE:
        problem = f'quaternion {quaternion} has length {math.sqrt(squared):.4f}, expected 1'
    else:
        return parent, child, FramePose(parent, transform.translation, normalised(quaternion))
    raise TransformRefusedError(
        f'transform {parent!r} -> {child!r} at {_seconds(transform.stamp_ns)} refused: {problem}')


def _check_no_loop(frame: str, reached: Container[str]) -> str:
    if frame in reached:
        raise UnconnectedError(f'the frames form a loop through {frame!r}')
    return frame


def _unconnected(target: str, source: str) -> UnconnectedError:
    return UnconnectedError(f'transform {target} <- {source}: the frames are in different trees')


def _matrix(q: Quaternion, offset: Vector) -> NDArray[np.float64]:
    x, y, z, w = q
    return np.array((
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), offset[0]),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), offset[1]),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), offset[2]),
        (0.0, 0.0, 0.0, 1.0)))


def _seconds(stamp_ns: int) -> str:
    return f'{stamp_ns / 1e9:.6f} s'
