"""Command line of ``apt-finetune-vlm``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from apt_policy.cli import flag, require_words


@dataclass(frozen=True, kw_only=True)
class VlmFinetuneArguments:
    """Fine-tune a vision-language model on conversations about pictures."""

    data: Annotated[tuple[Path, ...], Positional, flag('FOLDER [FOLDER ...]', default='')] = ()
    """Conversations, as apt-sim-vqa writes them."""
    out: Annotated[Path, flag('FOLDER')]
    """Folder of the model; an interrupted run resumes there."""
    vlm: Annotated[str, flag('NAME')] = 'from-scratch'
    """Qwen3-VL by hub name or folder to start from; "from-scratch" is a small model with random weights."""
    held_out: Annotated[Path | None, flag('FOLDER', default='')] = None
    """Conversations to evaluate the model on."""
    max_steps: Annotated[int, flag('N')] = 5_000
    """Optimizer steps."""
    grounding_steps: Annotated[int, flag('N')] = 1_500
    """Steps before them that train only the grounding of marked objects in pictures."""
    batch_size: Annotated[int, flag('N', '--bs')] = 32
    """Conversations per step and process."""
    lr: Annotated[float, flag('X')] = 1e-3
    """Peak learning rate."""
    seed: Annotated[int, flag('N')] = 0
    """Seed of weights and of the order of the conversations."""
    save_every: Annotated[int, flag('N')] = 500
    """Steps between checkpoints."""
    workers: Annotated[int, flag('N')] = 1
    """Loading processes."""
    half: bool = True
    """Use bfloat16 where it is precise enough."""

    def __post_init__(self) -> None:
        """Check that there are conversations.

        Raises:
            UsageError: no folder is given.
        """
        require_words('FOLDER', self.data)
