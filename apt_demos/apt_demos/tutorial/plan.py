"""Steps of the tutorial: commands as a user types them, with their inputs and outputs."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from apt_demos.steps.step import CommandStep

# Rendering, physics, bridge, demonstrator and recorder run at once; a hand drops objects if commands are delayed.
_CORES_FOR_REAL_TIME = 4
# The frozen VLM encodes each image once, and each feature serves eight noise samples.
_QUICK = ('--no-augment', '--noise-samples', '8', '--lr', '0.002')
TRAINING, HELD_OUT = 'training', 'held_out'


@dataclass(frozen=True, kw_only=True)
class TutorialConfig:
    """Sizes of the tutorial; the defaults take a quarter of an hour on two cores."""

    episodes: int = 10
    """Number of training episodes."""
    held_out: int = 2
    """Number of evaluation episodes."""
    iterations: int = 300
    """Number of training iterations per stage."""
    watch_s: float = 8.0
    """Time that the policy runs at the end, on the robot's clock [s]."""
    speed: float = field(default_factory=lambda: min(1.0, len(os.sched_getaffinity(0)) / _CORES_FOR_REAL_TIME))
    """Simulated seconds per second of wall time while recording."""


def steps(out: Path, contract: Path, config: TutorialConfig) -> tuple[CommandStep, ...]:
    """Return the steps from an empty folder to a running policy.

    Args:
        out: folder of all outputs.
        contract: path of the simulated robot's contract.
        config: sizes of the tutorial.
    """
    runs = out / 'runs'
    checkpoint = runs / 'tutorial_vla' / f'iter_{config.iterations:06d}'
    return (
        _recording(out, contract, config, TRAINING, config.episodes, seed=0),
        # Scenes that training never sees.
        _recording(out, contract, config, HELD_OUT, config.held_out, seed=10_000),
        _conversion(out, contract, TRAINING),
        _conversion(out, contract, HELD_OUT),
        CommandStep(
            name='train', description='stage 0 trains the vision-action prior, stage 1 the policy with language',
            program='apt-train', module='apt_training.train.main', output=checkpoint, arguments=(
                '--config', 'tutorial', '--stage', 'both', '--data', str(out / 'episodes' / TRAINING),
                '--contract', str(contract), '--gpus', '0', '--max-steps', str(config.iterations), *_QUICK,
                '--feature-cache', str(out / 'features'),
                '--ckpt-dir', str(runs), '--va-name', 'tutorial_va', '--vla-name', 'tutorial_vla',
                '--va-conti', '--vla-conti')),
        CommandStep(
            name='evaluate', description='errors of the predictions on demonstrations in held-out scenes',
            program='apt-eval', module='apt_training.evaluate.main', output=out / 'evaluation.json', arguments=(
                str(checkpoint), str(out / 'episodes' / HELD_OUT), '--json', str(out / 'evaluation.json'),
                '--plots', str(out / 'evaluation'))),
        CommandStep(
            name='run', description='the policy node drives the simulated robot with the trained policy',
            program='python -m apt_demos.demo.main', module='apt_demos.demo.main', output=out / 'run', arguments=(
                '--checkpoint', str(checkpoint), '--contract', str(contract), '--seconds', f'{config.watch_s:g}',
                '--prompt', 'pick up the red cube', '--out', str(out / 'run'))))


def _recording(out: Path, contract: Path, config: TutorialConfig, name: str, episodes: int, *,
               seed: int) -> CommandStep:
    folder = out / 'bags' / name
    return CommandStep(
        name=f'record {name}', description=f'{episodes} scripted demonstrations in simulation become a rosbag2 bag',
        program='python -m apt_demos.tutorial.recording', module='apt_demos.tutorial.recording', output=folder,
        arguments=(str(folder), '--contract', str(contract), '--episodes', str(episodes), '--seed', str(seed),
                   '--speed', f'{config.speed:g}'))


def _conversion(out: Path, contract: Path, name: str) -> CommandStep:
    folder = out / 'episodes' / name
    return CommandStep(
        name=f'convert {name}', description='the bag becomes one HDF5 file per episode', program='apt-convert',
        module='apt_training.convert.main', output=folder,
        arguments=(str(out / 'bags' / name), '--contract', str(contract), '--out', str(folder)))
