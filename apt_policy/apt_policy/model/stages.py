"""Transfer of weights from the VA prior to the VLA, by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from apt_policy.core.errors import UserError
from apt_policy.model.config import TrainingStage
from apt_policy.model.expert import Expert

BLOCK = re.compile(r'^(dp_head\.traj_context_attn\.layers\.)(\d+)(\..+)$')


class Transfer(Enum):
    """Part of the prior that is transferred."""

    ALL = 'all'
    """All weights: the blocks, and everything else by name."""
    BLOCKS_ONLY = 'blocks_only'
    """Only the blocks, as in the released code; all other weights are initialised."""


class TransferError(UserError, ValueError):
    """Error of a prior that does not fit the VLA; the message names the weights."""


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """Origin of every weight of the VLA after a transfer."""

    copied: Mapping[str, str]
    """Source name by target name."""
    new: tuple[str, ...]
    """Targets that keep their initial values."""


def transfer_prior(prior: Mapping[str, Tensor], vla: Expert, transfer: Transfer = Transfer.ALL) -> TransferReport:
    """Initialise ``vla`` from a prior's state dict: block i becomes block 2 i + 1.

    Raises:
        TransferError: a weight to copy is missing or of another shape, a weight of the prior is
            unknown to the VLA, or ``vla`` is not a VLA.
    """
    if vla.config.stage is not TrainingStage.VLA:
        raise TransferError(f'the target is a {vla.config.stage.value}; only a VLA can start from a prior')
    targets = vla.state_dict()
    sources = {key: _source(key) for key in targets}
    wanted = {key: source for key, source in sources.items()
              if source is not None and (transfer is Transfer.ALL or BLOCK.match(key))}
    problems = [f'{key}: the prior has no {source}' for key, source in wanted.items() if source not in prior]
    problems += [f'{key}: shape {tuple(targets[key].shape)}, the prior has {tuple(prior[source].shape)}'
                 for key, source in wanted.items()
                 if source in prior and prior[source].shape != targets[key].shape]
    problems += [f'{key} of the prior does not exist in the VLA'
                 for key in sorted(set(prior) - set(filter(None, sources.values())))]
    if problems:
        raise TransferError(f'the prior does not fit this VLA, {len(problems)} weights differ:\n  '
                            + '\n  '.join(problems[:20])
                            + '\nGive a VA prior of the same size, trained over the same VLM')
    with torch.no_grad():
        for key, source in wanted.items():
            targets[key].copy_(prior[source])
    return TransferReport(copied=wanted, new=tuple(key for key in targets if key not in wanted))


def _source(key: str) -> str | None:
    """Return the prior's name of a VLA weight; None for a new block."""
    match = BLOCK.match(key)
    if match is None:
        return key
    start, index, rest = match.groups()
    return f'{start}{int(index) // 2}{rest}' if int(index) % 2 else None
