"""Description of a dataset: everything needed to draw samples from it, except its location.

The published datasets are described in :mod:`~apt_training.data.published`; a folder of converted episodes is
described by the contract of its robot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from apt_policy.core.contract import RobotContract


class VideoRoot(Enum):
    """Folder that the names of videos are relative to, unless the dataset's location overrides it."""

    BESIDE = 'beside'
    """Folder of the file."""
    FOLDER = 'folder'
    """Folder of the dataset."""
    MIRROR = 'mirror'
    """Folder of the file in the mirrored tree FOLDER_raw."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Description of a dataset."""

    name: str
    files: str = '**/*'
    """Glob below the dataset's folder, without suffix."""
    cameras: tuple[str, ...] = ()
    """Cameras in the model's order (without shuffling); empty: all of an episode, in its order."""
    reference_cameras: tuple[tuple[str, ...], ...] = ()
    """Cameras, per arm and best first, in whose frame its actions may be expressed; empty: any camera.

    Arms are those of :attr:`ee_indices`, else those of the file.
    """
    wrist_cameras: tuple[str, ...] = ()
    """Cameras that are never cropped."""
    ee_indices: tuple[int, ...] | None = None
    """Arms of the file to use, unless the episode names others; they fill the model's first places.

    None: every arm keeps its place, and arms outside the episode's own ee_indices are masked.
    """
    arms: tuple[str, ...] = ()
    """Required names of the arms, in order; empty: any."""
    rate_hz: float | None = None
    """Frame rate that replaces the episode's timestamps [Hz]; None: use the timestamps."""
    step_frames: int = 1
    """Frames between two future states."""
    step_s: float | None = None
    """Time between two future states [s], in place of :attr:`step_frames`."""
    ee_forward_m: float = 0.0
    """Shift of the end-effector's origin along its z axis [m]."""
    videos: VideoRoot = VideoRoot.BESIDE
    """Folder that the names of videos are relative to."""
    shuffle_cameras: bool = True
    """True if training may shuffle the cameras."""
    rewrite_prompt: Callable[[str], str] | None = None
    """Function from the instruction in the file to the instruction for the model."""
    contract: str = ''
    """Name of the robot whose contract the description comes from; empty: none."""
    exclude: tuple[str, ...] = ()
    """Names of files that are known to be damaged."""

    def __post_init__(self) -> None:
        if self.step_frames < 1:
            raise ValueError(f'{self.name}: step_frames is {self.step_frames}; expected 1 or more')
        unknown = {name for row in self.reference_cameras for name in row} - set(self.cameras or ())
        if self.cameras and unknown:
            raise ValueError(f'{self.name}: reference camera {sorted(unknown)[0]!r} is not among its cameras '
                             f'{", ".join(self.cameras)}')


def spec_from_contract(name: str, contract: RobotContract | None) -> DatasetSpec:
    """Describe a folder of episodes that were converted with ``contract``; None: episodes of any robot."""
    if contract is None:
        return DatasetSpec(name=name)
    return DatasetSpec(
        name=name, contract=contract.name, cameras=tuple(contract.cameras), arms=tuple(contract.arms),
        step_s=contract.step_s, reference_cameras=tuple(tuple(arm.reference_cameras) for arm in contract.arms.values()),
        wrist_cameras=tuple(name for name, camera in contract.cameras.items() if camera.world_from_camera is None))
