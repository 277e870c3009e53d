"""Command line of the study."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apt_policy.cli import flag, require_at_least


@dataclass(frozen=True, kw_only=True)
class StudyArguments:
    """Compare one stage, two stages, and two stages with a frozen prior, on instructions that are not in the data."""

    quick: bool = False
    """Small sizes: shows that everything runs, and hardly more."""
    out: Annotated[Path | None, flag('FOLDER', default='out/study, out/study_quick')] = None
    """Folder of everything."""
    workers: Annotated[int, flag('N', default='one per core')] = len(os.sched_getaffinity(0))
    """Steps that run side by side."""
    only: Annotated[tuple[str, ...], flag('STEP [STEP ...]', default='')] = ()
    """Run these steps and no others."""
    vlm: Annotated[str, flag('NAME', default='a small one that is trained here')] = ''
    """Qwen3-VL by hub name or folder."""
    data: Annotated[tuple[str, ...], flag('FOLDER[=WEIGHT] [...]', default='new demonstrations')] = ()
    """Existing demonstrations to train on."""
    shards: Annotated[int | None, flag('N', default='1000, quick 60')] = None
    """VQA shards of fifty scenes for the vision-language model."""
    grounding_steps: Annotated[int | None, flag('N', default='5000, quick 150')] = None
    """Grounding warm-up steps of the vision-language model."""
    vlm_steps: Annotated[int | None, flag('N', default='6000, quick 100')] = None
    """Fine-tuning steps of the vision-language model after the warm-up."""
    skills: Annotated[str | None, flag('SKILL[,...]', default='pick,place, quick pick')] = None
    """Skills, separated by commas; splits that need others are left out."""
    demonstrations: Annotated[int | None, flag('N', default='4000, quick 150')] = None
    """Demonstrations to collect."""
    max_steps: Annotated[int | None, flag('N', default='10000, quick 60')] = None
    """Optimizer steps of each of two stages; one stage has twice as many."""
    batch_size: Annotated[int | None, flag('N', default='32, quick 16')] = None
    """Samples per step of policy training."""
    rollouts: Annotated[int | None, flag('N', default='100, quick 4')] = None
    """Rollouts of each split for each policy."""
    seeds: Annotated[int | None, flag('N', default='3')] = None
    """Policies of each variant."""

    def __post_init__(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one is too small.
        """
        require_at_least(
            1, workers=self.workers, shards=self.shards, grounding_steps=self.grounding_steps,
            vlm_steps=self.vlm_steps, demonstrations=self.demonstrations, max_steps=self.max_steps,
            batch_size=self.batch_size, rollouts=self.rollouts, seeds=self.seeds)
