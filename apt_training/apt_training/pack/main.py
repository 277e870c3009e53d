"""``apt-pack``: a checkpoint as one folder that needs nothing else.

    apt-pack out/runs/robot_vla --out my_policy

A checkpoint over a VLM in a local folder works only where that folder is. Packed, the VLM travels along, and so does
the recipe. The averaged weights are taken where the run has them.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from apt_policy.model.checkpoint import BESIDE, Checkpoint, CheckpointError, read_checkpoint, save_checkpoint
from apt_policy.model.config import PolicyConfig, VlmConfig
from apt_policy.model.restore import build_policy
from apt_policy.model.vlm_load import VlmError
from apt_training.train.provenance import RECIPE_FILE
from apt_training.train.saving import RunFolder, SaveError

log = logging.getLogger('apt_training.pack')

VLM_FOLDER = 'vlm'
_VLM_FILES = ('*.json', '*.safetensors', '*.jinja', '*.txt')


def main(words: Sequence[str] | None = None) -> int:
    """Pack; the exit status: 0, or 2 for a checkpoint that cannot be used."""
    options = _parser().parse_args(words)
    logging.basicConfig(format='apt-pack: %(message)s', level=logging.INFO, stream=sys.stderr)
    logging.getLogger('httpx').setLevel(logging.WARNING)
    try:
        size = pack(options.checkpoint, options.out)
    except (CheckpointError, VlmError, SaveError, OSError, ValueError) as error:
        log.error('%s', error)
        return 2
    log.info('%s, %.1f MB', options.out, size / 1e6)
    return 0


def pack(source: Path, out: Path) -> int:
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
    partial = out.with_name(f'.{out.name}.packing')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(checkpoint, partial)
        for recipe in (source / RECIPE_FILE, source.parent / RECIPE_FILE):
            if recipe.is_file():
                shutil.copy(recipe, partial)
                break
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(file.stat().st_size for file in out.rglob('*') if file.is_file())


def _best_of(source: Path) -> Path:
    """Of a run's folder, the averaged weights of its newest checkpoint where there are any."""
    latest = RunFolder(source).latest()
    if latest is not None and RunFolder(source).average(latest).is_dir():
        return RunFolder(source).average(latest)
    return source


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    vlm = checkpoint.vlm or VlmConfig()
    beside = Path(vlm.name)
    local = beside.is_dir()
    config = PolicyConfig(expert=checkpoint.expert, vlm=replace(vlm, name=BESIDE + VLM_FOLDER) if local else vlm)
    save_checkpoint(folder, weights=checkpoint.weights, vlm_weights=checkpoint.vlm_weights, config=config,
                    contract=checkpoint.contract or {}, iteration=checkpoint.iteration,
                    git_revision=checkpoint.git_revision)
    if local:
        (folder / VLM_FOLDER).mkdir()
        for pattern in _VLM_FILES:
            for file in sorted(beside.glob(pattern)):
                shutil.copy(file, folder / VLM_FOLDER)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='apt-pack', description='A checkpoint as one folder that needs nothing else.')
    parser.add_argument('checkpoint', type=Path, help='folder of a run or of a checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder to write; it must not hold anything yet')
    return parser


if __name__ == '__main__':
    sys.exit(main())
