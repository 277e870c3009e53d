"""Action space: 10 numbers per arm and step, relative to the present end-effector pose.

Encoding and decoding are exact inverses. The choice of the reference camera and of the chunk is made elsewhere.

Letters: ``E = inv(world_from_ee_now) @ world_from_ee``; ``R_c`` is the rotation of the
end-effector now, seen in the reference camera. ``t = R_c @ E.t``, ``R = R_c @ E.R @ R_c.T``
(APT, action space of the released weights).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apt_policy.core.geometry import invert_pose, make_pose, rotation_from_6d, rotation_to_6d

Array = NDArray[np.float64]

ACTION_SIZE = 10
STATE_SIZE = 17


def encode_actions(world_from_ee: ArrayLike, gripper: ArrayLike, *, world_from_ee_now: ArrayLike,
                   world_from_camera: ArrayLike) -> Array:
    """Encode poses (..., 4, 4) and gripper openings (...) 0..1 as (..., 10) actions.

    Args:
        world_from_ee: future (or past) poses of one arm.
        gripper: opening at each of them, 0 closed .. 1 open.
        world_from_ee_now: (4, 4) present pose, or with leading axes that broadcast.
        world_from_camera: (4, 4) pose of the arm's reference camera, or with leading axes that broadcast.

    Returns:
        Translation [m], rotation as its first two rows, ``2 * gripper - 1``.
    """
    turn = _camera_from_ee_rotation(world_from_ee_now, world_from_camera)
    now_from_ee = invert_pose(world_from_ee_now) @ np.asarray(world_from_ee, np.float64)
    translation = np.einsum('...ij,...j->...i', turn, now_from_ee[..., :3, 3])
    rotation = turn @ now_from_ee[..., :3, :3] @ np.swapaxes(turn, -1, -2)
    opening = 2.0 * np.asarray(gripper, np.float64) - 1.0
    return np.concatenate([translation, rotation_to_6d(rotation), opening[..., None]], axis=-1)


def decode_actions(actions: ArrayLike, *, world_from_ee_now: ArrayLike,
                   world_from_camera: ArrayLike) -> tuple[Array, Array]:
    """Decode (..., 10) actions to poses (..., 4, 4) and openings (...); the inverse of :func:`encode_actions`.

    Rotations are orthogonalised; the opening is not clamped.
    """
    actions = np.asarray(actions, np.float64)
    turn = _camera_from_ee_rotation(world_from_ee_now, world_from_camera)
    back = np.swapaxes(turn, -1, -2)
    translation = np.einsum('...ij,...j->...i', back, actions[..., :3])
    rotation = back @ rotation_from_6d(actions[..., 3:9]) @ turn
    poses = np.asarray(world_from_ee_now, np.float64) @ make_pose(rotation, translation)
    return poses, (actions[..., 9] + 1.0) / 2.0


def pack_state(world_from_ee: ArrayLike, gripper: ArrayLike) -> Array:
    """Pack poses (..., 4, 4) and openings (...) into (..., 17) state vectors: row-major pose, then the opening."""
    pose = np.asarray(world_from_ee, np.float64)
    flat = pose.reshape(*pose.shape[:-2], 16)
    return np.concatenate([flat, np.asarray(gripper, np.float64)[..., None]], axis=-1)


def unpack_state(state: ArrayLike) -> tuple[Array, Array]:
    """Unpack (..., 17) state vectors to poses (..., 4, 4) and openings (...); the inverse of :func:`pack_state`."""
    state = np.asarray(state, np.float64)
    return state[..., :16].reshape(*state.shape[:-1], 4, 4), state[..., 16]


def _camera_from_ee_rotation(world_from_ee_now: ArrayLike, world_from_camera: ArrayLike) -> Array:
    camera = np.asarray(world_from_camera, np.float64)[..., :3, :3]
    return np.swapaxes(camera, -1, -2) @ np.asarray(world_from_ee_now, np.float64)[..., :3, :3]
