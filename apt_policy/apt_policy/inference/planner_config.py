"""What a planner is made from: plain values, which may be had and passed on without torch."""

from dataclasses import dataclass

from apt_policy.model.config import check_noise_scale


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """Which policy, and where it runs."""

    checkpoint: str = ''
    """A checkpoint folder or a published file; empty: a tiny policy that has learned nothing."""
    vlm: str = ''
    """Hub name or folder of the VLM, in place of the checkpoint's."""
    device: str = 'auto'
    """``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes a GPU where there is one."""
    dtype: str = 'auto'
    """``float32``, ``bfloat16``, or ``auto``: on a GPU that which the checkpoint records, float32 on a CPU."""
    use_ema: bool = False
    """The running average of the weights in their place."""
    denoising_steps: int = 20
    noise_scale: float = 1.0
    """Of the noise that plans start from, 0..1; at 0 the same observation always gives the same plan. A policy that has
    learned nothing starts from none."""
    seed: int = 0
    """Of the noise that plans start from."""

    def __post_init__(self) -> None:
        check_noise_scale(self.noise_scale)
