"""The steps of the tutorial: which command makes what, from which other things.

Words only. It runs nothing, and knows each command as its user would type it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from apt_demos.steps.step import Step

# Rendering, physics, bridge, demonstrator and recorder at once; a hand that is commanded in hiccups drops things.
_CORES_FOR_REAL_TIME = 4
# The frozen VLM sees each picture once, and each of its answers serves eight noise draws.
_QUICK = ('--no-augment', '--noise-samples', '8', '--lr', '0.002')
TRAINING, HELD_OUT = 'training', 'held_out'


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything: small enough for a quarter of an hour on two cores."""

    episodes: int = 10
    held_out: int = 2
    iterations: int = 300
    """Per stage."""
    watch_s: float = 8.0
    """How long the policy runs at the end, on the robot's clock."""
    speed: float = field(default_factory=lambda: min(1.0, len(os.sched_getaffinity(0)) / _CORES_FOR_REAL_TIME))
    """Simulated seconds per second while recording."""


def steps(out: Path, contract: Path, sizes: Sizes) -> tuple[Step, ...]:
    """Everything from an empty folder to a policy that runs.

    Args:
        out: folder of all products.
        contract: of the simulated robot.
    """
    runs = out / 'runs'
    checkpoint = runs / 'tutorial_vla' / f'iter_{sizes.iterations:06d}'
    return (
        _recording(out, contract, sizes, TRAINING, sizes.episodes, seed=0),
        # Scenes that training never sees.
        _recording(out, contract, sizes, HELD_OUT, sizes.held_out, seed=10_000),
        _conversion(out, contract, TRAINING),
        _conversion(out, contract, HELD_OUT),
        Step(name='train', why='stage 0 learns to move without language, stage 1 to move as it is told',
             typed='apt-train', module='apt_training.train.main', product=checkpoint, words=(
                 '--config', 'tutorial', '--stage', 'both', '--data', str(out / 'episodes' / TRAINING),
                 '--contract', str(contract), '--gpus', '0', '--max-steps', str(sizes.iterations), *_QUICK,
                 '--feature-cache', str(out / 'features'),
                 '--ckpt-dir', str(runs), '--va-name', 'tutorial_va', '--vla-name', 'tutorial_vla',
                 '--va-conti', '--vla-conti')),
        Step(name='evaluate', why='how far predictions are from what was demonstrated in scenes never seen',
             typed='apt-eval', module='apt_training.evaluate.main', product=out / 'evaluation.json', words=(
                 str(checkpoint), str(out / 'episodes' / HELD_OUT), '--json', str(out / 'evaluation.json'),
                 '--plots', str(out / 'evaluation'))),
        Step(name='run', why='the node drives the simulated robot with what was learned',
             typed='python -m apt_demos.demo.main', module='apt_demos.demo.main', product=out / 'run', words=(
                 '--checkpoint', str(checkpoint), '--contract', str(contract), '--seconds', f'{sizes.watch_s:g}',
                 '--prompt', 'pick up the red cube', '--out', str(out / 'run'))))


def _recording(out: Path, contract: Path, sizes: Sizes, name: str, episodes: int, *, seed: int) -> Step:
    folder = out / 'bags' / name
    return Step(
        name=f'record {name}', why=f'{episodes} scripted demonstrations in simulation become a rosbag2 bag',
        typed='python -m apt_demos.tutorial.recording', module='apt_demos.tutorial.recording', product=folder,
        words=(str(folder), '--contract', str(contract), '--episodes', str(episodes), '--seed', str(seed),
               '--speed', f'{sizes.speed:g}'))


def _conversion(out: Path, contract: Path, name: str) -> Step:
    folder = out / 'episodes' / name
    return Step(
        name=f'convert {name}', why='the bag becomes one HDF5 file per episode', typed='apt-convert',
        module='apt_training.convert.main', product=folder,
        words=(str(out / 'bags' / name), '--contract', str(contract), '--out', str(folder)))
