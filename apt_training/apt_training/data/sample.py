"""One training sample: what the policy may know at one frame, and the answer.

Values only. Letters: C cameras, A arms, S image side, H history states, T horizon; To, the
number of observed images of a camera, is 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """How large a sample is; a robot contract says the same of its robot."""

    image_size: int = 256
    """S [px]."""
    horizon: int = 32
    history: int = 1
    """States of the past, the present included."""

    def __post_init__(self) -> None:
        for name in ('image_size', 'horizon', 'history'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}; a window needs at least 1')


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One frame of an episode. Poses are float64 in the world of the episode."""

    K: NDArray[np.float64]
    """(C, 3, 3) [px] of the images here, pixel centres at +0.5."""
    obs_rgbs: NDArray[np.uint8]
    """(To, C, 3, S, S), red first; a view of images whose channels come last."""
    obs_masks: NDArray[np.bool_]
    """(To, C, S, S), false where nothing is seen."""
    prompt_text: str
    obs_extrinsics: NDArray[np.float64]
    """(To, C, 4, 4) world_from_camera."""
    current_ee_pose: NDArray[np.float64]
    """(A, 4, 4)."""
    action_ref_pose: NDArray[np.float64]
    """(A, 4, 4) world_from_camera of the camera in whose axes an arm's actions are expressed."""
    history_ee_states: NDArray[np.float64]
    """(H, A, 17) oldest first, the present last: row-major world_from_ee and gripper 0 closed .. 1 open."""
    gt_future_ee_states: NDArray[np.float64]
    """(T, A, 17)."""
    valid_ee_mask: NDArray[np.bool_]
    """(A,), false for an arm that is not to be learned from."""
    timestamps: NDArray[np.float64]
    """(To,) [s], or steps."""
    cameras: tuple[str, ...]
    """(C,) names, in the order of the images."""
    source: str
    """Names the frame: dataset/file:frame."""
    replaced: tuple[str, ...] = ()
    """Errors of frames that were drawn before this one and could not be read."""

    @property
    def obs_norm_xys(self) -> NDArray[np.float32]:
        """(To, C, 2, S, S) normalised pixel coordinates x = (u - cx) / fx, y = (v - cy) / fy."""
        at = np.arange(self.obs_rgbs.shape[-1]) + 0.5
        x = (at - self.K[:, 0, 2, None]) / self.K[:, 0, 0, None]
        y = (at - self.K[:, 1, 2, None]) / self.K[:, 1, 1, None]
        maps = np.stack(np.broadcast_arrays(x[:, None, :], y[:, :, None]), axis=1)
        return maps.astype(np.float32)[None]
