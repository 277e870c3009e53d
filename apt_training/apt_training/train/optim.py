"""The optimizer: which weights decay, how fast each learns, and when.

The rate is a function of the iteration alone, so nothing of it needs saving.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from apt_training.train.config import OptimConfig

VLM_PREFIX = 'policy.vlm.'
_VLM_GROUP = 'vlm'
NO_DECAY_NAMES = ('norm', 'gate', 'arm_id_embed')


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Of every weight that learns: expert and VLM, each with and without decay.

    Args:
        module: an :class:`~apt_training.train.objective.Objective`.
        config: rates and decays.
    """
    groups: list[dict[str, Any]] = [
        {'name': 'expert', 'lr': config.lr, 'weight_decay': config.weight_decay, 'params': []},
        {'name': 'expert, no decay', 'lr': config.lr, 'weight_decay': 0.0, 'params': []},
        {'name': _VLM_GROUP, 'lr': config.vlm_lr, 'weight_decay': config.vlm_weight_decay, 'params': []},
        {'name': f'{_VLM_GROUP}, no decay', 'lr': config.vlm_lr, 'weight_decay': 0.0, 'params': []}]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            index = 2 * name.startswith(VLM_PREFIX) + (not decays(name, parameter))
            groups[index]['params'].append(parameter)
    return [group for group in groups if group['params']]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices do; biases, norms, gates and embeddings of arms do not."""
    own = name.rsplit('.', 1)[-1]
    return parameter.ndim > 1 and own != 'bias' and own not in NO_DECAY_NAMES


def make_optimizer(groups: Iterable[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW over ``groups``."""
    return torch.optim.AdamW(list(groups))


def rate_factor(iteration: int, config: OptimConfig, iterations: int) -> float:
    """Share of the full rate at a step of so many, the first being iteration 0."""
    begun = (iteration + 1) / config.warmup if config.warmup else 1.0
    left = (iterations - iteration) / (config.cooldown * iterations) if config.cooldown else 1.0
    return min(1.0, begun, left)


def set_rate(optimizer: Any, config: OptimConfig, factor: float) -> None:
    """Every group's rate to ``factor`` of its full one, whatever it was saved with."""
    for group in optimizer.param_groups:
        group['lr'] = factor * (config.vlm_lr if group['name'].startswith(_VLM_GROUP) else config.lr)
