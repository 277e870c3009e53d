"""Configuration of the conversion of bags: every choice that changes the frames."""

import json
from dataclasses import asdict, dataclass
from enum import Enum


class SegmentationMode(Enum):
    """Events that begin and end an episode."""

    AUTO = 'auto'
    """Marks if there are any, else prompt changes if there are any, else one episode per bag."""
    MARKS = 'marks'
    """Episode marks."""
    PROMPT = 'prompt'
    """New prompts."""
    BAG = 'bag'
    """The whole bag is one episode."""


class LabelMode(Enum):
    """Source of the labels that a policy is trained on."""

    AUTO = 'auto'
    """The first of the others that the bag has."""
    TARGETS = 'targets'
    """Commanded end-effector targets."""
    JOINTS = 'joints'
    """Commanded joint positions, by forward kinematics."""
    MEASURED = 'measured'
    """Measured poses one step later."""


class EndEffector(Enum):
    """Source of the measured end-effector poses."""

    AUTO = 'auto'
    """TF, or joints for an arm that TF lacks."""
    TF = 'tf'
    JOINTS = 'joints'


@dataclass(frozen=True, kw_only=True)
class RosbagConversionConfig:
    """Configuration of one conversion. Fields keep their names: their JSON is part of the identity of a job."""

    split: SegmentationMode = SegmentationMode.AUTO
    labels: LabelMode = LabelMode.AUTO
    end_effector: EndEffector = EndEffector.AUTO
    reference: str | None = None
    """Camera or arm with a frame per message; None: a frame per step of the contract."""
    receive: tuple[str, ...] = ()
    """Cameras, arms and ``tf`` that use receive times instead of stamps."""
    cameras: tuple[str, ...] | None = None
    """Subset of the contract's cameras; None: all."""
    max_drops: float = 0.2
    """Maximum fraction of dropped frames of an episode, 0 to 1."""
    namespace: str = ''
    """Namespace of the robot's topics in the bag, without leading and trailing slashes."""
    prompt: str = ''
    """Instruction of episodes without one."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drops <= 1.0:
            raise ValueError(f'max_drops is {self.max_drops}, expected 0 to 1')

    def to_json(self) -> str:
        """Return the configuration as JSON; equal configurations give equal text."""
        return json.dumps(asdict(self), sort_keys=True, default=lambda choice: choice.value)
