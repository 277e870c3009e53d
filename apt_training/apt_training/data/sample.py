"""Training sample: the observation of one frame, and the future that the policy learns to predict.

Letters: C cameras, A arms, S image side, H history states, T horizon.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """Size of a sample; a robot contract defines the same values for its robot."""

    image_size: int = 256
    """S [px]."""
    horizon: int = 32
    """T, number of future states."""
    history: int = 1
    """H, number of past states including the present one."""

    def __post_init__(self) -> None:
        for name in ('image_size', 'horizon', 'history'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; expected 1 or more')


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One frame of an episode. Poses are float64 in the world frame of the episode."""

    rgb: NDArray[np.uint8]
    """(C, S, S, 3)."""
    mask: NDArray[np.bool_]
    """(C, S, S), false where the image shows nothing."""
    intrinsics: NDArray[np.float64]
    """(C, 3, 3) of the images here [px], pixel centres at +0.5."""
    world_from_camera: NDArray[np.float64]
    """(C, 4, 4)."""
    world_from_ee: NDArray[np.float64]
    """(A, 4, 4)."""
    world_from_reference: NDArray[np.float64]
    """(A, 4, 4) pose of the camera in whose frame an arm's actions are expressed."""
    history: NDArray[np.float64]
    """(H, A, 17) oldest first, the present last: row-major world_from_ee, and gripper 0 closed .. 1 open."""
    future: NDArray[np.float64]
    """(T, A, 17) states after the frame, like :attr:`history`."""
    valid_arms: NDArray[np.bool_]
    """(A,), false for an arm that is not trained on."""
    prompt: str
    """Instruction."""
    timestamp: float
    """Time of the frame in the episode [s]."""
    cameras: tuple[str, ...]
    """(C,) names, in the order of the images."""
    source: str
    """Name of the frame: dataset/file:frame."""
    replaced: tuple[str, ...] = ()
    """Errors of frames that were drawn before this one and could not be read."""
