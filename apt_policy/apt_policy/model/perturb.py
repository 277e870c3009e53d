"""Augmentations of training samples: camera dropout, a randomly rotated world frame, noise on the robot state.

Random numbers come from a generator on the tensors' device.

Letters: B batch, C cameras, A arms, H history states, S image side.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apt_policy.model.batch import Images, RobotState
from apt_policy.model.frames import centre, invert_pose, move_robot, move_states, turn_randomly


@dataclass(frozen=True, kw_only=True)
class InputNoise:
    """Standard deviations of Gaussian noise; all 0 by default, see :data:`PUBLISHED_NOISE`."""

    history_translation: float = 0.0
    """Noise on past translations [m]."""
    history_rotation: float = 0.0
    """Noise on the two rotation rows of past states."""
    history_gripper: float = 0.0
    """Noise on the gripper -1 .. 1 of past states."""
    current_translation: float = 0.0
    """Noise on the present end-effector position [m]."""


PUBLISHED_NOISE = InputNoise(history_translation=0.005, history_rotation=0.01, history_gripper=0.01,
                             current_translation=0.003)
"""Noise of the released training code."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Perturbation of training samples."""

    noise: InputNoise = InputNoise()
    camera_dropout: float = 0.0
    """Probability that a sample loses one of its valid cameras; the last one is kept."""
    turn_world: bool = True
    """Rotate the frame of all poses at random."""


TURN_ONLY = Perturbation()
"""Random rotation of the world frame, without noise and dropout."""


def drop_cameras(images: Images, probability: float, generator: torch.Generator | None = None) -> Images:
    """Mask one random valid camera of some samples; a sample's last camera is kept."""
    valid = images.camera_valid
    device = valid.device
    score = torch.rand(valid.shape, generator=generator, device=device).masked_fill(~valid, -1.0)
    chosen = torch.rand(len(valid), generator=generator, device=device) < probability
    lost = chosen & (valid.sum(-1) > 1)
    dropped = lost[:, None] & (torch.arange(valid.shape[1], device=device) == score.argmax(-1)[:, None])
    return replace(images, mask=images.mask & ~dropped[..., None, None])


def turn_world(robot: RobotState, future: Tensor, camera_valid: Tensor,
               generator: torch.Generator | None = None) -> tuple[RobotState, Tensor]:
    """Express robot and future (B, T, A, 17) in a frame centred on the cameras and rotated at random."""
    local_from_world = invert_pose(turn_randomly(centre(robot.world_from_camera, camera_valid), generator))
    return move_robot(local_from_world, robot), move_states(local_from_world, future)


def shake_current(robot: RobotState, noise: InputNoise,
                  generator: torch.Generator | None = None) -> RobotState:
    """Add noise to the translation of the present poses."""
    shift = torch.randn(robot.world_from_ee.shape[:2] + (3,), generator=generator,
                        device=robot.world_from_ee.device)
    pose = robot.world_from_ee.clone()
    pose[..., :3, 3] += noise.current_translation * shift
    return replace(robot, world_from_ee=pose)


def shake_history(encoded: Tensor, noise: InputNoise, generator: torch.Generator | None = None) -> Tensor:
    """Add noise to encoded history (B, A, H, 10)."""
    scale = encoded.new_full((10,), noise.history_rotation)
    scale[:3], scale[9] = noise.history_translation, noise.history_gripper
    return encoded + scale * torch.randn(encoded.shape, generator=generator, device=encoded.device)
