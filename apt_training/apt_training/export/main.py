"""``apt-pack``: a checkpoint as one folder that needs nothing else.

    apt-pack out/runs/robot_vla --out my_policy

A checkpoint over a VLM in a local folder works only where that folder is. Packed, the VLM travels along, and so does
the recipe. The averaged weights are taken where the run has them. ``--half`` keeps bfloat16 only: half the size, for
inference; whoever loads it computes in what the configuration says all the same.
"""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from apt_policy.core.atomic import atomic_folder
from apt_policy.model.checkpoint import BESIDE, Checkpoint, CheckpointError, read_checkpoint, save_checkpoint
from apt_policy.model.config import PolicyConfig, VlmConfig
from apt_policy.model.restore import build_policy
from apt_policy.model.vlm.load import VlmError
from apt_training.train.provenance import RECIPE_FILE
from apt_training.train.run_folder import RunFolder, SaveError

log = logging.getLogger('apt_training.export')

VLM_FOLDER = 'vlm'
Kept = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
# transformers reads only files that say what wrote them.
_FROM_TORCH = {'format': 'pt'}
_VLM_FILES = ('*.json', '*.safetensors', '*.jinja', '*.txt')


def main(words: Sequence[str] | None = None) -> int:
    """Pack; the exit status: 0, or 2 for a checkpoint that cannot be used."""
    options = _parser().parse_args(words)
    logging.basicConfig(format='apt-pack: %(message)s', level=logging.INFO, stream=sys.stderr)
    logging.getLogger('httpx').setLevel(logging.WARNING)
    try:
        size = pack(options.checkpoint, options.out, half=options.half)
    except (CheckpointError, VlmError, SaveError, OSError, ValueError) as error:
        log.error('%s', error)
        return 2
    log.info('%s, %.1f MB', options.out, size / 1e6)
    return 0


def pack(source: Path, out: Path, *, half: bool = False) -> int:
    """Write the folder ``out``, whole or not at all; its size [B].

    Raises:
        CheckpointError, VlmError: it cannot be used.
        SaveError: the run's folder was damaged.
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
    """Of a run's folder, the averaged weights of its newest checkpoint where there are any."""
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
    """Of the run; its VLM is the one in ``folder`` now, if one is there."""
    for file in (source / RECIPE_FILE, source.parent / RECIPE_FILE):
        if file.is_file():
            recipe = json.loads(file.read_text())
            if (folder / VLM_FOLDER).is_dir():
                recipe['vlm']['name'] = BESIDE + VLM_FOLDER
            (folder / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + '\n')
            return


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-pack', description='A checkpoint as one folder that needs nothing else.')
    parser.add_argument('checkpoint', type=Path, help='folder of a run or of a checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder to write; it must not hold anything yet')
    parser.add_argument('--half', action='store_true', help='keep weights in bfloat16: half the size, for inference')
    return parser


if __name__ == '__main__':
    sys.exit(main())
