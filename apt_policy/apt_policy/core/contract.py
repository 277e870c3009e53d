"""Robot contract: the single description of a robot.

One YAML file names arms, cameras, topics, frames, rates, ranges and limits. The
node, the IK bridge, the simulator, the recorder and the converter all read it
through :func:`load_contract`; a checkpoint stores the facts that its weights depend on.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge, Gt, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from apt_policy.core.errors import UserError
from apt_policy.core.placement import Chain, Placement, Vector3

_STRICT = ConfigDict(extra='forbid')

Positive = Annotated[float, Gt(0)]


class ContractError(UserError, ValueError):
    """Error of a contract file that cannot be used; the message names the file and each field."""


class ImageTransport(Enum):
    """Message type of an image topic."""

    RAW = 'raw'
    COMPRESSED = 'compressed'


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Camera:
    """One camera: its streams and its pose."""

    image_topic: str
    info_topic: str
    transport: ImageTransport = ImageTransport.RAW
    frame: str
    """TF frame of the optical centre (x right, y down, z forward)."""
    rate_hz: Positive
    """Expected rate [Hz]."""
    max_age_s: Positive
    """Age above which an image is stale [s]."""
    world_from_camera: Placement | None = None
    """Calibrated pose of a fixed camera; None for a camera that moves with the robot and is looked up in TF."""
    tf_anchor: str | None = None
    """Arm whose base anchors the TF look-up of a moving camera."""
    ee_from_camera: Placement | None = None
    """Calibrated mount on that arm's end-effector; None if TF contains :attr:`frame`."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class GripperRange:
    """Readings of one gripper joint when closed and when open."""

    joint: str
    closed: float
    open: float

    @model_validator(mode='after')
    def _has_width(self) -> 'GripperRange':
        if self.closed == self.open:
            raise ValueError(f'gripper {self.joint!r}: closed and open are both {self.open}')
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Box:
    """An axis-aligned box [m]."""

    lower: Vector3
    upper: Vector3

    @model_validator(mode='after')
    def _is_ordered(self) -> 'Box':
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f'box needs lower < upper on every axis, got {self.lower}, {self.upper}')
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Arm:
    """One follower arm."""

    namespace: str
    joints: Annotated[tuple[str, ...], MinLen(1)]
    """Arm joints in command order, as named in ``joint_states`` (not prefixed)."""
    joint_lower: tuple[float, ...]
    """[rad]."""
    joint_upper: tuple[float, ...]
    """[rad]."""
    joint_velocity: Positive
    """Limit of every arm joint [rad/s]."""
    start: tuple[float, ...]
    """Joint positions at the start of an episode [rad]."""
    gripper_state: GripperRange
    gripper_command: GripperRange
    base_frame: str
    ee_frame: str
    world_from_base: Placement
    """Calibrated pose of the base; not the ``world`` transform of the driver, which is cosmetic."""
    reference_cameras: Annotated[tuple[str, ...], MinLen(1)]
    """Cameras whose frame actions may be expressed in, best first."""
    state_rate_hz: Positive
    max_age_s: Positive
    workspace: Box | None = None
    """Allowed end-effector positions in the world; None allows all and logs a warning."""
    chain: Chain | None = None
    """Kinematic chain; forward and inverse kinematics and the simulator need it."""

    @model_validator(mode='after')
    def _lengths_agree(self) -> 'Arm':
        if self.chain is not None and len(self.chain.links) != len(self.joints):
            raise ValueError(f'chain.links has {len(self.chain.links)} entries, joints has {len(self.joints)}')
        for name in ('joint_lower', 'joint_upper', 'start'):
            got = len(getattr(self, name))
            if got != len(self.joints):
                raise ValueError(f'{name} has {got} entries, joints has {len(self.joints)}')
        return self

    @property
    def joint_states_topic(self) -> str:
        """sensor_msgs/JointState."""
        return f'{self.namespace}/joint_states'

    @property
    def joint_group_topic(self) -> str:
        """interbotix_xs_msgs/JointGroupCommand of the arm joints."""
        return f'{self.namespace}/commands/joint_group'

    @property
    def joint_single_topic(self) -> str:
        """interbotix_xs_msgs/JointSingleCommand of the gripper."""
        return f'{self.namespace}/commands/joint_single'


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SafetyLimits:
    """Limits of every target; None leaves a bound unset and logs a warning."""

    linear_speed: Positive | None = None
    """Speed of the end-effector [m/s]."""
    angular_speed: Positive | None = None
    """Angular speed of the end-effector [rad/s]."""
    gripper_speed: Positive | None = None
    """Speed of the gripper opening 0..1 [1/s]."""
    first_target_distance: Positive = 0.1
    """Largest distance of a first target from the measured pose [m]."""
    first_target_angle: Positive = 0.5
    """Largest angle of a first target to the measured pose [rad]."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RobotContract:
    """Description of one robot. Mappings keep the order of the file, which is the model's order."""

    name: str
    world_frame: str
    prompt_topic: str
    image_size: Annotated[int, Gt(0)]
    """Side of the model's square input image [px]."""
    horizon: Annotated[int, Gt(0)]
    """Number of future states in a chunk."""
    history: Annotated[int, Ge(1)]
    """Number of states given to the model, the present one included."""
    step_s: Positive
    """Time between two states of a chunk [s]; independent of the control period."""
    control_rate_hz: Positive
    arms: Mapping[str, Arm]
    cameras: Mapping[str, Camera]
    safety: SafetyLimits

    @model_validator(mode='after')
    def _references_exist(self) -> 'RobotContract':
        for name, arm in self.arms.items():
            for reference in arm.reference_cameras:
                if reference not in self.cameras:
                    raise ValueError(f'arms.{name}.reference_cameras names {reference!r}; '
                                     f'cameras are {", ".join(self.cameras)}')
        for name, camera in self.cameras.items():
            if camera.world_from_camera is None and camera.tf_anchor not in self.arms:
                raise ValueError(f'cameras.{name} needs world_from_camera, or tf_anchor as one of '
                                 f'{", ".join(self.arms)}; tf_anchor is {camera.tf_anchor!r}')
            if camera.world_from_camera is not None and camera.ee_from_camera is not None:
                raise ValueError(f'cameras.{name} has both world_from_camera and ee_from_camera: '
                                 'give one of them')
        return self

    @property
    def step_ns(self) -> int:
        """:attr:`step_s` in nanoseconds."""
        return round(self.step_s * 1e9)

    def policy_facts(self) -> dict[str, Any]:
        """Return the facts that trained weights depend on, as a flat dictionary of JSON types."""
        facts: dict[str, Any] = {
            'arms': list(self.arms), 'cameras': list(self.cameras), 'image_size': self.image_size,
            'horizon': self.horizon, 'history': self.history, 'step_s': self.step_s}
        for name, arm in self.arms.items():
            facts[f'arms.{name}.reference_cameras'] = list(arm.reference_cameras)
        return facts


def contract_from_dict(fields: Mapping[str, Any], *, source: str) -> RobotContract:
    """Validate ``fields`` and build the contract.

    Args:
        fields: content of a contract file.
        source: path or name to put into errors.

    Raises:
        ContractError: a field is missing, unknown or out of range; the message names each one.
    """
    try:
        return TypeAdapter(RobotContract).validate_python(dict(fields))
    except ValidationError as error:
        lines = [f'  {".".join(map(str, e["loc"])) or "contract"}: {e["msg"]} (got {e["input"]!r:.80})'
                 for e in error.errors()]
        raise ContractError(f'{source} is not a robot contract:\n' + '\n'.join(lines)) from error


def contract_to_dict(contract: RobotContract) -> dict[str, Any]:
    """Convert a contract to JSON types; the inverse of :func:`contract_from_dict`."""
    return TypeAdapter(RobotContract).dump_python(contract, mode='json')


def load_contract(path: str | Path) -> RobotContract:
    """Load a contract file; ``extends: other.yaml`` overlays it on another file of the same folder.

    A value of ``null`` removes a camera, an arm or another group of fields of the base file.

    Raises:
        ContractError: the file is missing, is not YAML, or a field is wrong.
    """
    return contract_from_dict(_read_layers(Path(path), above=()), source=str(path))


def mismatches(trained: Mapping[str, Any], robot: Mapping[str, Any]) -> list[str]:
    """List the facts (:meth:`RobotContract.policy_facts`) in which two contracts differ, one sentence each."""
    absent = object()
    return [f'{key}: checkpoint has {trained.get(key)!r}, robot has {robot.get(key)!r}'
            for key in sorted({*trained, *robot})
            if trained.get(key, absent) != robot.get(key, absent)]


def _read_layers(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ContractError(f'{path} extends itself')
    try:
        fields = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ContractError(f'cannot read contract {path}: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise ContractError(f'{path} is not YAML: {error}') from error
    if not isinstance(fields, dict):
        raise ContractError(f'{path} holds {type(fields).__name__}, expected a mapping of fields')
    base = fields.pop('extends', None)
    if base is None:
        return fields
    return _overlay(_read_layers(path.parent / base, (*above, path.resolve())), fields)


def _overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = base.get(key)
        if value is None and isinstance(below, Mapping):
            del merged[key]
        else:
            nested = isinstance(value, Mapping) and isinstance(below, Mapping)
            merged[key] = _overlay(base[key], value) if nested else value
    return merged
