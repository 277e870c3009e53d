"""Validation of the published planner's observation frame, a nested dict, and conversion to the suite's values.

Its published keys are one per camera, ``ee_pose``, ``gripper`` and ``timestamp``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.geometry import is_rigid
from apt_policy.core.images import letterbox
from apt_policy.core.policy_facts import PolicyFacts
from apt_policy.core.sample import ArmState, View

_CORNER = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
"""Offset from OpenCV's intrinsics (centre of the first pixel at 0) to the suite's (at 0.5) [px]."""


class FrameError(ValueError):
    """Error of an invalid frame; the message names the key, its value and the expected value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObsFrame:
    """Observation frame of one instant."""

    stamp_ns: int
    views: tuple[View | None, ...]
    """One entry per camera, in the robot's order; None for a camera without image."""
    arms: tuple[ArmState, ...]


def read_obs_frame(frame: Mapping[str, Any], robot: RobotContract | PolicyFacts) -> ObsFrame:
    """Validate ``frame`` and fit its images to the model's input size.

    Args:
        frame: ``timestamp`` [s]; ``ee_pose`` (A, 4, 4), or (4, 4) of one arm, ``world_from_ee``; ``gripper`` (A,) or a
            number, 0 closed .. 1 open; and for each camera of the robot its name, with None for no image, or
            with ``camera``: {``width``, ``height`` [px], ``K`` (3, 3) or 9 numbers [px], centre of the first pixel at
            0} and ``data``: {``color`` (H, W, 3) uint8, red first, ``wcT`` (4, 4) ``world_from_camera``, optical
            frame}. Other keys are ignored.
        robot: robot with the expected cameras and arms.

    Raises:
        FrameError: a key is missing, or its value has another shape or type.
    """
    missing = [name for name in ('timestamp', 'ee_pose', 'gripper', *robot.cameras) if name not in frame]
    if missing:
        raise FrameError(f'the frame has no {", ".join(missing)}; it has {", ".join(map(str, frame))}. '
                         'Give None for a camera without image')
    stamp_s = _numbers(frame['timestamp'], (), 'timestamp')
    stamp_ns = round(float(stamp_s) * 1e9)
    return ObsFrame(stamp_ns=stamp_ns, arms=_arms(frame, len(robot.arms)),
                    views=tuple(_view(frame[name], name, robot.image_size, stamp_ns) for name in robot.cameras))


def _arms(frame: Mapping[str, Any], count: int) -> tuple[ArmState, ...]:
    poses, gripper = np.asarray(frame['ee_pose']), np.asarray(frame['gripper'])
    if count == 1:
        poses = poses.reshape(1, 4, 4) if poses.shape == (4, 4) else poses
        gripper = gripper.reshape(1) if gripper.shape == () else gripper
    poses = _poses(poses, (count, 4, 4), 'ee_pose')
    gripper = _numbers(gripper, (count,), 'gripper')
    return tuple(ArmState(world_from_ee=pose, gripper=float(opening))
                 for pose, opening in zip(poses, gripper, strict=True))


def _view(camera: Any, name: str, size: int, stamp_ns: int) -> View | None:
    if camera is None:
        return None
    try:
        if camera.get('model', 'pinhole') != 'pinhole':
            raise FrameError(f"{name}: model is {camera['model']!r}; only 'pinhole' is supported: rectify the image")
        lens, data = camera['camera'], camera['data']
        intrinsics, color, world_from_camera = np.asarray(lens['K']), np.asarray(data['color']), data['wcT']
    except (KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"{name}: {type(error).__name__}: {error}; expected "
                         "{'camera': {'K': ...}, 'data': {'color': ..., 'wcT': ...}}, or None") from error
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[2] != 3 or not color.size:
        raise FrameError(f'{name}: color is {color.dtype} {color.shape}; expected uint8 (H, W, 3), red first')
    height, width = color.shape[:2]
    if (lens.get('height', height), lens.get('width', width)) != (height, width):
        raise FrameError(f"{name}: color is {width} x {height} px, camera says {lens.get('width')} x "
                         f"{lens.get('height')}; give K of the image as it is")
    matrix = _numbers(intrinsics.reshape(3, 3) if intrinsics.size == 9 else intrinsics, (3, 3), f'{name}: K')
    if min(matrix[0, 0], matrix[1, 1]) <= 0 or matrix[2, 2] != 1:
        raise FrameError(f'{name}: K is {matrix.ravel().tolist()}; expected fx, fy > 0 and a last row 0, 0, 1')
    boxed = letterbox(color, matrix + _CORNER, size)
    return View(rgb=boxed.rgb, mask=boxed.mask, intrinsics=boxed.intrinsics, stamp_ns=stamp_ns,
                world_from_camera=_poses(world_from_camera, (4, 4), f'{name}: wcT'))


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise FrameError(f'{name} is {value!r:.80}; expected numbers of shape {shape}') from error
    finite = bool(np.isfinite(numbers).all())
    if numbers.shape != shape or not finite:
        raise FrameError(f'{name} has shape {numbers.shape}{"" if finite else " and is not finite"}; expected finite '
                         f'numbers of shape {shape}')
    return numbers


def _poses(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    poses = _numbers(value, shape, name)
    if not is_rigid(poses):
        raise FrameError(f'{name} is not a rigid transform: expected a right-handed rotation and a last row 0, 0, 0, 1')
    return poses
