"""What an episode is made of: frames, and the facts that hold for all of them.

Values only; how they lie in a file is known to ``write`` and ``read``.

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
    """An episode that cannot be read or written; the message names file, key and frame."""


class Storage(Enum):
    """How the images of an episode are kept."""

    RAW = 'raw'
    """Pixels as they are."""
    JPEG = 'jpeg'
    """One JPEG file per frame, inside the episode file."""
    VIDEO = 'video'
    """One H.264 file per camera, beside the episode file."""


class LabelSource(Enum):
    """Where the states that a policy learns to produce come from."""

    TARGETS = 'targets'
    """End-effector targets that were commanded."""
    JOINT_COMMANDS = 'joint_commands'
    """Joint positions that were commanded, by forward kinematics."""
    MEASURED = 'measured'
    """Where the arms were later."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraFrame:
    """What one camera gave at one instant."""

    rgb: NDArray[np.uint8]
    """(H, W, 3)."""
    mask: NDArray[np.bool_] | None
    """(H, W), false where a pixel shows nothing; None: all of them count."""
    intrinsics: NDArray[np.float64]
    """(3, 3) [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(4, 4), optical frame: x right, y down, z forward."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """Everything at one instant."""

    stamp_s: float
    world_from_ee: NDArray[np.float64]
    """(A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(A,), 0 closed .. 1 open."""
    desired_world_from_ee: NDArray[np.float64] | None
    """(A, 4, 4) where the arms are commanded to be at the next frame's instant, as row 0 of a plan is;
    None in every frame of an episode, or in none."""
    desired_gripper: NDArray[np.float64] | None
    """(A,), likewise."""
    views: Mapping[str, CameraFrame]
    """One per camera of the episode, by name."""


@dataclass(frozen=True, kw_only=True)
class Subtask:
    """A part of an episode with words of its own."""

    start: int
    """Its first frame."""
    description: str


@dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """What holds for a whole episode."""

    prompts: tuple[str, ...]
    """Wordings of the instruction, any of which describes the episode."""
    rate_hz: float
    """Frames per second; 1 where time is counted in steps."""
    arms: tuple[str, ...]
    cameras: tuple[str, ...]
    label_source: LabelSource
    contract: Mapping[str, Any] | None
    """``RobotContract.policy_facts()`` of the robot; None where it is not known."""
    source_hash: str
    """SHA-256 of what the episode was made from; empty where it is not known."""
    converter_version: str
    """What wrote it; empty where it is not known."""
    subtasks: tuple[Subtask, ...] = ()
    """In the order of their starts."""
    ee_indices: tuple[int, ...] | None = None
    """The arms to learn from, as positions in :attr:`arms`; None: all of them."""

    def prompt(self, wording: int, frame: int) -> str:
        """The instruction in one of its wordings, with the subtask that is active at ``frame``.

        An episode without any wording has the empty one.
        """
        spoken = self.prompts[wording] if self.prompts else ''
        active = [part.description for part in self.subtasks if part.start <= frame]
        if not active or not active[-1]:
            return spoken
        return f'{spoken}{" " if spoken.endswith(".") else ". "}{active[-1]}' if spoken else active[-1]
