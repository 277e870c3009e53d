"""How bags are to be converted: every choice that changes the frames, as values."""

import json
from dataclasses import asdict, dataclass
from enum import Enum


class Split(Enum):
    """What begins and ends an episode."""

    AUTO = 'auto'
    """Marks if there are any, else prompt changes if there are any, else one episode per bag."""
    MARKS = 'marks'
    PROMPT = 'prompt'
    BAG = 'bag'


class Labels(Enum):
    """What the policy learns to produce."""

    AUTO = 'auto'
    """The first of the others that the bag has."""
    TARGETS = 'targets'
    JOINTS = 'joints'
    MEASURED = 'measured'


class EndEffector(Enum):
    """Where the measured end-effector poses come from."""

    AUTO = 'auto'
    """TF; joints for an arm that TF does not know."""
    TF = 'tf'
    JOINTS = 'joints'


@dataclass(frozen=True, kw_only=True)
class BagSettings:
    """Of one conversion; the robot's facts are in its contract."""

    split: Split = Split.AUTO
    labels: Labels = Labels.AUTO
    end_effector: EndEffector = EndEffector.AUTO
    reference: str | None = None
    """Camera or arm each of whose messages makes a frame; None: a frame per step of the contract."""
    receive: tuple[str, ...] = ()
    """Cameras, arms and ``tf`` whose messages count from when they arrived, not from their stamps."""
    cameras: tuple[str, ...] | None = None
    """A subset of the contract's; None: all."""
    max_drops: float = 0.2
    """Share of an episode's frames that may be missing."""
    namespace: str = ''
    """Of the robot's topics in the bag, without slashes at its ends."""
    prompt: str = ''
    """For episodes during which none was said."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drops <= 1.0:
            raise ValueError(f'max_drops is {self.max_drops}; expected a share between 0 and 1')

    def text(self) -> str:
        """The same for the same settings."""
        return json.dumps(asdict(self), sort_keys=True, default=lambda choice: choice.value)
