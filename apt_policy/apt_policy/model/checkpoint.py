"""Checkpoints on disk: the suite's folders, and the published ``ckpt_latest.pt``.

A folder contains ``checkpoint.json`` (model configuration, the robot contract's facts that
the weights depend on, stage, iteration, git revision), ``expert.safetensors``, and
``vlm.safetensors`` if the VLM cannot be downloaded. It may also contain a whole VLM: a VLM named
``./...`` is searched in the checkpoint's folder. A published file is a dict of tensors under
``weights``, ``vlm_weights`` if tuned, ``current_iters``, and ``ema`` if an average was kept; see
``published``. Reading never runs pickled code. ``restore`` builds a model from a checkpoint.
"""

import json
import logging
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from apt_policy.core.atomic import atomic_folder, backup_path
from apt_policy.core.contract import mismatches
from apt_policy.core.errors import UserError
from apt_policy.model.config import (
    ExpertConfig,
    PolicyConfig,
    TrainingStage,
    VlmConfig,
    expert_config_from_weights,
    policy_config_from_dict,
    policy_config_to_dict,
)
from apt_policy.model.published import averaged_weights, expert_names, numpy_numbers
from apt_policy.moved import current_checkpoint

log = logging.getLogger(__name__)

FORMAT = 'apt-policy-checkpoint/1'
FACTS_FILE, EXPERT_FILE, VLM_FILE = 'checkpoint.json', 'expert.safetensors', 'vlm.safetensors'
BESIDE = './'
"""Prefix of the name of a VLM inside the checkpoint's folder."""
LATEST_FILE = 'latest'
"""File in the folder of a training run that contains the name of its newest complete checkpoint."""


class CheckpointError(UserError, ValueError):
    """Error of a checkpoint that cannot be used; the message gives what was found, what was expected, and the fix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Content of a checkpoint, on the CPU."""

    source: str
    weights: Mapping[str, Tensor]
    """State dict of the expert."""
    vlm_weights: Mapping[str, Tensor] | None
    """State dict of the VLM if it was tuned, else None."""
    expert: ExpertConfig
    vlm: VlmConfig | None
    """None for a published file, which does not name its VLM."""
    contract: Mapping[str, Any] | None
    """``RobotContract.policy_facts()`` of the training data; None for a published file."""
    iteration: int
    git_revision: str

    def require_stage(self, stage: TrainingStage) -> None:
        """Check that the weights are of ``stage``.

        Raises:
            CheckpointError: they are of another stage.
        """
        if self.expert.stage is not stage:
            raise CheckpointError(f'{self.source} holds a {self.expert.stage.value}, expected a '
                                  f'{stage.value}; give a checkpoint of that stage, or train one from the prior')

    def require_contract(self, facts: Mapping[str, Any]) -> None:
        """Check that the weights were trained for the robot with these facts; a published file, which has none, passes.

        Raises:
            CheckpointError: a fact differs; the message names each one.
        """
        if self.contract is None:
            return
        differing = mismatches(self.contract, facts)
        if differing:
            raise CheckpointError(f'{self.source} was trained for another robot:\n  '
                                  + '\n  '.join(differing)
                                  + '\nUse the contract it was trained with, or fine-tune it for this robot')


def read_checkpoint(path: str | Path, *, use_ema: bool = False) -> Checkpoint:
    """Read a checkpoint folder, the newest checkpoint of a training run, or a published file.

    Args:
        path: checkpoint folder, folder of a training run, or published file.
        use_ema: read the exponential moving average of the weights instead: a published file's ``ema``, or the
            ``_ema`` folder beside the checkpoint.

    Raises:
        CheckpointError: the checkpoint is absent, corrupt, contains code, or lacks the requested average.
    """
    path = current_checkpoint(path)
    if path.is_file():
        return _read_published(path, use_ema=use_ema)
    path = _newest_of_run(path)
    if use_ema:
        path = _average_beside(path)
    for folder in (path, backup_path(path)):
        if folder.is_dir():
            return _read_folder(folder)
    raise CheckpointError(f'there is no checkpoint at {path}; give a folder with a {FACTS_FILE}, the folder '
                          'of a training run, or a ckpt_latest.pt')


def save_checkpoint(folder: str | Path, *, weights: Mapping[str, Tensor],
                    vlm_weights: Mapping[str, Tensor] | None, config: PolicyConfig,
                    contract: Mapping[str, Any], iteration: int, git_revision: str) -> None:
    """Write a checkpoint folder atomically.

    It is written beside the target and renamed; after an error an older checkpoint of that name
    stays readable.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    folder = Path(folder)
    facts = {'format': FORMAT, 'model': policy_config_to_dict(config), 'contract': dict(contract),
             'stage': config.expert.stage.value, 'iteration': iteration, 'git_revision': git_revision}
    with atomic_folder(folder, overwrite=True, durable=True) as fresh:
        fresh.mkdir()
        _save_tensors(weights, fresh / EXPERT_FILE)
        if vlm_weights is not None:
            _save_tensors(vlm_weights, fresh / VLM_FILE)
        (fresh / FACTS_FILE).write_text(json.dumps(facts, indent=2) + '\n')


def ema_path(folder: Path) -> Path:
    """Return the folder of the exponential moving average of the weights in ``folder``."""
    return folder.with_name(f'{folder.name}_ema')


def _average_beside(folder: Path) -> Path:
    average = ema_path(folder)
    if not average.is_dir():
        raise CheckpointError(f'{folder} has no averaged weights: there is no {average.name} beside it. Give a '
                              'checkpoint of a run that saves averages, or use_ema=False')
    return average


def _save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, file)


def _newest_of_run(path: Path) -> Path:
    """Return the newest checkpoint of a run's folder, or ``path`` itself if it is another folder."""
    pointer = path / LATEST_FILE
    if not pointer.is_file():
        return path
    name = pointer.read_text().strip()
    if Path(name).name != name or not (path / name).is_dir():
        raise CheckpointError(f'{pointer} names {name!r}, but there is no such checkpoint; give one of the folders '
                              f'in {path}')
    return path / name


def _read_folder(folder: Path) -> Checkpoint:
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        if facts.get('format') != FORMAT:
            raise CheckpointError(f'{folder} has format {facts.get("format")!r}, expected {FORMAT!r}; load it with the '
                                  f'version of the suite that wrote it (revision {facts.get("git_revision")!r})')
        config = policy_config_from_dict(facts['model'])
        weights = load_file(folder / EXPERT_FILE)
        vlm_weights = load_file(folder / VLM_FILE) if (folder / VLM_FILE).exists() else None
        return Checkpoint(source=str(folder), weights=weights, vlm_weights=vlm_weights,
                          expert=config.expert, vlm=_found_from(folder, config.vlm), contract=facts['contract'],
                          iteration=int(facts['iteration']), git_revision=str(facts['git_revision']))
    except FileNotFoundError as error:
        raise CheckpointError(f'{folder} is not a complete checkpoint, a file is missing: {error}; '
                              'copy the whole folder') from error
    except (SafetensorError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f'{folder} is corrupt: {type(error).__name__}: {error}; '
                              'copy it again or use an older checkpoint') from error


def _found_from(folder: Path, vlm: VlmConfig) -> VlmConfig:
    beside = folder / vlm.name
    # The user may also have given a relative path of that form.
    ours = vlm.name.startswith(BESIDE) and (beside.is_dir() or not Path(vlm.name).is_dir())
    return replace(vlm, name=str(beside)) if ours else vlm


def _read_published(path: Path, *, use_ema: bool) -> Checkpoint:
    content = _unpickle_tensors(path)
    weights = content.get('weights') if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} holds {held}; a published checkpoint has its weights under 'weights'")
    try:
        weights = expert_names(weights)
        expert = expert_config_from_weights(weights)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the 'weights' of {path} are not those of an APT expert: {error}") from error
    vlm_weights = content.get('vlm_weights')
    if use_ema:
        weights, vlm_weights = _averaged(path, content.get('ema'), weights, vlm_weights)
    elif content.get('ema') is not None:
        log.warning("%s also contains averaged weights under 'ema', which are not used; set use_ema to use them", path)
    return Checkpoint(source=str(path), weights=weights, vlm_weights=vlm_weights,
                      expert=expert, vlm=None, contract=None,
                      iteration=int(content.get('current_iters', 0)), git_revision='')


def _averaged(path: Path, ema: Any, weights: Mapping[str, Tensor], vlm_weights: Mapping[str, Tensor] | None,
              ) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    if ema is None:
        raise CheckpointError(f"{path} has no averaged weights: it holds no 'ema'. Give a file that has it, or "
                              'use_ema=False')
    try:
        return averaged_weights(ema, weights, vlm_weights)
    except ValueError as error:
        raise CheckpointError(f'the averaged weights of {path} cannot be used: {error}; use_ema=False uses the '
                              'other weights') from error


def _unpickle_tensors(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(numpy_numbers()):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split('\n')[0]
        if 'nsupported' in str(error):
            raise CheckpointError(f'{path} contains pickled code, which is never run: {reason}\n'
                                  'Ask for a file that holds tensors, numbers and text only') from error
        raise CheckpointError(f'{path} is corrupt: {reason}; copy it again') from error
    # For arbitrary bytes torch's unpickler raises any of these.
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError,
            struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'{path} is corrupt: {reason}; copy it again') from error
