"""Command line of the demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from apt_policy.cli import UsageError, flag

SLOWEST_SPEED = 0.1
"""Slowest simulation that is tried, in simulated seconds per second."""
_LARGEST_SEED = 2**31 - 1
"""Largest seed that the simulator's integer parameter holds."""


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Run the policy on real ROS 2, in simulation, from camera to joint, and report whether it works."""

    seconds: Annotated[float, flag('S')] = 20.0
    """Longest time for an instruction, on the robot's clock."""
    prompt: Annotated[tuple[str, ...], flag('TEXT [TEXT ...]', default='two drawn for the scene')] = ()
    """Instructions, one after the other in the same scene."""
    checkpoint: Annotated[str | None, flag('CHECKPOINT', default='the shipped weights')] = None
    """Trained weights, or "untrained"."""
    contract: Annotated[str, flag('FILE', default='aloha_small.yaml for weights of that robot, else aloha_sim.yaml')
                        ] = ''
    """Contract of the robot."""
    table: Annotated[Literal['', 'cubes', 'trials'],
                     flag('{cubes,trials}', default='trials with aloha_small.yaml, else cubes')] = ''
    """Objects on the table: six cubes and two trays, or those of apt-sim-eval."""
    scene: Annotated[int, flag('N')] = 3
    """Seed of the scene."""
    seed: Annotated[int, flag('N')] = 0
    """Seed of the noise."""
    speed: Annotated[float | None, flag('X', default='by the number of cores, and half of it where that is too fast')
                     ] = None
    """Simulated seconds per second."""
    out: Annotated[Path, flag('FOLDER')] = Path('out/demo')
    """Folder of the video, the storyboard and the plot."""

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            UsageError: one cannot be used.
        """
        if not 1.0 <= self.seconds <= 3600.0:
            raise UsageError(f'--seconds is {self.seconds:g}; expected 1 to 3600')
        if self.speed is not None and not SLOWEST_SPEED <= self.speed <= 1.0:
            raise UsageError(f'--speed is {self.speed:g}; expected {SLOWEST_SPEED:g} to 1')
        if not all(prompt.strip() for prompt in self.prompt):
            raise UsageError('--prompt is empty; give an instruction')
        if not 0 <= self.scene <= _LARGEST_SEED:
            raise UsageError(f'--scene is {self.scene}; expected 0 to {_LARGEST_SEED}')
