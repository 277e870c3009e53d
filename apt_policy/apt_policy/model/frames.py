"""Poses in torch: inversion, centring of a scene, choice of reference cameras.

Poses are always float32: the functions disable autocast.

Letters: B batch, C cameras, A arms, K states of one arm.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

from apt_policy.model.batch import RobotState

Function = TypeVar('Function', bound=Callable[..., object])


def in_float32(function: Function) -> Function:
    """Decorate ``function(tensor, ...)`` to run without autocast."""
    @wraps(function)
    def exact(first: Tensor, *args: object, **kwargs: object) -> object:
        with torch.autocast(device_type=first.device.type, enabled=False):
            return function(first, *args, **kwargs)
    return exact  # type: ignore[return-value]


def invert_pose(pose: Tensor) -> Tensor:
    """Invert poses (..., 4, 4): ``a_from_b`` of ``b_from_a``, by transposing the rotation."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    translation = -(rotation * pose[..., None, :3, 3]).sum(-1)
    return make_pose(rotation, translation)


def make_pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """Assemble poses (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3) [m]."""
    upper = torch.cat([rotation, translation[..., None]], dim=-1)
    lower = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return torch.cat([upper, lower], dim=-2)


@in_float32
def centre(extrinsics: Tensor, valid: Tensor) -> Tensor:
    """Compute ``world_from_local`` (B, 4, 4) with its origin at the mean of the valid cameras.

    Args:
        extrinsics: (B, C, 4, 4) world_from_camera.
        valid: (B, C) bool; a sample without a valid camera keeps the world's origin.
    """
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    origin = extrinsics[..., :3, 3].masked_fill(~valid[..., None], 0.0).sum(-2) / count
    turn = torch.eye(3, device=extrinsics.device).expand(len(extrinsics), 3, 3)
    return make_pose(turn, origin.float())


@in_float32
def turn_randomly(world_from_local: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rotate the axes of (B, 4, 4) poses at random, uniform over rotations; the origins are kept."""
    quaternion = torch.randn(len(world_from_local), 4, generator=generator, device=world_from_local.device)
    return make_pose(_rotation_of(quaternion), world_from_local[:, :3, 3])


@in_float32
def move_robot(local_from_world: Tensor, robot: RobotState) -> RobotState:
    """Express every pose of ``robot`` in the local frame of ``local_from_world`` (B, 4, 4)."""
    move = local_from_world[:, None]
    return replace(robot, world_from_camera=move @ robot.world_from_camera.float(),
                   world_from_ee=move @ robot.world_from_ee.float(),
                   world_from_reference=move @ robot.world_from_reference.float(),
                   history=move_states(local_from_world, robot.history))


@in_float32
def move_states(b_from_a: Tensor, states: Tensor) -> Tensor:
    """Transform (B, K, A, 17) states from frame a to frame b; the gripper is unchanged."""
    poses = b_from_a[:, None, None] @ states[..., :16].float().unflatten(-1, (4, 4))
    return torch.cat([poses.flatten(-2), states[..., 16:].float()], dim=-1)


def first_valid_reference(extrinsics: Tensor, valid: Tensor, candidates: Tensor, arms: Tensor) -> Tensor:
    """Select each arm's first valid candidate camera, for inference.

    Args:
        extrinsics: (B, C, 4, 4) world_from_camera.
        valid: (B, C) bool.
        candidates: (A, R) camera indices in order of preference, -1 for none.
        arms: (B, A) bool, present arms.

    Returns:
        (B, A, 4, 4) world_from_camera of the selected cameras; undefined for absent arms.

    Raises:
        ValueError: a present arm has no valid candidate.
    """
    usable = valid[:, candidates.clamp(min=0)] & (candidates >= 0)
    stranded = arms & ~usable.any(-1)
    if bool(stranded.any()):
        sample, arm = stranded.nonzero()[0].tolist()
        raise ValueError(f'sample {sample}, arm {arm}: none of its reference cameras '
                         f'{candidates[arm].tolist()} has an image, so its actions have no frame')
    first = usable.int().argmax(-1)
    camera = candidates.clamp(min=0).expand(len(valid), -1, -1).gather(-1, first[..., None])[..., 0]
    return extrinsics[torch.arange(len(valid), device=valid.device)[:, None], camera]


def _rotation_of(quaternion: Tensor) -> Tensor:
    """Return rotations (B, 3, 3) of quaternions (B, 4) in x, y, z, w order, which are normalised."""
    x, y, z, w = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
