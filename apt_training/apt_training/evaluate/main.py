"""``apt-eval``: how good a checkpoint is on held-out episodes, without a robot.

Turns arguments into an evaluation, its results into what was asked for, and every mistake of a
user into one line and exit status 2.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from apt_policy.console import print_error
from apt_policy.core.contract import ContractError
from apt_policy.inference.planner import pick_device
from apt_policy.model.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from apt_policy.model.vlm.load import VlmError
from apt_policy.model.vlm.prompt import PromptError
from apt_training.episodes.episode import EpisodeError
from apt_training.evaluate.evaluation import Evaluation, EvaluationSettings, evaluate
from apt_training.evaluate.output import write_json, write_plots, write_tensorboard
from apt_training.evaluate.predict import choose_places
from apt_training.evaluate.setup import EvaluationError, load_policy, open_episodes, robot_of
from apt_training.evaluate.terminal import print_evaluation
from apt_training.inspect.files import EpisodeFilesError, find_episodes

_MISTAKES = (EvaluationError, EpisodeFilesError, EpisodeError, CheckpointError, ContractError, VlmError, PromptError,
             OSError, ValueError)


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0, or 2 when arguments, checkpoint or episodes cannot be used.
    """
    options = _options(words)
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s: %(message)s')
    console, complaints = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        evaluation = _evaluate(checkpoint, options, complaints)
        print_evaluation(evaluation, checkpoint, console)
        for path in _write(evaluation, checkpoint, options):
            console.print(Text(f'wrote {path}'), soft_wrap=True)
    except _MISTAKES as error:
        print_error(complaints, f'apt-eval: {error}')
        return 2
    return 0


def _evaluate(checkpoint: Checkpoint, options: argparse.Namespace, console: Console) -> Evaluation:
    settings = EvaluationSettings(
        samples=options.samples, seed=options.seed, batch=options.batch, denoising_steps=options.steps,
        noise_scale=options.noise_scale, probed=options.probe, workers=options.workers)
    if options.frames < 1:
        raise EvaluationError(f'--frames is {options.frames}; expected 1 or more')
    robot = robot_of(checkpoint, options.contract)
    dataset = open_episodes(find_episodes(options.episodes), robot)
    device = pick_device(options.device)
    policy = load_policy(checkpoint, device=device, dtype=options.dtype, vlm=options.vlm)
    policy.vlm.tokens_per_camera(robot.window.image_size)
    places = choose_places(dataset, options.frames)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task('observations', total=len(places))
        return evaluate(policy, dataset, places, settings=settings, arms=robot.declaration.arms, step_s=robot.step_s,
                        others=options.swap_with, progress=lambda done: bar.update(task, completed=done))


def _write(evaluation: Evaluation, checkpoint: Checkpoint, options: argparse.Namespace) -> list[Path]:
    written = []
    if options.json is not None:
        write_json(evaluation, checkpoint, options.json)
        written.append(options.json)
    if options.plots is not None:
        written += write_plots(evaluation, options.plots)
    if options.tensorboard is not None:
        write_tensorboard(evaluation, checkpoint.iteration, options.tensorboard)
        written.append(options.tensorboard)
    return written


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='apt-eval', description='Measure a checkpoint on held-out episodes: errors over the horizon, whether it '
                                     'listens to the instruction, and its gates.')
    add = parser.add_argument
    add('checkpoint', type=Path, metavar='CHECKPOINT', help='checkpoint folder, folder of a run, or ckpt_latest.pt')
    add('episodes', type=Path, nargs='+', metavar='EPISODES', help='episode files, or folders of them')
    add('--contract', type=Path, metavar='FILE', help='of the robot; needed where the checkpoint names none')
    add('--vlm', default='', metavar='NAME', help="hub name or folder, in place of the checkpoint's")
    add('--device', default='auto', help='auto, cpu, cuda, cuda:1 (default auto)')
    add('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of the weights (default float32)')
    add('--frames', type=int, default=16, metavar='N', help='of every episode, evenly apart (default 16)')
    add('--samples', type=int, default=8, metavar='K', help='drawn for each observation (default 8)')
    add('--steps', type=int, metavar='N', help="denoising steps (default the checkpoint's)")
    add('--noise-scale', type=float, default=EvaluationSettings.noise_scale, metavar='X',
        help='of the noise that plans start from, 0 .. 1; at 0 there is no noise floor to compare with (default 1)')
    add('--seed', type=int, default=0, help='of all noise and all swaps (default 0)')
    add('--batch', type=int, default=8, metavar='N', help='observations at once (default 8)')
    add('--workers', type=int, default=0, metavar='N', help='loading processes (default 0: none besides this one)')
    add('--probe', type=int, default=64, metavar='N', help='observations asked with another instruction; 0: none')
    add('--swap-with', action='append', default=[], metavar='TEXT',
        help="an instruction to swap in, instead of other episodes' (repeatable)")
    add('--json', type=Path, metavar='FILE', help='write all numbers')
    add('--plots', type=Path, metavar='DIR', help='write errors, language, gates and examples as PNG')
    add('--tensorboard', type=Path, metavar='DIR', help='write scalars and figures, at the iteration of the checkpoint')
    return parser.parse_args(words)


if __name__ == '__main__':
    sys.exit(main())
