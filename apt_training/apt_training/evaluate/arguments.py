"""Command line of ``apt-eval``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from apt_policy.cli import flag, require_at_least, require_words


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Measure a checkpoint on held-out episodes: errors over the horizon, effect of the instruction, and gates."""

    checkpoint: Annotated[Path, Positional, flag('CHECKPOINT')]
    """Checkpoint folder, folder of a run, or ckpt_latest.pt."""
    episodes: Annotated[tuple[Path, ...], Positional, flag('EPISODES [EPISODES ...]', default='')] = ()
    """Episode files, or folders of them."""
    contract: Annotated[Path | None, flag('FILE', default='')] = None
    """Contract of the robot; needed where the checkpoint names none."""
    vlm: Annotated[str, flag('NAME', default='that of the checkpoint')] = ''
    """Hub name or folder of the VLM."""
    device: Annotated[str, flag('NAME')] = 'auto'
    """Device for the policy: auto, cpu, cuda, or cuda:1."""
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    """Precision of the weights."""
    frames: Annotated[int, flag('N')] = 16
    """Observations per episode, evenly spaced."""
    samples: Annotated[int, flag('K')] = 8
    """Plans sampled for each observation."""
    denoising_steps: Annotated[int | None, flag('N', default='that of the checkpoint')] = None
    """Denoising steps per plan."""
    noise_scale: Annotated[float, flag('X')] = 1.0
    """Scale of the initial diffusion noise, 0 to 1; 0 makes sampling deterministic and gives no noise floor."""
    seed: Annotated[int, flag('N')] = 0
    """Seed of noise and of swapped instructions."""
    batch_size: Annotated[int, flag('N')] = 8
    """Observations per batch."""
    workers: Annotated[int, flag('N')] = 0
    """Loading processes; 0 loads in this process."""
    probe: Annotated[int, flag('N')] = 64
    """Observations planned again with another instruction; 0 for none."""
    swap_with: Annotated[tuple[str, ...], UseAppendAction, flag('TEXT')] = ()
    """Instruction to swap in, instead of those of other episodes."""
    json: Annotated[Path | None, flag('FILE', default='')] = None
    """Write all numbers."""
    plots: Annotated[Path | None, flag('FOLDER', default='')] = None
    """Write errors, effect of language, gates and examples as PNG."""
    tensorboard: Annotated[Path | None, flag('FOLDER', default='')] = None
    """Write scalars and figures, at the iteration of the checkpoint."""

    def __post_init__(self) -> None:
        """Check what the evaluation itself does not check.

        Raises:
            UsageError: there is no episode, or no frame of one.
        """
        require_words('EPISODES', self.episodes)
        require_at_least(1, frames=self.frames)
