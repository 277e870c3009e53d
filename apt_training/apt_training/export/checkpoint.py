"""Exported checkpoints: a policy, its recipe and its VLM in one folder.

A checkpoint over a VLM in a local folder works only where that folder is. An exported one contains the VLM. With
bfloat16 weights it takes half the space; the computation follows the configuration all the same.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from apt_policy.core.atomic import atomic_folder
from apt_policy.model.checkpoint import BESIDE, Checkpoint, read_checkpoint, save_checkpoint
from apt_policy.model.config import PolicyConfig, VlmConfig
from apt_policy.model.restore import build_policy
from apt_training.train.provenance import RECIPE_FILE
from apt_training.train.run_folder import RunFolder

log = logging.getLogger('apt_training.export')

VLM_FOLDER = 'vlm'
Kept = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
# transformers reads only files that say what wrote them.
_FROM_TORCH = {'format': 'pt'}
_VLM_FILES = ('*.json', '*.safetensors', '*.jinja', '*.txt')


def export_checkpoint(source: Path, out: Path, *, half: bool = False) -> int:
    """Write a checkpoint to the folder ``out``, whole or not at all.

    Args:
        source: folder of a run or of a checkpoint.
        out: folder to write.
        half: keep weights in bfloat16.

    Returns:
        Size of the folder [B].

    Raises:
        CheckpointError: the checkpoint cannot be used.
        VlmError: its VLM cannot be used.
        SaveError: the run's folder is damaged.
        FileExistsError: ``out`` holds something.
        OSError: the disk is full.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out} is not empty; choose another folder, or remove it first')
    checkpoint = read_checkpoint(_best_of(source))
    build_policy(checkpoint, device=torch.device('cpu'))
    with atomic_folder(out, overwrite=False) as fresh:
        _write(checkpoint, fresh, _halved if half else dict)
        _copy_recipe(source, fresh)
    return sum(file.stat().st_size for file in out.rglob('*') if file.is_file())


def _best_of(source: Path) -> Path:
    """Return the averaged weights of a run's newest checkpoint where there are any, else ``source``."""
    latest = RunFolder(source).latest_iteration()
    if latest is not None and RunFolder(source).ema_folder(latest).is_dir():
        return RunFolder(source).ema_folder(latest)
    return source


def _write(checkpoint: Checkpoint, folder: Path, kept: Kept) -> None:
    vlm = checkpoint.vlm or VlmConfig()
    beside = Path(vlm.name)
    local = beside.is_dir()
    config = PolicyConfig(expert=checkpoint.expert, vlm=replace(vlm, name=BESIDE + VLM_FOLDER) if local else vlm)
    save_checkpoint(folder, weights=kept(checkpoint.weights), config=config,
                    vlm_weights=None if checkpoint.vlm_weights is None else kept(checkpoint.vlm_weights),
                    contract=checkpoint.contract or {}, iteration=checkpoint.iteration,
                    git_revision=checkpoint.git_revision)
    if local:
        (folder / VLM_FOLDER).mkdir()
        for pattern in _VLM_FILES:
            for file in sorted(beside.glob(pattern)):
                if file.suffix == '.safetensors':
                    save_file(kept(load_file(file)), folder / VLM_FOLDER / file.name, metadata=_FROM_TORCH)
                else:
                    shutil.copy(file, folder / VLM_FOLDER)


def _copy_recipe(source: Path, folder: Path) -> None:
    """Copy the recipe of the run, and name the VLM in ``folder`` if there is one."""
    for file in (source / RECIPE_FILE, source.parent / RECIPE_FILE):
        if file.is_file():
            recipe = json.loads(file.read_text())
            if (folder / VLM_FOLDER).is_dir():
                recipe['vlm']['name'] = BESIDE + VLM_FOLDER
            (folder / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + '\n')
            return


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}
