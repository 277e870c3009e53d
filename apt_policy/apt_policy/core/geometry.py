"""Rigid transforms as numpy arrays.

A pose is a (4, 4) float64 matrix, a rotation a (3, 3) one; functions work over any
leading axes. Quaternions are ``x, y, z, w`` unless a name says ``wxyz``.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def make_pose(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """Assemble poses (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3) [m]."""
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    single = rotation.ndim == 2 and translation.ndim == 1
    # np.broadcast_shapes takes half the time of a single pose, of which a control period makes a dozen.
    leading = () if single else np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    pose = np.zeros((*leading, 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1.0
    return pose


def pose_from_quaternion(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """Build poses (..., 4, 4) from translations (..., 3) [m] and quaternions (..., 4), which are normalised."""
    quaternion = np.asarray(quaternion_xyzw, np.float64)
    rotation = Rotation.from_quat(quaternion.reshape(-1, 4)).as_matrix()
    return make_pose(rotation.reshape(*quaternion.shape[:-1], 3, 3), translation)


def pose_to_quaternion(pose: ArrayLike) -> tuple[Array, Array]:
    """Return translations (..., 3) [m] and unit quaternions (..., 4) with w >= 0 of poses (..., 4, 4)."""
    pose = np.asarray(pose, np.float64)
    quaternion = Rotation.from_matrix(pose[..., :3, :3].reshape(-1, 3, 3)).as_quat()
    quaternion = np.where(quaternion[:, 3:] < 0, -quaternion, quaternion)
    return pose[..., :3, 3].copy(), quaternion.reshape(*pose.shape[:-2], 4)


def rotation_to_wxyz(rotation: ArrayLike) -> Array:
    """Return unit quaternions (..., 4) in MuJoCo's order w, x, y, z of rotations (..., 3, 3)."""
    rotation = np.asarray(rotation, np.float64)
    quaternion = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat(scalar_first=True)
    return quaternion.reshape(*rotation.shape[:-2], 4)


def rotation_from_wxyz(quaternion_wxyz: ArrayLike) -> Array:
    """Return rotations (..., 3, 3) of quaternions (..., 4) in w, x, y, z order, which are normalised."""
    quaternion = np.asarray(quaternion_wxyz, np.float64)
    rotation = Rotation.from_quat(quaternion.reshape(-1, 4), scalar_first=True).as_matrix()
    return rotation.reshape(*quaternion.shape[:-1], 3, 3)


def rotation_from_vector(vector: ArrayLike) -> Array:
    """Return rotations (..., 3, 3) of rotation vectors (..., 3) [rad]."""
    vector = np.asarray(vector, np.float64)
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape, 3)


def rotation_to_6d(rotation: ArrayLike) -> Array:
    """Return the first two rows (..., 6) of rotations (..., 3, 3)."""
    rotation = np.asarray(rotation, np.float64)
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def rotation_from_6d(six: ArrayLike) -> Array:
    """Return rotations (..., 3, 3) of two independent rows (..., 6), which are orthogonalised.

    Gram-Schmidt from the first row; the third row is the cross product.
    """
    six = np.asarray(six, np.float64)
    first = _normalised(six[..., :3])
    second = six[..., 3:]
    second = _normalised(second - np.sum(first * second, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def invert_pose(pose: ArrayLike) -> Array:
    """Invert poses (..., 4, 4): ``a_from_b`` of ``b_from_a``, by transposing the rotation."""
    pose = np.asarray(pose, np.float64)
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    return make_pose(rotation, -np.einsum('...ij,...j->...i', rotation, pose[..., :3, 3]))


def angle_between(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the angle (...) between rotations (..., 3, 3) ``a`` and ``b`` [rad], 0..pi."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    # The square of 2 sqrt(2) sin(angle / 2): much cheaper than a rotation vector, for every control tick.
    chord = np.minimum(np.sum(difference * difference, axis=(-2, -1)), 8.0)
    return 2.0 * np.arctan2(np.sqrt(chord), np.sqrt(8.0 - chord))


def interpolate_rotation(start: ArrayLike, end: ArrayLike, fraction: ArrayLike) -> Array:
    """Interpolate rotations along the shortest arc at constant speed; fraction 0 is start, 1 is end."""
    return _turned(start, _rotation_vector(start, end), fraction)


class PosePath:
    """Interpolation between two poses (..., 4, 4): translation linear, rotation on SO(3); for many fractions."""

    def __init__(self, start: ArrayLike, end: ArrayLike) -> None:
        self._start, self._end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        self._turn = _rotation_vector(self._start[..., :3, :3], self._end[..., :3, :3])

    def interpolate(self, fraction: ArrayLike) -> Array:
        """Return the pose (..., 4, 4) at ``fraction``; 0 is start, 1 is end."""
        share = np.asarray(fraction, np.float64)[..., None]
        return make_pose(_turned(self._start[..., :3, :3], self._turn, fraction),
                         (1.0 - share) * self._start[..., :3, 3] + share * self._end[..., :3, 3])


def interpolate_pose(start: ArrayLike, end: ArrayLike, fraction: ArrayLike) -> Array:
    """Interpolate once between two poses; see :class:`PosePath`."""
    return PosePath(start, end).interpolate(fraction)


def is_rigid(pose: ArrayLike, tolerance: float = 1e-3) -> bool:
    """Return whether poses (..., 4, 4) are finite and every rotation is orthonormal and right-handed."""
    pose = np.asarray(pose, np.float64)
    if not np.isfinite(pose).all():
        return False
    rotation = pose[..., :3, :3]
    gram = rotation @ np.swapaxes(rotation, -1, -2)
    return bool((np.abs(gram - np.eye(3)) < tolerance).all() and (np.linalg.det(rotation) > 0).all()
                and (np.abs(pose[..., 3, :] - (0.0, 0.0, 0.0, 1.0)) < tolerance).all())


def _turned(start: ArrayLike, vector: Array, fraction: ArrayLike) -> Array:
    """Rotate ``start`` by a fraction of the rotation vector (..., 3) in its own axes [rad]."""
    step = rotation_from_vector(np.asarray(fraction, np.float64)[..., None] * vector)
    return np.asarray(start, np.float64) @ step


def _rotation_vector(start: ArrayLike, end: ArrayLike) -> Array:
    """Return the rotation vector (..., 3) from start to end, in start's axes [rad]."""
    relative = np.swapaxes(np.asarray(start, np.float64), -1, -2) @ np.asarray(end, np.float64)
    return Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec().reshape(relative.shape[:-1])


def _normalised(vector: Array) -> Array:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)
