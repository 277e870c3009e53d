"""Which column of a LeRobot dataset is which joint, and which feature is which camera.

From a YAML file, or by name where the dataset follows ALOHA's names. Also the calibration that
no LeRobot dataset carries. Values and their checks; no row is read here.
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
_GRIPPERS = ('gripper', 'left_finger', 'finger')

Column = str | int
Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ArmColumns:
    """Where one arm stands in state and action: columns by name or number."""

    joints: tuple[Column, ...]
    """In the contract's order [rad]."""
    gripper: Column
    gripper_closed: float = 0.0
    """Reading of the closed gripper; the public ALOHA datasets are normalised to 0 .. 1."""
    gripper_open: float = 1.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LerobotMap:
    """A dataset's names, in the contract's words."""

    state: str = 'observation.state'
    action: str | None = 'action'
    """Commanded joints, the labels; null: learn from later measured poses."""
    arms: Mapping[str, ArmColumns]
    cameras: Mapping[str, str | None]
    """Feature of each camera; null: the dataset lacks it."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Calibration:
    """Of one camera: a field of view, or a pinhole as in CameraInfo; and its mount, if it moves."""

    horizontal_fov_deg: Annotated[float, Gt(0), Lt(180)] | None = None
    """Principal point in the middle, square pixels."""
    size: tuple[int, int] | None = None
    """Width and height of the images that the pinhole belongs to [px]."""
    fx: Positive | None = None
    fy: Positive | None = None
    cx: float | None = None
    """[px], the centre of the first pixel at 0, as ROS and OpenCV count."""
    cy: float | None = None
    ee_from_camera: Placement | None = None

    @model_validator(mode='after')
    def _one_way(self) -> 'Calibration':
        pinhole = (self.size, self.fx, self.fy, self.cx, self.cy)
        if self.horizontal_fov_deg is None and any(value is None for value in pinhole):
            raise ValueError('give horizontal_fov_deg, or all of size, fx, fy, cx, cy')
        if self.horizontal_fov_deg is not None and any(value is not None for value in pinhole):
            raise ValueError('has horizontal_fov_deg and a pinhole; give one of them')
        return self

    def intrinsics(self, width: int, height: int) -> NDArray[np.float64]:
        """(3, 3) for images of that size [px], pixel centres at +0.5.

        Raises:
            LerobotError: the pinhole belongs to images of other proportions.
        """
        if self.horizontal_fov_deg is not None:
            focal = width / 2 / np.tan(np.deg2rad(self.horizontal_fov_deg) / 2)
            return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        assert self.size is not None and self.fx and self.fy and self.cx is not None and self.cy is not None
        if self.size[0] * height != self.size[1] * width:
            raise LerobotError(f'calibrated with {self.size[0]}x{self.size[1]} px, the dataset has {width}x{height}: '
                               'other proportions mean a crop that is not known; calibrate at the size of the dataset')
        scale = width / self.size[0]
        pinhole = np.array([[self.fx, 0.0, self.cx + 0.5], [0.0, self.fy, self.cy + 0.5], [0.0, 0.0, 1.0]])
        return np.diag([scale, scale, 1.0]) @ pinhole


def load_map(path: Path) -> LerobotMap:
    """Read a map file.

    Raises:
        LerobotError: missing, not YAML, or a field is wrong.
    """
    return _load(path, LerobotMap, 'a map of LeRobot columns')


def load_calibrations(path: Path) -> Mapping[str, Calibration]:
    """Read an intrinsics file: a mapping from cameras to :class:`Calibration`.

    Raises:
        LerobotError: missing, not YAML, or a field is wrong.
    """
    return _load(path, Mapping[str, Calibration], 'a mapping from cameras to intrinsics')


def default_map(contract: RobotContract, columns: Sequence[str], image_keys: Sequence[str], *, has_action: bool,
                source: str) -> LerobotMap:
    """By name, as the public ALOHA datasets are: ``left_waist`` .. ``left_gripper``, ``observation.images.cam_high``.

    Args:
        contract: of the robot.
        columns: names of the state's columns; numbers as text where it names none.
        image_keys: features that are pictures.
        has_action: whether there is a feature ``action``.
        source: named in errors.

    Raises:
        LerobotError: an arm's columns are not found.
    """
    cameras = {name: next((key for key in (f'{_IMAGES}{name}', name) if key in image_keys), None)
               for name in contract.cameras}
    if not any(cameras.values()):
        raise LerobotError(f'{source} has the image features {", ".join(image_keys) or "(none)"}; the contract has the '
                           f'cameras {", ".join(contract.cameras)}: say which is which in a map (--lerobot-map)')
    return LerobotMap(arms=_arms_by_name(contract, columns, source), cameras=cameras,
                      action='action' if has_action else None)


def numbers_of(arm: ArmColumns, columns: Sequence[str], where: str) -> tuple[list[int], int]:
    """Column numbers of an arm's joints, and of its gripper.

    Raises:
        LerobotError: a column that is not there.
    """
    def number(column: Column) -> int:
        if isinstance(column, int):
            if not 0 <= column < len(columns):
                raise LerobotError(f'{where} has columns 0 .. {len(columns) - 1}, the map names {column}')
            return column
        if column not in columns:
            raise LerobotError(f'{where} has no column {column!r}; it has {", ".join(columns)}: name columns or their '
                               'numbers in the map (--lerobot-map)')
        return columns.index(column)
    return [number(joint) for joint in arm.joints], number(arm.gripper)


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
            raise LerobotError(f'{source}: no column of observation.state is the {missing[0]} of arm {name}; its '
                               f'columns are {", ".join(columns)}: say which is which in a map (--lerobot-map)')
        arms[name] = ArmColumns(joints=tuple(columns[j] for j in joints if j is not None),
                                gripper=columns[gripper or 0])
    return arms


def _arms_by_order(contract: RobotContract, width: int, source: str) -> dict[str, ArmColumns]:
    """Columns without names: arm by arm in the contract's order, each with its gripper behind."""
    needed = sum(len(arm.joints) + 1 for arm in contract.arms.values())
    if width != needed:
        raise LerobotError(f'{source}: observation.state has {width} columns without names, the arms '
                           f'{", ".join(contract.arms)} have {needed} joints and grippers: number the columns in a map '
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
