"""What one has to know of a dataset to draw samples from it, in a few lines.

The published datasets are declared in ``published``; a folder of converted episodes needs
nothing but the robot's contract.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from apt_policy.core.contract import RobotContract


class Videos(Enum):
    """What the names of videos in the files are relative to, unless the dataset's location says more."""

    BESIDE = 'beside'
    """The folder of the file."""
    FOLDER = 'folder'
    """The folder of the dataset."""
    MIRROR = 'mirror'
    """The place of the file's folder in a tree of the same shape, FOLDER_raw."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """Everything about a dataset except where it lies."""

    name: str
    files: str = '**/*'
    """Glob below the dataset's folder, suffix left open."""
    cameras: tuple[str, ...] = ()
    """In the model's order where cameras are not shuffled; empty: all of an episode, in its order."""
    reference_cameras: tuple[tuple[str, ...], ...] = ()
    """Per arm (of :attr:`ee_indices`, else of the file), the cameras that its actions may be expressed
    in, best first; empty: any camera."""
    wrist_cameras: tuple[str, ...] = ()
    """Never cropped."""
    ee_indices: tuple[int, ...] | None = None
    """Arms to take out of the file, unless the episode names others; they fill the model's places
    from the first on. None: every arm keeps its place, and those that an episode does not name in
    its ee_indices are masked."""
    arms: tuple[str, ...] = ()
    """Names that the arms must have, in order; empty: any."""
    rate_hz: float | None = None
    """Frames per second, in place of the episode's own times; None: trust them."""
    step_frames: int = 1
    """Frames between two states of the future."""
    step_s: float | None = None
    """Time between them [s], in place of :attr:`step_frames`."""
    ee_forward_m: float = 0.0
    """Moves the end-effector's origin along its z axis [m]."""
    videos: Videos = Videos.BESIDE
    shuffle_cameras: bool = True
    """In training."""
    reword: Callable[[str], str] | None = None
    """From an instruction as it stands in the file to what is said to the model."""
    contract: str = ''
    """Name of the robot whose contract says the above; empty: no contract does."""
    exclude: tuple[str, ...] = ()
    """Names of files that are known to be broken."""

    def __post_init__(self) -> None:
        if self.step_frames < 1:
            raise ValueError(f'{self.name}: step_frames is {self.step_frames}, expected at least 1')
        unknown = {name for row in self.reference_cameras for name in row} - set(self.cameras or ())
        if self.cameras and unknown:
            raise ValueError(f'{self.name}: reference camera {sorted(unknown)[0]!r} is not among its cameras '
                             f'{", ".join(self.cameras)}')


def declaration_of(name: str, contract: RobotContract | None) -> Declaration:
    """Of a folder of episodes that were converted for the robot of ``contract``; None: of any robot."""
    if contract is None:
        return Declaration(name=name)
    return Declaration(
        name=name, contract=contract.name, cameras=tuple(contract.cameras), arms=tuple(contract.arms),
        step_s=contract.step_s, reference_cameras=tuple(tuple(arm.reference_cameras) for arm in contract.arms.values()),
        wrist_cameras=tuple(name for name, camera in contract.cameras.items() if camera.world_from_camera is None))
