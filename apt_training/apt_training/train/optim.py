"""Optimizer: parameter groups with their weight decay, and the learning-rate schedule.

The learning rate is a function of the iteration alone, so no scheduler state is saved.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from apt_training.train.config import OptimConfig

VLM_PREFIX = 'policy.vlm.'
"""Prefix of the VLM's weights in an objective."""
_VLM_GROUP = 'vlm'
NO_DECAY_NAMES = ('norm', 'gate', 'arm_id_embed')
"""Names of weights that have no weight decay even where they are matrices."""


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return the trainable weights in groups: expert and VLM, each with and without weight decay.

    Args:
        module: an :class:`~apt_training.train.objective.Objective`.
        config: learning rates and weight decays.
    """
    groups: list[dict[str, Any]] = [
        {'name': 'expert', 'lr': config.lr, 'weight_decay': config.weight_decay, 'params': []},
        {'name': 'expert, no decay', 'lr': config.lr, 'weight_decay': 0.0, 'params': []},
        {'name': _VLM_GROUP, 'lr': config.vlm_lr, 'weight_decay': config.vlm_weight_decay, 'params': []},
        {'name': f'{_VLM_GROUP}, no decay', 'lr': config.vlm_lr, 'weight_decay': 0.0, 'params': []}]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            index = 2 * name.startswith(VLM_PREFIX) + (not has_weight_decay(name, parameter))
            groups[index]['params'].append(parameter)
    return [group for group in groups if group['params']]


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a weight decays: matrices do; biases, norms, gates and arm embeddings do not."""
    own = name.rsplit('.', 1)[-1]
    return parameter.ndim > 1 and own != 'bias' and own not in NO_DECAY_NAMES


def make_optimizer(groups: Iterable[dict[str, Any]]) -> torch.optim.AdamW:
    """Create AdamW over parameter groups."""
    return torch.optim.AdamW(list(groups))


def learning_rate_factor(iteration: int, config: OptimConfig, iterations: int) -> float:
    """Return the share of the full learning rate at a step; the first one is iteration 0."""
    begun = (iteration + 1) / config.warmup if config.warmup else 1.0
    left = (iterations - iteration) / (config.cooldown * iterations) if config.cooldown else 1.0
    return min(1.0, begun, left)


def set_learning_rate(optimizer: Any, config: OptimConfig, factor: float) -> None:
    """Set each group's learning rate to ``factor`` times its full rate, regardless of the rate it was saved with."""
    for group in optimizer.param_groups:
        group['lr'] = factor * (config.vlm_lr if group['name'].startswith(_VLM_GROUP) else config.lr)
