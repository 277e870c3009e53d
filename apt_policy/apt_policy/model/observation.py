"""Encoding of one observation (numpy) as the model's batch (torch, B = 1).

Letters: C cameras, A arms, H history states, K prefix steps, S image side.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apt_policy.core.actions import pack_state
from apt_policy.core.contract import RobotContract
from apt_policy.core.policy_facts import PolicyFacts
from apt_policy.core.sample import ArmState, Observation, View
from apt_policy.model.actions import encode_states
from apt_policy.model.batch import Images, RobotState
from apt_policy.model.diffusion import ActionPrefix
from apt_policy.model.frames import first_valid_reference

ABSENT = np.concatenate([np.eye(4).ravel(), [0.0]])
"""State of an absent arm: identity pose, gripper closed."""


def encode_images(observation: Observation) -> Images:
    """Encode images and instruction; an absent camera is black and masked.

    Raises:
        ValueError: the observation has no image.
    """
    side = next((view.rgb.shape[0] for view in observation.views if view is not None), None)
    if side is None:
        raise ValueError('the observation has no camera image; the policy needs at least one')
    views = [absent_view(side) if view is None else view for view in observation.views]
    rgb = torch.from_numpy(np.stack([view.rgb for view in views])).permute(0, 3, 1, 2).float() / 255
    return Images(rgb=rgb[None], mask=torch.from_numpy(np.stack([view.mask for view in views]))[None],
                  norm_xy=torch.stack([normalised_pixels(view.intrinsics, side) for view in views])[None],
                  prompts=(observation.prompt,))


def encode_robot_state(observation: Observation, camera_valid: Tensor, candidates: Tensor) -> RobotState:
    """Encode the poses of cameras and arms.

    A gap in an arm's history is filled with its next known state.

    Args:
        observation: observation of the robot.
        camera_valid: (1, C) bool, cameras with an image.
        candidates: output of :func:`reference_candidates`.

    Raises:
        ValueError: a present arm has no valid reference camera.
    """
    cameras = np.stack([np.eye(4) if view is None else view.world_from_camera for view in observation.views])
    poses = torch.from_numpy(cameras).float()[None]
    history = torch.from_numpy(_past_states(observation)).float()[None]
    present = torch.tensor([[arm is not None for arm in observation.arms]])
    return RobotState(
        world_from_camera=poses, world_from_ee=history[:, -1, :, :16].unflatten(-1, (4, 4)),
        world_from_reference=first_valid_reference(poses, camera_valid, candidates, present),
        history=history, valid_arms=present)


def encode_prefix(world_from_ee: NDArray[np.float64], gripper: NDArray[np.float64], arms: NDArray[np.bool_],
            robot: RobotState) -> ActionPrefix:
    """Encode a chunk's prefix as actions relative to ``robot``.

    Args:
        world_from_ee: (K, A, 4, 4) poses.
        gripper: (K, A) openings.
        arms: (A,) bool, arms with a prefix.
        robot: encoded poses of the same observation.
    """
    states = torch.from_numpy(pack_state(world_from_ee, gripper)).float().to(robot.history.device)
    return ActionPrefix(actions=encode_states(states[None], robot),
                arms=torch.from_numpy(arms)[None].to(robot.history.device))


def reference_candidates(contract: RobotContract | PolicyFacts) -> Tensor:
    """Return (A, R) indices of each arm's reference cameras, best first, padded with -1."""
    cameras = list(contract.cameras)
    rows = [[cameras.index(name) for name in arm.reference_cameras] for arm in contract.arms.values()]
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


def normalised_pixels(intrinsics: NDArray[np.float64], side: int) -> Tensor:
    """Compute (2, S, S) float32 x = (u - cx) / fx and y = (v - cy) / fy at the centre of every pixel."""
    at = np.arange(side) + 0.5
    x = (at - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (at - intrinsics[1, 2]) / intrinsics[1, 1]
    return torch.from_numpy(np.stack(np.broadcast_arrays(x[None, :], y[:, None]))).float()


def absent_view(side: int) -> View:
    """Return the view of an absent camera: black and fully masked."""
    pinhole = np.array([[side, 0.0, side / 2], [0.0, side, side / 2], [0.0, 0.0, 1.0]])
    return View(rgb=np.zeros((side, side, 3), np.uint8), mask=np.zeros((side, side), np.bool_),
                intrinsics=pinhole, world_from_camera=np.eye(4), stamp_ns=0)


def blank_observation(contract: RobotContract | PolicyFacts) -> Observation:
    """Return an observation of the contract's shapes: every image black and valid, every arm at the identity."""
    black = absent_view(contract.image_size)
    view = View(rgb=black.rgb, mask=~black.mask, intrinsics=black.intrinsics,
                world_from_camera=np.eye(4), stamp_ns=0)
    arms = tuple(ArmState(world_from_ee=np.eye(4), gripper=0.0) for _ in contract.arms)
    return Observation(stamp_ns=0, prompt='warm up', views=(view,) * len(contract.cameras),
                       history=(arms,) * contract.history)


def _past_states(observation: Observation) -> NDArray[np.float64]:
    """Return the history as states (H, A, 17)."""
    states = np.tile(ABSENT, (len(observation.history), len(observation.arms), 1))
    for arm in range(len(observation.arms)):
        known = ABSENT
        for step in reversed(range(len(observation.history))):
            state = observation.history[step][arm]
            known = known if state is None else pack_state(state.world_from_ee, state.gripper)
            states[step, arm] = known
    return states
