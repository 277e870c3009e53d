"""VQA dataset as the command line asks for it: the missing shards, in worker processes."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from apt_policy.console import print_error
from apt_sim.arguments import contract_path
from apt_sim.vqa.arguments import VqaArguments
from apt_sim.vqa.shard_writer import ShardWriter, VqaConfig, shard_folder
from apt_training.bulk.output_folder import prepare_output_folder
from apt_training.bulk.pool import JobDone, WorkerPool, WorkerPoolError


def write_dataset(arguments: VqaArguments) -> int:
    """Write the shards that are missing; return 0 if every shard is there, else 1.

    Raises:
        UserError: contract or folder cannot be used.
    """
    console = Console(stderr=True)
    settings = VqaConfig(contract=contract_path(arguments.contract), seed=arguments.seed)
    prepare_output_folder(arguments.out, settings.facts())
    todo = [number for number in range(arguments.shards) if not shard_folder(arguments.out, number).exists()]
    began_s = time.monotonic()
    try:
        lost = _write(settings, arguments.out, todo, arguments.workers, console)
    except WorkerPoolError as error:
        print_error(console, f'apt-sim-vqa: {error}')
        return 1
    console.print(f'{arguments.shards - len(lost)} shards of {settings.scenes} scenes in {arguments.out}, '
                  f'{len(todo)} of them new, {time.monotonic() - began_s:.0f} s', markup=False,
                  highlight=False, soft_wrap=True)
    for loss in lost:
        print_error(console, f'apt-sim-vqa: {loss}')
    return 1 if lost else 0


def _write(settings: VqaConfig, out: Path, todo: Sequence[int], workers: int, console: Console) -> list[str]:
    """Write shards and return a sentence for each lost one."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    lost = []
    factory = partial(ShardWriter, settings, out)
    with Progress(*columns, console=console) as progress, WorkerPool(factory, workers) as pool:
        bar = progress.add_task('shards', total=len(todo))
        for outcome in pool.run(todo):
            if not isinstance(outcome, JobDone):
                lost.append(f'shard {outcome.number}: {outcome.reason}; run the same command to try it again')
            progress.update(bar, advance=1)
    return lost
