"""Configuration of a planner; importing it needs no torch."""

from dataclasses import dataclass

from apt_policy.model.config import check_noise_scale


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """Checkpoint, device and sampling of a planner."""

    checkpoint: str = ''
    """Checkpoint folder or published file; empty for an untrained tiny policy."""
    vlm: str = ''
    """Hub name or folder of the VLM; empty for the one named in the checkpoint."""
    device: str = 'auto'
    """``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU if there is one."""
    dtype: str = 'auto'
    """``float32``, ``bfloat16``, or ``auto``: the precision recorded in the checkpoint on a GPU, float32 on a CPU."""
    use_ema: bool = False
    """Use the exponential moving average of the weights."""
    denoising_steps: int = 20
    noise_scale: float = 1.0
    """Scale of the initial diffusion noise, 0..1; 0 makes sampling deterministic. An untrained policy uses no noise."""
    seed: int = 0
    """Seed of the initial diffusion noise."""

    def __post_init__(self) -> None:
        check_noise_scale(self.noise_scale)
