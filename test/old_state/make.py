"""Make the fixtures of this folder, with the programs of commit 402c6d8 and no others.

    git worktree add /tmp/old 402c6d8 && cd /tmp/old && make build && source scripts/env.sh
    python REPOSITORY/test/old_state/make.py

It refuses to run with another version: what it makes would not be old. Imports are those of that version, so this
file is not to follow modules that are renamed.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import h5py
import mujoco
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
VERSION = '402c6d8e3065'
ROBOT = ('--contract', 'contract/robot.yaml')
COLLECT = ('apt-sim-data', *ROBOT, '--skills', 'pick', '--episodes', '2', '--bags', '2', '--jobs', '1')
CONVERT = ('apt-convert', *ROBOT, '--jobs', '1', '--no-sheet')
FRESH = ('apt-train', '--config', 'debug', '--stage', '1', '--no-load-from-va', '--data', 'demonstrations', *ROBOT,
         '--workers', '0', '--bs', '2', '--log-every', '1', '--ckpt_dir', 'runs')
# Where a run has begun, it is gone on with, and the start is not read.
TRAIN = (*FRESH, '--gpus', '2', '--no-augment', '--feature-cache', 'features', '--pretrained-ckpt', 'runs/start',
         '--max-iter', '6', '--vla-conti', '--vla-name')
EVALUATE = ('apt-eval', '--frames', '2', '--samples', '2', '--probe', '0', '--device', 'cpu', '--json')
SCENE = """<mujoco><worldbody><light pos="0 0 2"/><geom type="plane" size="1 1 .1" rgba=".4 .5 .6 1"/>
<body pos="0 0 .3"><freejoint/><geom type="box" size=".1 .15 .05" euler="20 30 0" rgba=".8 .2 .1 1"/></body>
</worldbody></mujoco>"""
SHARE = 12
"""One channel in so many keeps its weights: the rest is zero, and stays zero in training, so that it compresses."""


def main() -> None:
    """Make all of it in an empty folder, and pack it beside this file."""
    from apt_training.train.provenance import git_revision
    if git_revision() != VERSION:
        sys.exit(f'make.py: the programs here are of {git_revision() or "an unknown version"}, expected {VERSION}')
    with tempfile.TemporaryDirectory() as folder:
        # Relative paths, so that no machine's are in the fixtures.
        os.chdir(folder)
        shutil.copytree(HERE / 'contract', 'contract')
        expected = {'machine': machine(), 'contract': contract(), **recordings(), **training(), **packed()}
        done_marks()
        (HERE / 'expected.json').write_text(json.dumps(expected, indent=1, sort_keys=True) + '\n')


def machine() -> dict[str, str]:
    """What decides the last bits of sums and of pictures: where it differs, results are the same but for rounding."""
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(48, 192, generator=random) for _ in range(2))
    attended = torch.softmax(left @ right.T, -1) @ torch.nn.functional.silu(right)
    sums = torch.nn.functional.layer_norm(attended, (192,)).numpy().tobytes()
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 200)
    with mujoco.Renderer(model, 32, 32) as renderer:
        renderer.update_scene(data)
        picture = renderer.render().tobytes() + data.qpos.tobytes()
    libraries = f'mujoco {mujoco.__version__}, OpenCV {cv2.__version__}, HDF5 {h5py.version.hdf5_version}'
    return {'sums': f'torch {torch.__version__}, {hashlib.sha256(sums).hexdigest()}',
            'pictures': f'{libraries}, {hashlib.sha256(picture).hexdigest()}'}


def contract() -> dict[str, Any]:
    """What the user's overlay came to."""
    from apt_policy.core.contract import contract_to_dict, load_contract
    return contract_to_dict(load_contract('contract/robot.yaml'))


def recordings() -> dict[str, Any]:
    """Episodes, bags, and both commands that make episodes, whole and interrupted."""
    run(*COLLECT, '--out', 'demonstrations')
    interrupt([*COLLECT, '--out', 'collection'], signal.SIGINT, 130,
              when=lambda: Path('collection/bags/episode_000000/metadata.yaml').exists(),
              good=lambda: not Path('collection/episode_000001.h5').exists())
    run(*CONVERT, 'demonstrations/bags', '--out', 'converted')
    interrupt([*CONVERT, 'demonstrations/bags', '--out', 'conversion'], signal.SIGTERM, 130,
              when=lambda: Path('conversion/episode_000000_0000.h5').exists(),
              good=lambda: not Path('conversion/episode_000001_0000.h5').exists())
    pack('recordings', ['demonstrations', 'collection', 'converted', 'conversion'])
    return {'collection': digests('demonstrations'), 'conversion': digests('converted')}


def training() -> dict[str, Any]:
    """A run of two processes over a feature cache, whole and interrupted; both must end alike."""
    run(*FRESH, '--gpus', '0', '--max-iter', '1', '--vla-name', 'first')
    shutil.copytree('runs/first/iter_000001', 'runs/start')
    for name in ('expert', 'vlm'):
        thin(Path(f'runs/start/{name}.safetensors'))
    run(*TRAIN, 'whole')
    interrupt([*TRAIN, 'robot'], signal.SIGTERM, 75, says='robot 3/6',
              good=lambda: Path('runs/robot/latest').read_text().strip() in ('iter_000003', 'iter_000004'))
    shutil.copytree('runs/robot', 'kept')
    shutil.copytree('runs/logs/robot', 'kept_logs')
    run(*TRAIN, 'robot')
    weights = [Path(f'runs/{name}/iter_000006/expert.safetensors').read_bytes() for name in ('robot', 'whole')]
    assert weights[0] == weights[1], 'the old programs did not go on to the same bits'
    replace_folder('kept', 'runs/robot')
    replace_folder('kept_logs', 'runs/logs/robot')
    losses = [json.loads(line)['losses'] for line in Path('runs/logs/whole/metrics.jsonl').read_text().splitlines()]
    pack('training', ['runs/robot', 'runs/logs/robot', 'runs/whole/iter_000006/expert.safetensors', 'features'])
    return {'losses': losses, 'robot': evaluated('runs/robot')}


def packed() -> dict[str, Any]:
    """A checkpoint over a VLM in a local folder, in the form that travels."""
    shutil.copytree(share() / 'checkpoints' / 'aloha_small' / 'vlm', 'vlm')
    thin(Path('vlm/model.safetensors'))
    run(*FRESH, '--gpus', '0', '--max-iter', '1', '--vlm', 'vlm', '--vla-name', 'local')
    thin(Path('runs/local/iter_000001/expert.safetensors'))
    run('apt-pack', 'runs/local', '--out', 'packed', '--half')
    pack('packed', ['packed'])
    return {'packed': evaluated('packed')}


def done_marks() -> None:
    """What ``make tutorial`` and ``make study`` note of steps that are done; programs that do nothing did them."""
    from apt_bringup.steps.runner import Runner

    from apt_bringup.study import plan as study
    from apt_bringup.tutorial import plan as tutorial
    marks = {}
    for name, phases in steps_of(tutorial, study).items():
        for step in (step for phase in phases for step in phase):
            step.product.mkdir(parents=True, exist_ok=True)
        idle = [tuple(replace(step, module='this') for step in phase) for phase in phases]
        assert Runner(name, Path('out') / name, Console(quiet=True), Event()).run(idle) == 0
        marks[name] = {mark.name: mark.read_text() for mark in sorted(Path('out', name, '.done').iterdir())}
    (HERE / 'done.json').write_text(json.dumps(marks, indent=1) + '\n')


def steps_of(tutorial: Any, study: Any) -> dict[str, Any]:
    """The phases of both works by their names; ``tutorial`` and ``study`` are the modules of the plans."""
    small = replace(study.QUICK, seeds=1)
    setting = study.Setting(out=Path('out/study'), contract=Path('config/aloha_small.yaml'), sizes=small)
    lessons = tutorial.steps(Path('out/tutorial'), Path('config/aloha_tutorial.yaml'), tutorial.Sizes(speed=1.0))
    return {'tutorial': [(step,) for step in lessons], 'study': study.steps(setting, jobs=2)}


def evaluated(checkpoint: str) -> dict[str, Any]:
    """Errors of a checkpoint on an episode."""
    run(*EVALUATE, 'evaluation.json', checkpoint, 'demonstrations/episode_000000.h5')
    return dict(json.loads(Path('evaluation.json').read_text())['overall'])


def thin(file: Path) -> None:
    """Zero the weights of all but one channel in :data:`SHARE`; scales of norms stay."""
    weights = load_file(file)
    for name, value in weights.items():
        if value.ndim > 1 or not bool((value == 1).all()):
            kept = tuple(slice(0, -(-size // SHARE) if size > 16 else size) for size in value.shape)
            thinned = torch.zeros_like(value)
            thinned[kept] = value[kept]
            weights[name] = thinned
    save_file(weights, file, metadata={'format': 'pt'})


def run(*command: str) -> None:
    """Run a program to its good end."""
    subprocess.run(command, check=True)


def interrupt(command: Sequence[str], which: signal.Signals, status: int, *, good: Callable[[], bool],
              when: Callable[[], bool] | None = None, says: str = '') -> None:
    """Run a program until it has done, or said, something; signal it then."""
    # What a shell starts in the background does not hear Ctrl-C otherwise.
    process = subprocess.Popen(['env', '--default-signal=INT', *command], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    if when is None:
        next((line for line in process.stdout if says in line), None)
    while when is not None and process.poll() is None and not when():
        time.sleep(0.001)
    process.send_signal(which)
    said, _ = process.communicate()
    assert process.returncode == status and good(), f'{command[0]} was not caught half way; try again\n{said}'


def digests(folder: str) -> dict[str, str]:
    """Of every episode file and everything of the bags."""
    files = sorted(file for file in Path(folder).rglob('*') if file.suffix in ('.h5', '.mcap', '.yaml'))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def pack(name: str, folders: Sequence[str]) -> None:
    """Into an archive beside this file; hidden folders too."""
    with tarfile.open(HERE / f'{name}.tar.xz', 'w:xz', preset=9) as archive:
        for folder in folders:
            archive.add(folder, filter=_anonymous)


def replace_folder(source: str, target: str) -> None:
    """Put a folder in the place of another."""
    shutil.rmtree(target)
    os.rename(source, target)


def share() -> Path:
    """What is installed beside the launch files."""
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('apt_bringup'))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ''
    return member


if __name__ == '__main__':
    main()
