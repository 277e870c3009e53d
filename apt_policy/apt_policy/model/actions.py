"""Action space in torch: 17-number states to 10-number actions and back.

Actions are relative to the present end-effector pose, in the axes of the arm's reference camera.
``core.actions`` is the numpy version; a test compares both. All results are float32.

Letters: B batch, K states of one arm, A arms.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from apt_policy.model.batch import RobotState
from apt_policy.model.frames import in_float32, invert_pose, make_pose

ACTION_SIZE = 10
STATE_SIZE = 17


def noise_to_actions(noise: Tensor, translation_m: float) -> Tensor:
    """Scale (..., 10) unit noise to actions: translations by ``translation_m`` [m], the rest by 1."""
    return torch.cat([translation_m * noise[..., :3], noise[..., 3:]], dim=-1)


def actions_to_noise(actions: Tensor, translation_m: float) -> Tensor:
    """Scale (..., 10) actions to units of noise; the inverse of :func:`noise_to_actions`."""
    return torch.cat([actions[..., :3] / translation_m, actions[..., 3:]], dim=-1)


@in_float32
def encode_states(states: Tensor, robot: RobotState) -> Tensor:
    """Encode (B, K, A, 17) states as (B, A, K, 10): translation [m], two rotation rows, ``2 g - 1``."""
    states = states.float().transpose(1, 2)
    turn = camera_from_ee(robot)[..., None, :3, :3]
    poses = invert_pose(robot.world_from_ee.float())[:, :, None] @ states[..., :16].unflatten(-1, (4, 4))
    translation = (turn * poses[..., None, :3, 3]).sum(-1)
    rotation = turn @ poses[..., :3, :3] @ turn.transpose(-1, -2)
    return torch.cat([translation, rotation[..., :2, :].flatten(-2), 2 * states[..., 16:] - 1], dim=-1)


@in_float32
def decode_actions(actions: Tensor, robot: RobotState) -> Tensor:
    """Decode (B, A, K, 10) actions to (B, K, A, 17) states; the inverse of :func:`encode_states`.

    Rotations are orthogonalised from their first row; the gripper is not clamped.
    """
    actions = actions.float()
    turn = camera_from_ee(robot)[..., None, :3, :3]
    back = turn.transpose(-1, -2)
    translation = (back * actions[..., None, :3]).sum(-1)
    poses = make_pose(back @ _orthogonal(actions[..., 3:9]) @ turn, translation)
    world = robot.world_from_ee.float()[:, :, None] @ poses
    return torch.cat([world.flatten(-2), (actions[..., 9:] + 1) / 2], dim=-1).transpose(1, 2)


@in_float32
def _camera_from_ee(world_from_reference: Tensor, world_from_ee: Tensor) -> Tensor:
    return invert_pose(world_from_reference.float()) @ world_from_ee.float()


def camera_from_ee(robot: RobotState) -> Tensor:
    """Compute the present pose (B, A, 4, 4) of each end-effector in its reference camera."""
    return _camera_from_ee(robot.world_from_reference, robot.world_from_ee)


def _orthogonal(rows: Tensor) -> Tensor:
    """Orthogonalise two rows (..., 6) to (..., 3, 3) by Gram-Schmidt; the third row is the cross product."""
    first = F.normalize(rows[..., :3], dim=-1)
    second = rows[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)
