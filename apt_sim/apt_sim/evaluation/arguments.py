"""Command line of ``apt-sim-eval``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apt_policy.cli import UsageError, flag, require_at_least
from apt_sim.arguments import TaskArguments

_CORES_FOR_REAL_TIME = 6
"""Cores that rendering, model and nodes keep busy in real time."""
_SPEED = min(1.0, len(os.sched_getaffinity(0)) / _CORES_FOR_REAL_TIME)
"""Simulated seconds per second that this machine's cores can follow."""


@dataclass(frozen=True, kw_only=True)
class SimEvalArguments(TaskArguments):
    """Measure how often a policy does what it is told, closed loop in simulation, faster than real time.

    The same seed gives the same result, whatever the number of workers. Rollouts finished before Ctrl-C, or beside a
    lost one, are reported and written.
    """

    checkpoint: Annotated[str, flag('CHECKPOINT', default='an untrained policy')] = ''
    """Folder or published file of the weights."""
    split: Annotated[str, flag('SPLIT[,...]', default='all but train')] = 'all'
    """Splits, separated by commas: seen, unseen_object, unseen_container, unseen_wording, composed, train."""
    episodes: Annotated[int, flag('N')] = 50
    """Rollouts per split."""
    json: Annotated[Path | None, flag('FILE', default='')] = None
    """Write {split: {episodes, success, low, high, approached}}."""
    videos: Annotated[Path | None, flag('FOLDER', default='')] = None
    """Write a video of every failure; slower."""
    replan: Annotated[float, flag('S')] = 0.8
    """Simulated time between two plans."""
    delay: Annotated[float, flag('S')] = 0.0
    """Simulated time from an observation to its plan."""
    patience: Annotated[float, flag('X')] = 1.0
    """Factor on the time that an instruction may take."""
    ros: bool = False
    """Evaluate through the live node over DDS, in the time of the simulator."""
    speed: Annotated[float, flag('X', default=f'{_SPEED:.2g} on this machine')] = _SPEED
    """With --ros: simulated seconds per second."""
    denoising_steps: Annotated[int, flag('N')] = 10
    """Denoising steps per plan."""
    noise_scale: Annotated[float, flag('X')] = 1.0
    """Scale of the initial diffusion noise, 0 to 1; 0 makes sampling deterministic."""
    device: Annotated[str, flag('NAME')] = 'cpu'
    """Device for the policy: cpu, which is reproducible, cuda, or auto."""
    vlm: Annotated[str, flag('NAME', default='that of the checkpoint')] = ''
    """Hub name or folder of the VLM."""

    def __post_init__(self) -> None:
        """Check numbers, and that flags go together.

        Raises:
            UsageError: they cannot be used.
        """
        super().__post_init__()
        require_at_least(1, episodes=self.episodes, denoising_steps=self.denoising_steps)
        if self.ros and (self.videos or self.delay):
            raise UsageError('--videos and --delay cannot be combined with --ros, which runs in the time of the node')
