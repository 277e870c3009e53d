"""Map from the columns and features of a LeRobot dataset to joints and cameras, and camera calibration.

The map comes from a YAML file, or from the names of the dataset if they follow ALOHA. LeRobot datasets have no
calibration.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from annotated_types import Gt, Lt
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from apt_policy.core.contract import RobotContract
from apt_policy.core.placement import Placement
from apt_training.convert.lerobot.files import LerobotError

_STRICT = ConfigDict(extra='forbid')
_IMAGES = 'observation.images.'
# Names of gripper columns in the public ALOHA datasets.
_GRIPPERS = ('gripper', 'left_finger', 'finger')

Column = str | int
Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ArmColumns:
    """Columns of one arm in state and action, by name or number."""

    joints: tuple[Column, ...]
    """Joint positions in the order of the contract [rad]."""
    gripper: Column
    """Gripper reading."""
    gripper_closed: float = 0.0
    """Reading of the closed gripper; the public ALOHA datasets are normalised to 0 .. 1."""
    gripper_open: float = 1.0
    """Reading of the open gripper."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LerobotMap:
    """Columns and features of a dataset by arms and cameras of the contract."""

    state: str = 'observation.state'
    """Feature with the measured joint positions."""
    action: str | None = 'action'
    """Feature with the commanded joint positions, which are the labels; null: labels are later measured poses."""
    arms: Mapping[str, ArmColumns]
    cameras: Mapping[str, str | None]
    """Image feature of each camera; null: the dataset lacks the camera."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Calibration:
    """Calibration of a camera: a field of view, or a pinhole as in CameraInfo; and the mount of a moving camera."""

    horizontal_fov_deg: Annotated[float, Gt(0), Lt(180)] | None = None
    """Horizontal field of view [deg]; the principal point is the image centre, pixels are square."""
    size: tuple[int, int] | None = None
    """Width and height of the calibrated images [px]."""
    fx: Positive | None = None
    fy: Positive | None = None
    cx: float | None = None
    """Principal point [px], with the centre of the first pixel at 0 as in ROS and OpenCV."""
    cy: float | None = None
    ee_from_camera: Placement | None = None
    """Mount of a camera that moves with an arm."""

    @model_validator(mode='after')
    def _one_way(self) -> 'Calibration':
        pinhole = (self.size, self.fx, self.fy, self.cx, self.cy)
        if self.horizontal_fov_deg is None and any(value is None for value in pinhole):
            raise ValueError('incomplete calibration: give horizontal_fov_deg, or all of size, fx, fy, cx, cy')
        if self.horizontal_fov_deg is not None and any(value is not None for value in pinhole):
            raise ValueError('got horizontal_fov_deg and a pinhole: give one of them')
        return self

    def intrinsics(self, width: int, height: int) -> NDArray[np.float64]:
        """Return the intrinsics (3, 3) for an image size [px], with pixel centres at +0.5.

        Raises:
            LerobotError: the calibrated images have another aspect ratio.
        """
        if self.horizontal_fov_deg is not None:
            focal = width / 2 / np.tan(np.deg2rad(self.horizontal_fov_deg) / 2)
            return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        assert self.size is not None and self.fx and self.fy and self.cx is not None and self.cy is not None
        if self.size[0] * height != self.size[1] * width:
            raise LerobotError(f'calibrated with {self.size[0]}x{self.size[1]} px, the dataset has {width}x{height}: '
                               'another aspect ratio means an unknown crop; calibrate at the size of the dataset')
        scale = width / self.size[0]
        pinhole = np.array([[self.fx, 0.0, self.cx + 0.5], [0.0, self.fy, self.cy + 0.5], [0.0, 0.0, 1.0]])
        return np.diag([scale, scale, 1.0]) @ pinhole


def load_map(path: Path) -> LerobotMap:
    """Load a map file.

    Raises:
        LerobotError: the file is missing or not YAML, or a field is invalid.
    """
    return _load(path, LerobotMap, 'a map of LeRobot columns')


def load_calibrations(path: Path) -> Mapping[str, Calibration]:
    """Load an intrinsics file: a mapping from cameras to :class:`Calibration`.

    Raises:
        LerobotError: the file is missing or not YAML, or a field is invalid.
    """
    return _load(path, Mapping[str, Calibration], 'a mapping from cameras to intrinsics')


def default_map(contract: RobotContract, columns: Sequence[str], image_keys: Sequence[str], *, has_action: bool,
                source: str) -> LerobotMap:
    """Make a map from names like those of the public ALOHA datasets: ``left_waist``, ``observation.images.cam_high``.

    Args:
        contract: the robot.
        columns: names of the columns of the state; numbers as text if it has no names.
        image_keys: image features.
        has_action: True if the dataset has the feature ``action``.
        source: path of the dataset in messages.

    Raises:
        LerobotError: the columns of an arm, or all cameras, are not found.
    """
    cameras = {name: next((key for key in (f'{_IMAGES}{name}', name) if key in image_keys), None)
               for name in contract.cameras}
    if not any(cameras.values()):
        raise LerobotError(f'{source} has the image features {", ".join(image_keys) or "(none)"}, the contract the '
                           f'cameras {", ".join(contract.cameras)}: assign them in a map (--lerobot-map)')
    return LerobotMap(arms=_arms_by_name(contract, columns, source), cameras=cameras,
                      action='action' if has_action else None)


def column_indices(arm: ArmColumns, columns: Sequence[str], where: str) -> tuple[list[int], int]:
    """Return the indices of the columns of an arm's joints and of its gripper.

    Raises:
        LerobotError: a column does not exist.
    """
    def index(column: Column) -> int:
        if isinstance(column, int):
            if not 0 <= column < len(columns):
                raise LerobotError(f'{where} has columns 0 .. {len(columns) - 1}, the map has {column}: correct it')
            return column
        if column not in columns:
            raise LerobotError(f'{where} has no column {column!r}; it has {", ".join(columns)}: use names of '
                               'columns or their numbers in the map (--lerobot-map)')
        return columns.index(column)
    return [index(joint) for joint in arm.joints], index(arm.gripper)


def _arms_by_name(contract: RobotContract, columns: Sequence[str], source: str) -> dict[str, ArmColumns]:
    plain = [column.replace('/', '_').removesuffix('.pos') for column in columns]
    if all(column.isdigit() for column in columns):
        return _arms_by_order(contract, len(columns), source)
    arms = {}
    for name, arm in contract.arms.items():
        prefixes = [f'{name}_', *([''] if len(contract.arms) == 1 else [])]
        joints = [_find(plain, [f'{prefix}{joint}' for prefix in prefixes]) for joint in arm.joints]
        gripper = _find(plain, [f'{prefix}{word}' for prefix in prefixes for word in _GRIPPERS])
        missing = [joint for joint, column in zip((*arm.joints, 'gripper'), (*joints, gripper), strict=True)
                   if column is None]
        if missing:
            raise LerobotError(f'{source}: observation.state has no column for {missing[0]} of arm {name}; it has '
                               f'{", ".join(columns)}: assign them in a map (--lerobot-map)')
        arms[name] = ArmColumns(joints=tuple(columns[j] for j in joints if j is not None),
                                gripper=columns[gripper or 0])
    return arms


def _arms_by_order(contract: RobotContract, width: int, source: str) -> dict[str, ArmColumns]:
    """Assign columns without names: arm by arm in the order of the contract, each with its gripper last."""
    needed = sum(len(arm.joints) + 1 for arm in contract.arms.values())
    if width != needed:
        raise LerobotError(f'{source}: observation.state has {width} columns without names, expected {needed} for '
                           f'the joints and grippers of {", ".join(contract.arms)}: assign the columns in a map '
                           '(--lerobot-map)')
    arms, at = {}, 0
    for name, arm in contract.arms.items():
        arms[name] = ArmColumns(joints=tuple(range(at, at + len(arm.joints))), gripper=at + len(arm.joints))
        at += len(arm.joints) + 1
    return arms


def _find(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _load(path: Path, kind: Any, what: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise LerobotError(f'cannot read {path}: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise LerobotError(f'{path} is not YAML: {error}') from error
    except ValidationError as error:
        lines = [f'  {".".join(map(str, e["loc"])) or "file"}: {e["msg"]} (got {e["input"]!r:.80})'
                 for e in error.errors()]
        raise LerobotError(f'{path} is not {what}:\n' + '\n'.join(lines)) from error
