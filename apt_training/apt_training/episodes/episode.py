"""Episode types: frames, and the facts that hold for all of them.

Letters: T frames, A arms, H, W image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError


class EpisodeError(UserError, ValueError):
    """Error of an episode that cannot be read or written; the message names file, key and frame."""


class ImageStorage(Enum):
    """Storage of the images of an episode."""

    RAW = 'raw'
    """Uncompressed pixels."""
    JPEG = 'jpeg'
    """One JPEG file per frame, inside the episode file."""
    VIDEO = 'video'
    """One H.264 file per camera, beside the episode file."""


class LabelSource(Enum):
    """Source of the states that a policy is trained to produce."""

    TARGETS = 'targets'
    """Commanded end-effector targets."""
    JOINT_COMMANDS = 'joint_commands'
    """Commanded joint positions, by forward kinematics."""
    MEASURED = 'measured'
    """Measured poses of later frames."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraFrame:
    """Image, intrinsics and pose of one camera at one time."""

    rgb: NDArray[np.uint8]
    """RGB image (H, W, 3) uint8."""
    mask: NDArray[np.bool_] | None
    """Valid pixels (H, W) bool; None: all are valid."""
    intrinsics: NDArray[np.float64]
    """Intrinsics (3, 3) [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """Camera pose (4, 4); optical frame: x right, y down, z forward."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """States and images at one time."""

    stamp_s: float
    """Time on the clock of the recording [s]."""
    world_from_ee: NDArray[np.float64]
    """Measured end-effector poses (A, 4, 4) [m]."""
    gripper: NDArray[np.float64]
    """Measured gripper openings (A,), 0 closed .. 1 open."""
    desired_world_from_ee: NDArray[np.float64] | None
    """Commanded end-effector poses (A, 4, 4) [m] at the time of the next frame, like row 0 of a plan; None in every
    frame of an episode, or in none."""
    desired_gripper: NDArray[np.float64] | None
    """Commanded gripper openings (A,) at the time of the next frame; None in every frame, or in none."""
    views: Mapping[str, CameraFrame]
    """Image of each camera of the episode, by name."""


@dataclass(frozen=True, kw_only=True)
class Subtask:
    """Part of an episode with an instruction of its own."""

    start: int
    """First frame."""
    description: str
    """Instruction."""


@dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """Facts that hold for a whole episode."""

    prompts: tuple[str, ...]
    """Alternative wordings of the instruction."""
    rate_hz: float
    """Frame rate [Hz]; 1 if time is counted in steps."""
    arms: tuple[str, ...]
    """Names of the arms, in the order of A."""
    cameras: tuple[str, ...]
    """Names of the cameras."""
    label_source: LabelSource
    """Source of the labels."""
    contract: Mapping[str, Any] | None
    """``RobotContract.policy_facts()`` of the robot; None if unknown."""
    source_hash: str
    """SHA-256 of the source of the episode; empty if unknown."""
    converter_version: str
    """Name and version of the program that wrote it; empty if unknown."""
    subtasks: tuple[Subtask, ...] = ()
    """Subtasks in the order of their starts."""
    ee_indices: tuple[int, ...] | None = None
    """Indices in :attr:`arms` of the arms to train on; None: all."""

    def prompt(self, wording: int, frame: int) -> str:
        """Return the instruction at a frame, with the active subtask.

        Args:
            wording: index in :attr:`prompts`; ignored if there are none.
            frame: index of the frame.
        """
        instruction = self.prompts[wording] if self.prompts else ''
        active = [subtask.description for subtask in self.subtasks if subtask.start <= frame]
        if not active or not active[-1]:
            return instruction
        return f'{instruction}{" " if instruction.endswith(".") else ". "}{active[-1]}' if instruction else active[-1]
