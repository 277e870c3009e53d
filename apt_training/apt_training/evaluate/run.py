"""Evaluation of a checkpoint as the command line asks for it: arguments to an evaluation, results to files."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from apt_policy.inference.planner import pick_device
from apt_policy.model.checkpoint import Checkpoint, read_checkpoint
from apt_policy.moved import current_vlm
from apt_training.episodes.files import find_episodes
from apt_training.evaluate.arguments import EvalArguments
from apt_training.evaluate.evaluation import Evaluation, EvaluationConfig, evaluate
from apt_training.evaluate.inputs import load_policy, open_episodes, robot_from_checkpoint
from apt_training.evaluate.output import write_json, write_plots, write_tensorboard
from apt_training.evaluate.predict import choose_frames
from apt_training.evaluate.terminal import print_evaluation


def run_evaluation(arguments: EvalArguments) -> None:
    """Evaluate, print the results and write what was asked for.

    Raises:
        UserError: checkpoint, robot or episodes cannot be used.
        ValueError: values of the command line do not go together.
        OSError: a file cannot be read or written.
    """
    console, progress_console = Console(highlight=False), Console(stderr=True, highlight=False)
    checkpoint = read_checkpoint(arguments.checkpoint)
    evaluation = _evaluate(checkpoint, arguments, progress_console)
    print_evaluation(evaluation, checkpoint, console)
    for path in _write(evaluation, checkpoint, arguments):
        console.print(Text(f'wrote {path}'), soft_wrap=True)


def _evaluate(checkpoint: Checkpoint, arguments: EvalArguments, console: Console) -> Evaluation:
    config = EvaluationConfig(
        samples=arguments.samples, seed=arguments.seed, batch_size=arguments.batch_size,
        denoising_steps=arguments.denoising_steps, noise_scale=arguments.noise_scale, probed=arguments.probe,
        workers=arguments.workers)
    robot = robot_from_checkpoint(checkpoint, arguments.contract)
    dataset = open_episodes(find_episodes(arguments.episodes), robot)
    device = pick_device(arguments.device)
    policy = load_policy(checkpoint, device=device, dtype=arguments.dtype, vlm=current_vlm(arguments.vlm))
    policy.vlm.tokens_per_camera(robot.window.image_size)
    frames = choose_frames(dataset, arguments.frames)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task('observations', total=len(frames))
        return evaluate(policy, dataset, frames, config=config, arms=robot.spec.arms, step_s=robot.step_s,
                        others=arguments.swap_with, progress=lambda done: bar.update(task, completed=done))


def _write(evaluation: Evaluation, checkpoint: Checkpoint, arguments: EvalArguments) -> list[Path]:
    written = []
    if arguments.json is not None:
        write_json(evaluation, checkpoint, arguments.json)
        written.append(arguments.json)
    if arguments.plots is not None:
        written += write_plots(evaluation, arguments.plots)
    if arguments.tensorboard is not None:
        write_tensorboard(evaluation, checkpoint.iteration, arguments.tensorboard)
        written.append(arguments.tensorboard)
    return written
