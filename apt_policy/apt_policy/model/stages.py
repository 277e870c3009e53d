"""From the VA prior to the VLA: which weight becomes which, every one accounted for.

Knows key names only; nothing of training.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from apt_policy.core.errors import UserError
from apt_policy.model.config import Stage
from apt_policy.model.expert import Expert

BLOCK = re.compile(r'^(dp_head\.traj_context_attn\.layers\.)(\d+)(\..+)$')


class Transfer(Enum):
    """How much of the prior goes on."""

    ALL = 'all'
    """The blocks, and everything else by name."""
    BLOCKS_ONLY = 'blocks_only'
    """The released code's way: the blocks; all else starts afresh."""


class TransferError(UserError, ValueError):
    """Prior and VLA do not fit; the message names the weights."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What became of every weight of the VLA."""

    copied: Mapping[str, str]
    """Target to source."""
    new: tuple[str, ...]
    """Targets that keep their fresh values."""


def transfer_prior(prior: Mapping[str, Tensor], vla: Expert, transfer: Transfer = Transfer.ALL) -> Ledger:
    """Start ``vla`` from a prior's state dict: block i becomes block 2 i + 1.

    Raises:
        TransferError: a weight that should be copied is missing or of another shape, a weight of
            the prior has no place, or ``vla`` is no VLA.
    """
    if vla.config.stage is not Stage.VLA:
        raise TransferError(f'the target is a {vla.config.stage.value}; a prior is the start of a VLA')
    targets = vla.state_dict()
    sources = {key: _source(key) for key in targets}
    wanted = {key: source for key, source in sources.items()
              if source is not None and (transfer is Transfer.ALL or BLOCK.match(key))}
    problems = [f'{key}: the prior has no {source}' for key, source in wanted.items() if source not in prior]
    problems += [f'{key}: shape {tuple(targets[key].shape)}, the prior has {tuple(prior[source].shape)}'
                 for key, source in wanted.items()
                 if source in prior and prior[source].shape != targets[key].shape]
    problems += [f'{key} of the prior has no place in the VLA'
                 for key in sorted(set(prior) - set(filter(None, sources.values())))]
    if problems:
        raise TransferError(f'the prior does not fit this VLA, {len(problems)} weights differ:\n  '
                            + '\n  '.join(problems[:20])
                            + '\nGive a VA prior of the same size, trained over the same VLM')
    with torch.no_grad():
        for key, source in wanted.items():
            targets[key].copy_(prior[source])
    return Ledger(copied=wanted, new=tuple(key for key in targets if key not in wanted))


def _source(key: str) -> str | None:
    """The prior's name for a weight of the VLA; None for the blocks that are new."""
    match = BLOCK.match(key)
    if match is None:
        return key
    start, index, rest = match.groups()
    return f'{start}{int(index) // 2}{rest}' if int(index) % 2 else None
