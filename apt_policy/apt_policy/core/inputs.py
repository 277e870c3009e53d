"""Inputs of one camera and one arm to an observation, as of an instant.

Adding a message stores a reference; reading decodes. A missing, stale or bad input gives a
:class:`Hold` that names the stream, never a zero or an identity. All instants are arguments.
"""

import math
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import Arm, Camera
from apt_policy.core.decode import (
    DecodeError,
    decode_camera_info,
    decode_image_reduced,
    decode_joint_positions,
    stamp_to_ns,
)
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.images import letterbox, whole_halvings
from apt_policy.core.sample import ArmState, Hold, HoldReason, View
from apt_policy.core.streams import Arrival, Stamped, Stream, StreamReport, TimeBase
from apt_policy.core.transforms import TransformError, TransformSource

Array = NDArray[np.float64]

# Enough to contain an image from before the newest TF: a 20 Hz TF publisher lags 3 images behind.
_IMAGES_KEPT = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """TF frame relative to an arm's base, whose pose in the world is in the contract."""

    base: str
    frame: str
    world_from_base: Array
    """(4, 4)."""
    transforms: TransformSource
    frame_from_mounted: Array | None = None
    """(4, 4) pose of an object mounted on the frame; None for the frame itself."""

    @property
    def name(self) -> str:
        """Name of the stream in reports and holds."""
        return f'TF {self.base} -> {self.frame}'

    def newest_ns(self) -> int | Hold:
        """Return the newest instant with a pose [ns], 0 for a static frame, or a hold if there is none."""
        try:
            return self.transforms.latest_common_ns(self.base, self.frame)
        except TransformError as error:
            return self._hold(HoldReason.MISSING_STREAM, str(error))

    def pose(self, stamp_ns: int) -> Array | Hold:
        """Return the pose in the world (4, 4) at an instant not after :meth:`newest_ns`, or a hold."""
        try:
            base_from_frame = self.transforms.lookup(self.base, self.frame, stamp_ns)
        except TransformError as error:
            return self._hold(HoldReason.MISSING_STREAM, str(error))
        if not np.isfinite(base_from_frame).all():
            return self._hold(HoldReason.BAD_INPUT, 'the transform is not finite')
        pose = self.world_from_base @ base_from_frame
        return pose if self.frame_from_mounted is None else pose @ self.frame_from_mounted

    def _hold(self, reason: HoldReason, what: str) -> Hold:
        return Hold(reason=reason, detail=f'{self.name}: {what}', stream=self.name)

    def report(self, tick_ns: int, max_age_s: float) -> StreamReport:
        """Report the age of the newest transform; TF has no expected rate."""
        newest = self.newest_ns()
        age_s = -1.0 if isinstance(newest, Hold) else max(0, tick_ns - newest) / 1e9 if newest else 0.0
        return StreamReport(stream=self.name, age_s=age_s, max_age_s=max_age_s, rate_hz=0.0,
                            expected_hz=0.0, ok=0.0 <= age_s <= max_age_s)


class CameraInput:
    """Images, intrinsics and pose of one camera."""

    def __init__(self, name: str, camera: Camera, size: int, link: Link | None, base: TimeBase) -> None:
        """Create the input of one camera.

        Args:
            name: camera name in the contract.
            camera: its part of the contract.
            size: side of the view [px].
            link: TF frame of a moving camera; None for a camera with a fixed pose.
            base: time base of the images.
        """
        self.name = name
        self._camera, self._size, self._link, self._base = camera, size, link, base
        fixed = camera.world_from_camera
        self._fixed = np.full((4, 4), np.nan) if fixed is None else fixed.matrix
        self._lock = Lock()
        self._images: Stream[Any] = Stream(_IMAGES_KEPT)
        self._info: Any = None
        self._seen: tuple[Any, Any, View] | None = None

    def add_image(self, message: Any, receive_ns: int) -> Arrival:
        """Store a reference to sensor_msgs/Image or CompressedImage."""
        with self._lock:
            return self._images.push(_instant(message, receive_ns, self._base), message)

    def add_info(self, message: Any) -> None:
        """Store a reference to the newest sensor_msgs/CameraInfo."""
        with self._lock:
            self._info = message

    def clear(self) -> None:
        """Drop the images; the intrinsics stay valid after a jump of the clock."""
        with self._lock:
            self._images.clear()
            self._seen = None

    def view(self, tick_ns: int) -> View | Hold:
        """Return the newest image not after the tick with a known camera pose, or a hold; images are decoded once."""
        with self._lock:
            images, info, seen = self._images.until(tick_ns), self._info, self._seen
            absent = _absence(self.name, self._images, tick_ns)
        if not images:
            return absent
        if info is None:
            return Hold(reason=HoldReason.MISSING_STREAM, stream=self.name,
                        detail=f'{self.name}: no camera_info yet on {self._camera.info_topic}')
        found = self._placed(images, tick_ns)
        if isinstance(found, Hold):
            return found
        image, pose = found
        if seen is not None and seen[0] is image.value and seen[1] is info:
            return seen[2]
        view = self._decoded(image, info, pose)
        if isinstance(view, View):
            with self._lock:
                self._seen = (image.value, info, view)
        return view

    def reports(self, tick_ns: int) -> tuple[StreamReport, ...]:
        """Report the images, and the TF frame of a moving camera."""
        with self._lock:
            images = self._images.report(self.name, tick_ns, max_age_s=self._camera.max_age_s,
                                         expected_hz=self._camera.rate_hz)
        if self._link is None:
            return (images,)
        return images, self._link.report(tick_ns, self._camera.max_age_s)

    def _placed(self, images: tuple[Stamped[Any], ...], tick_ns: int) -> tuple[Stamped[Any], Array] | Hold:
        fresh = [image for image in images if (tick_ns - image.stamp_ns) / 1e9 <= self._camera.max_age_s]
        if not fresh:
            return _stale(self.name, (tick_ns - images[0].stamp_ns) / 1e9, self._camera.max_age_s)
        if self._link is None:
            return fresh[0], self._fixed
        newest = self._link.newest_ns()
        if isinstance(newest, Hold):
            return newest
        known = next((image for image in fresh if newest == 0 or image.stamp_ns <= newest), None)
        if known is None:
            behind = (fresh[0].stamp_ns - newest) / 1e9
            return Hold(reason=HoldReason.STALE_STREAM, stream=self._link.name, detail=(
                f'{self._link.name}: {behind:.3f} s older than the newest image of {self.name}, and no '
                f'image of the last {self._camera.max_age_s:g} s is as old as that'))
        pose = self._link.pose(known.stamp_ns)
        return pose if isinstance(pose, Hold) else (known, pose)

    def _decoded(self, image: Stamped[Any], info: Any, pose: Array) -> View | Hold:
        try:
            model = decode_camera_info(info)
            rgb, factor = decode_image_reduced(image.value, whole_halvings(model.height, model.width, self._size))
        except DecodeError as error:
            return Hold(reason=HoldReason.BAD_INPUT, detail=f'{self.name}: {error}', stream=self.name)
        height, width = rgb.shape[0] * factor, rgb.shape[1] * factor
        if (height, width) != (model.height, model.width):
            return Hold(reason=HoldReason.BAD_INPUT, stream=self.name, detail=(
                f'{self.name}: image is {width}x{height}, its camera_info on '
                f'{self._camera.info_topic} describes {model.width}x{model.height}'))
        boxed = letterbox(rgb, np.diag((1 / factor, 1 / factor, 1.0)) @ model.intrinsics, self._size)
        return View(rgb=boxed.rgb, mask=boxed.mask, intrinsics=boxed.intrinsics, world_from_camera=pose,
                    stamp_ns=image.stamp_ns)


class ArmInput:
    """Joint states of one arm and the TF pose of its end-effector."""

    def __init__(self, name: str, arm: Arm, link: Link, base: TimeBase, reach_s: float) -> None:
        """Create the input of one arm.

        Args:
            name: arm name in the contract.
            arm: its part of the contract.
            link: TF frame of its end-effector.
            base: time base of the joint states.
            reach_s: age of the oldest instant that :meth:`state` must answer [s].
        """
        self.name = name
        self._stream = f'{name} joint_states'
        self._arm, self._link, self._base = arm, link, base
        self._joints = (*arm.joints, arm.gripper_state.joint)
        self._lock = Lock()
        # Twice the number at the expected rate, because a driver may publish faster than the contract says.
        self._states: Stream[Any] = Stream(8 + math.ceil(2 * arm.state_rate_hz * (reach_s + arm.max_age_s)))

    def add_joint_state(self, message: Any, receive_ns: int) -> Arrival:
        """Store a reference to sensor_msgs/JointState."""
        with self._lock:
            return self._states.push(_instant(message, receive_ns, self._base), message)

    def clear(self) -> None:
        """Drop the joint states."""
        with self._lock:
            self._states.clear()

    def state(self, stamp_ns: int) -> ArmState | Hold:
        """Return the arm state at an instant, or a hold; the pose is interpolated, or the newest if TF ends before."""
        opening = self._opening(stamp_ns)
        if isinstance(opening, Hold):
            return opening
        newest = self._link.newest_ns()
        if isinstance(newest, Hold):
            return newest
        age_s = (stamp_ns - newest) / 1e9
        if newest and age_s > self._arm.max_age_s:
            return _stale(self._link.name, age_s, self._arm.max_age_s)
        pose = self._link.pose(min(stamp_ns, newest) if newest else stamp_ns)
        return pose if isinstance(pose, Hold) else ArmState(world_from_ee=pose, gripper=opening)

    def reports(self, tick_ns: int) -> tuple[StreamReport, ...]:
        """Report the joint states and the TF frame."""
        with self._lock:
            states = self._states.report(self._stream, tick_ns, max_age_s=self._arm.max_age_s,
                                         expected_hz=self._arm.state_rate_hz)
        return states, self._link.report(tick_ns, self._arm.max_age_s)

    def _opening(self, stamp_ns: int) -> float | Hold:
        """Return the gripper opening at the instant, linear between two known states, or a hold."""
        with self._lock:
            before, after = self._states.around(stamp_ns)
            absent = _absence(self._stream, self._states, stamp_ns)
        if before is None:
            return absent
        age_s = (stamp_ns - before.stamp_ns) / 1e9
        if age_s > self._arm.max_age_s:
            return _stale(self._stream, age_s, self._arm.max_age_s)
        try:
            reading = self._reading(before.value)
            if after is not None:
                share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
                reading += share * (self._reading(after.value) - reading)
        except DecodeError as error:
            return Hold(reason=HoldReason.BAD_INPUT, detail=f'{self._stream}: {error}', stream=self._stream)
        return opening_from_reading(reading, self._arm.gripper_state)

    def _reading(self, message: Any) -> float:
        # All joints are checked, because TF is computed from them too.
        return decode_joint_positions(message, self._joints)[self._arm.gripper_state.joint]


def _instant(message: Any, receive_ns: int, base: TimeBase) -> int:
    return receive_ns if base is TimeBase.RECEIVE else stamp_to_ns(message.header.stamp)


def _absence(name: str, stream: Stream[Any], tick_ns: int) -> Hold:
    """Describe why the stream has no usable message at the tick."""
    if stream.newest_ns is not None:
        ahead = (stream.newest_ns - tick_ns) / 1e9
        detail = f'no message before the tick yet; the newest one is stamped {ahead:.3f} s after it'
    elif stream.unstamped:
        detail = (f'{stream.unstamped} messages without a stamp were refused; set header.stamp in the '
                  'driver, or the time base of this stream to receive')
    else:
        detail = 'no message yet'
    return Hold(reason=HoldReason.MISSING_STREAM, detail=f'{name}: {detail}', stream=name)


def _stale(name: str, age_s: float, max_age_s: float) -> Hold:
    return Hold(reason=HoldReason.STALE_STREAM, detail=f'{name}: {age_s:.3f} s old, limit {max_age_s:g} s',
                stream=name)
