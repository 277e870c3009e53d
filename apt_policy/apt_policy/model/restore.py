"""From a checkpoint to a working policy and back: every weight accounted for by name.

What the files look like is ``checkpoint``'s, how a prior becomes a VLA ``stages``'.
"""

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
"""Behind the last decoder layer."""
DECODER_LAYER = re.compile(r'^language_model\.layers\.(\d+)\.')


def build_expert(checkpoint: Checkpoint) -> Expert:
    """The expert with the checkpoint's weights, on the CPU.

    Raises:
        CheckpointError: naming weights that are missing, unexpected or of another shape.
    """
    expert = Expert(checkpoint.expert)
    load_weights(expert, checkpoint.weights, source=checkpoint.source)
    return expert


def build_policy(checkpoint: Checkpoint, *, device: torch.device, vlm: VlmConfig | None = None) -> Policy:
    """The whole policy.

    Args:
        checkpoint: as read.
        device: where it will run.
        vlm: over which VLM; needed where the checkpoint does not say (a published file), and
            otherwise only to find it elsewhere. Whether it learned is the checkpoint's to say.

    Raises:
        CheckpointError: weights do not fit, or the VLM is not the one trained with.
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
    """Write ``policy`` as a checkpoint folder, see :func:`save_checkpoint`."""
    save_checkpoint(folder, weights=policy.expert.state_dict(), vlm_weights=vlm_weights(policy.vlm),
                    config=policy.config, contract=contract, iteration=iteration, git_revision=git_revision)


def vlm_weights(bridge: VlmBridge) -> dict[str, Tensor] | None:
    """The VLM's weights that nobody else has; None where it is frozen and downloadable."""
    weights = dict(bridge.model.state_dict())
    if bridge.config.mode is VlmMode.LORA:
        return {key: value for key, value in weights.items() if 'lora_' in key}
    # A random VLM cannot be downloaded: it travels along.
    ours = bridge.config.mode is VlmMode.FULL or bridge.config.name == TINY_VLM
    return weights if ours else None


def load_vlm_weights(bridge: VlmBridge, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put tuned weights into the VLM; what it never runs (layers behind the last tap) is passed over.

    Raises:
        CheckpointError: naming weights that are missing, unexpected, of another shape, or twice there.
    """
    try:
        given = vlm_names(weights)
    except ValueError as error:
        raise CheckpointError(f'the VLM weights of {source} cannot be told apart: {error}') from error
    used = {key: value for key, value in given.items() if not _never_run(key, bridge.decoder_layers)}
    expected = bridge.model.state_dict()
    if any('lora_' in key for key in used):
        expected = {key: value for key, value in expected.items() if 'lora_' in key or key in used}
    _check_weights(expected, used, source=f'the VLM weights of {source}')
    _copy(bridge.model, used)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put ``weights`` into ``module``, all of them and nothing else.

    Raises:
        CheckpointError: naming weights that are missing, unexpected or of another shape.
    """
    _check_weights(module.state_dict(), weights, source=source)
    _copy(module, weights)


def _check_weights(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], *, source: str) -> None:
    problems = [*_lines('missing', set(expected) - set(got)), *_lines('unexpected', set(got) - set(expected))]
    problems += [f'{key}: shape {tuple(got[key].shape)}, expected {tuple(expected[key].shape)}'
                 for key in sorted(set(expected) & set(got)) if expected[key].shape != got[key].shape]
    if problems:
        raise CheckpointError(f'{source} does not fit the model:\n  ' + '\n  '.join(problems)
                              + '\nUse a checkpoint of this stage and size, made over the same VLM')


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
    """Whether a weight lies behind the last of ``layers`` decoder layers that are run."""
    layer = DECODER_LAYER.match(key)
    behind = layer is not None and int(layer.group(1)) >= layers
    return behind or key.startswith(UNUSED_NORM) or LANGUAGE_HEAD.search(key) is not None
