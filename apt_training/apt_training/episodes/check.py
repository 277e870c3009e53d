"""Checks of episodes, the same for writing and reading.

Letters: T frames, A arms, H, W image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import is_rigid
from apt_training.episodes import layout
from apt_training.episodes.episode import CameraFrame, EpisodeError, EpisodeFacts, Frame

ROTATION_TOLERANCE = 1e-2
"""Tolerance on the entries of R R^T: published files are float32, and some were rounded before."""
GRIPPER_MARGIN = 0.25
"""Distance that an opening may be outside 0 .. 1: calibrations drift, and a command squeezes."""
_RESERVED = {layout.EE_POSE, layout.GRIPPER, layout.EE_POSE_DESIRED, layout.GRIPPER_DESIRED, layout.TIMESTAMP,
             layout.SUBTASK_DESCRIPTION, layout.SUBTASK_START}


def check_facts(facts: EpisodeFacts, where: str) -> None:
    """Check that facts are complete and consistent.

    Args:
        facts: facts of the episode.
        where: file in messages.

    Raises:
        EpisodeError: they are not.
    """
    for kind, names in (('arm', facts.arms), ('camera', facts.cameras)):
        if not names or len(set(names)) != len(names):
            raise EpisodeError(f'{where}: expected at least one {kind} and no name twice, got {list(names)}')
    bad = [name for name in facts.cameras if name in _RESERVED or '/' in name or name.startswith('.')]
    if bad:
        raise EpisodeError(f'{where}: camera name {bad[0]!r} is reserved in episode files: rename the camera')
    if not facts.rate_hz > 0 or not np.isfinite(facts.rate_hz):
        raise EpisodeError(f'{where}: rate_hz is {facts.rate_hz}, expected more than 0')
    if facts.ee_indices is not None and not set(facts.ee_indices) <= set(range(len(facts.arms))):
        raise EpisodeError(f'{where}: ee_indices are {list(facts.ee_indices)}, expected 0 .. {len(facts.arms) - 1}')
    starts = [subtask.start for subtask in facts.subtasks]
    if starts != sorted(starts):
        raise EpisodeError(f'{where}: subtasks start at {starts}, expected increasing frames')


def check_frame(frame: Frame, facts: EpisodeFacts, *, previous: Frame | None, where: str) -> None:
    """Check a frame.

    Args:
        frame: the frame.
        facts: facts of its episode.
        previous: the frame before; None for the first one.
        where: file and frame in messages.

    Raises:
        EpisodeError: shapes, values or cameras are wrong, or the frame cannot follow ``previous``.
    """
    if not np.isfinite(frame.stamp_s) or (previous is not None and frame.stamp_s <= previous.stamp_s):
        after = '' if previous is None else f' after {previous.stamp_s}'
        raise EpisodeError(f'{where}: stamp_s is {frame.stamp_s}{after}, expected finite and increasing stamps')
    arms = len(facts.arms)
    check_poses(frame.world_from_ee, (arms,), f'{where}, {layout.EE_POSE}')
    check_grippers(frame.gripper, (arms,), f'{where}, {layout.GRIPPER}')
    if frame.desired_world_from_ee is not None:
        check_poses(frame.desired_world_from_ee, (arms,), f'{where}, {layout.EE_POSE_DESIRED}')
    if frame.desired_gripper is not None:
        check_grippers(frame.desired_gripper, (arms,), f'{where}, {layout.GRIPPER_DESIRED}')
    if previous is not None:
        for name in ('desired_world_from_ee', 'desired_gripper'):
            if (getattr(frame, name) is None) != (getattr(previous, name) is None):
                raise EpisodeError(f'{where}: {name} is set in some frames only, expected it in every frame of an '
                                   'episode or in none')
    _check_cameras(frame.views, facts.cameras, where)
    for name, view in frame.views.items():
        _check_view(view, f'{where}, camera {name}')


def check_poses(poses: NDArray[Any], leading: Sequence[int], where: str) -> None:
    """Raise :class:`EpisodeError` unless poses are finite rigid transforms (*leading, 4, 4)."""
    check_shape(poses, (*leading, 4, 4), where)
    if is_rigid(poses, ROTATION_TOLERANCE):
        return
    for index in np.ndindex(*leading[:1]):
        if not is_rigid(poses[index], ROTATION_TOLERANCE):
            problem = 'is not finite' if not np.isfinite(poses[index]).all() else 'is no rigid transform'
            raise EpisodeError(f'{where}[{index[0]}] {problem}: {np.array2string(poses[index], precision=3)}')


def check_grippers(grippers: NDArray[Any], leading: Sequence[int], where: str) -> None:
    """Raise :class:`EpisodeError` unless openings are (*leading,) and within :data:`GRIPPER_MARGIN` of 0 .. 1."""
    check_shape(grippers, tuple(leading), where)
    usable = (grippers >= -GRIPPER_MARGIN) & (grippers <= 1 + GRIPPER_MARGIN)
    if not usable.all():
        index = tuple(int(i) for i in np.argwhere(~usable)[0])
        raise EpisodeError(f'{where}{list(index)} is {grippers[index]}, expected 0 closed .. 1 open: '
                           'check the gripper range of the contract')


def check_intrinsics(matrix: NDArray[Any], where: str) -> None:
    """Raise :class:`EpisodeError` unless ``matrix`` is a pinhole matrix (3, 3)."""
    check_shape(matrix, (3, 3), where)
    if not (np.isfinite(matrix).all() and min(matrix[0, 0], matrix[1, 1]) > 0 and matrix[2, 2] == 1):
        raise EpisodeError(f'{where} is {matrix.tolist()}, expected a pinhole matrix with fx, fy > 0')


def check_shape(array: NDArray[Any], shape: tuple[int, ...], where: str) -> None:
    """Raise :class:`EpisodeError` unless ``array`` has ``shape``."""
    if np.shape(array) != shape:
        raise EpisodeError(f'{where} has shape {np.shape(array)}, expected {shape}')


def _check_cameras(views: Mapping[str, CameraFrame], cameras: Sequence[str], where: str) -> None:
    if set(views) != set(cameras):
        missing = ', '.join(sorted(set(cameras) - set(views))) or 'none'
        unknown = ', '.join(sorted(set(views) - set(cameras))) or 'none'
        raise EpisodeError(f'{where}: missing cameras: {missing}; cameras that are not in the facts: {unknown}')


def _check_view(view: CameraFrame, where: str) -> None:
    if view.rgb.ndim != 3 or view.rgb.shape[2] != 3 or view.rgb.dtype != np.uint8 or not view.rgb.size:
        raise EpisodeError(f'{where}: rgb is {view.rgb.shape} {view.rgb.dtype}, expected (H, W, 3) uint8')
    if view.mask is not None and (view.mask.shape != view.rgb.shape[:2] or view.mask.dtype != np.bool_):
        raise EpisodeError(f'{where}: mask is {view.mask.shape} {view.mask.dtype}, '
                           f'expected {view.rgb.shape[:2]} bool')
    check_intrinsics(view.intrinsics, f'{where}, {layout.INTRINSICS}')
    check_poses(view.world_from_camera[None], (1,), f'{where}, {layout.CAMERA_POSE}')
