"""Building a policy from a checkpoint and saving it; every weight is matched by name."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apt_policy.model.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from apt_policy.model.config import TINY_VLM, PolicyConfig, VlmConfig, VlmMode
from apt_policy.model.expert import Expert
from apt_policy.model.policy import Policy
from apt_policy.model.published import LANGUAGE_HEAD, vlm_names
from apt_policy.model.vlm.bridge import VlmBridge, build_bridge

log = logging.getLogger(__name__)

UNUSED_NORM = 'language_model.norm.'
"""Norm after the last decoder layer, which is not used."""
DECODER_LAYER = re.compile(r'^language_model\.layers\.(\d+)\.')


def build_expert(checkpoint: Checkpoint) -> Expert:
    """Build the expert with the checkpoint's weights, on the CPU.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape; the message names them.
    """
    expert = Expert(checkpoint.expert)
    load_weights(expert, checkpoint.weights, source=checkpoint.source)
    return expert


def build_policy(checkpoint: Checkpoint, *, device: torch.device, vlm: VlmConfig | None = None) -> Policy:
    """Build the whole policy.

    Args:
        checkpoint: checkpoint that was read.
        device: device of the policy.
        vlm: configuration of the VLM; None for the checkpoint's, or the default for a published file. Its ``mode`` is
            ignored in favour of the checkpoint's.

    Raises:
        CheckpointError: weights do not fit, or the VLM is not the one of the training.
        VlmError: the VLM cannot be loaded.
    """
    expert = build_expert(checkpoint)
    config = vlm or checkpoint.vlm or VlmConfig()
    bridge = build_bridge(replace(config, mode=_mode(checkpoint)), device)
    if (bridge.taps, bridge.width) != (checkpoint.expert.taps, checkpoint.expert.vlm_width):
        raise CheckpointError(
            f'{checkpoint.source} was trained over a VLM with {checkpoint.expert.taps} taps of width '
            f'{checkpoint.expert.vlm_width}; {config.name} has {bridge.taps} of width {bridge.width}: '
            'name the VLM that it was trained with')
    if checkpoint.vlm_weights is not None:
        load_vlm_weights(bridge, checkpoint.vlm_weights, source=checkpoint.source)
    return Policy(PolicyConfig(expert=checkpoint.expert, vlm=bridge.config), bridge, expert.to(device))


def save_policy(folder: str | Path, policy: Policy, *, contract: Mapping[str, Any], iteration: int,
                git_revision: str) -> None:
    """Save ``policy`` as a checkpoint folder; see :func:`save_checkpoint`."""
    save_checkpoint(folder, weights=policy.expert.state_dict(), vlm_weights=vlm_weights(policy.vlm),
                    config=policy.config, contract=contract, iteration=iteration, git_revision=git_revision)


def vlm_weights(bridge: VlmBridge) -> dict[str, Tensor] | None:
    """Return the VLM's weights that a checkpoint must contain; None if it is frozen and downloadable."""
    weights = dict(bridge.model.state_dict())
    if bridge.config.mode is VlmMode.LORA:
        return {key: value for key, value in weights.items() if 'lora_' in key}
    # The tiny VLM has random weights and cannot be downloaded, so it is saved.
    ours = bridge.config.mode is VlmMode.FULL or bridge.config.name == TINY_VLM
    return weights if ours else None


def load_vlm_weights(bridge: VlmBridge, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load tuned weights into the VLM; weights of unused layers (after the last tap) are ignored.

    Raises:
        CheckpointError: weights are missing, unexpected, of another shape, or duplicate; the message names them.
    """
    try:
        given = vlm_names(weights)
    except ValueError as error:
        raise CheckpointError(f'the VLM weights of {source} are ambiguous: {error}') from error
    used = {key: value for key, value in given.items() if not _never_run(key, bridge.decoder_layers)}
    expected = bridge.model.state_dict()
    if any('lora_' in key for key in used):
        expected = {key: value for key, value in expected.items() if 'lora_' in key or key in used}
    _check_weights(expected, used, source=f'the VLM weights of {source}')
    _copy(bridge.model, used)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load ``weights`` into ``module``; the names must match exactly.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape; the message names them.
    """
    _check_weights(module.state_dict(), weights, source=source)
    _copy(module, weights)


def _check_weights(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], *, source: str) -> None:
    problems = [*_lines('missing', set(expected) - set(got)), *_lines('unexpected', set(got) - set(expected))]
    problems += [f'{key}: shape {tuple(got[key].shape)}, expected {tuple(expected[key].shape)}'
                 for key in sorted(set(expected) & set(got)) if expected[key].shape != got[key].shape]
    if problems:
        raise CheckpointError(f'{source} does not fit the model:\n  ' + '\n  '.join(problems)
                              + '\nUse a checkpoint of this stage and size, trained over the same VLM')


def _lines(what: str, keys: Iterable[str]) -> list[str]:
    names = sorted(keys)
    shown = [f'{what}: {name}' for name in names[:10]]
    return shown + ([f'{what}: {len(names) - 10} more'] if len(names) > 10 else [])


def _copy(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    targets = module.state_dict()
    with torch.no_grad():
        for key, value in weights.items():
            targets[key].copy_(value)


def _mode(checkpoint: Checkpoint) -> VlmMode:
    if checkpoint.vlm is not None:
        return checkpoint.vlm.mode
    adapted = any('lora_' in key for key in checkpoint.vlm_weights or ())
    return VlmMode.LORA if adapted else VlmMode.FROZEN


def _never_run(key: str, layers: int) -> bool:
    """Return whether a weight belongs to a decoder layer after the first ``layers``, or to the unused head."""
    layer = DECODER_LAYER.match(key)
    behind = layer is not None and int(layer.group(1)) >= layers
    return behind or key.startswith(UNUSED_NORM) or LANGUAGE_HEAD.search(key) is not None
