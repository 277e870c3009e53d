"""Study as the command line asks for it.

Runs the suite's own commands on the CPU, one per core. A finished step is not run again; Ctrl-C ends the steps that
run, policies save as they stop, and the next start resumes there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from apt_demos.steps.runner import StepRunner
from apt_demos.steps.step import select_steps
from apt_demos.study.arguments import StudyArguments
from apt_demos.study.plan import FULL, QUICK, StudyConfig, StudySetup, steps
from apt_demos.study.report import load_results, tables, write_results
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests
from apt_policy.moved import current_vlm
from apt_training.bulk.output_folder import prepare_output_folder

# Steps share the machine by cores; a GPU would be taken by one part of them and not by another.
_ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def run_study(arguments: StudyArguments) -> int:
    """Run the steps and print the results; return 0 when every step is done, 130 on Ctrl-C, else 1.

    Raises:
        UserError: the shipped contract, the skills or the folder cannot be used.
        ValueError: there is no such step.
    """
    console = Console()
    out = arguments.out or Path('out/study_quick' if arguments.quick else 'out/study')
    contract = shipped_contract('aloha_small.yaml')
    config = _sizes(arguments)
    setting = StudySetup(out=out, contract=contract, config=config, pretrained_vlm=current_vlm(arguments.vlm),
                      existing_data=arguments.data)
    chosen = select_steps(arguments.only, steps(setting, jobs=arguments.workers))
    prepare_output_folder(out, setting.facts())
    with stop_requests() as stop:
        runner = StepRunner('study', out, console, stop, jobs=arguments.workers, environment=_ENVIRONMENT)
        status = runner.run(chosen)
    if status or arguments.only:
        return status
    results = load_results(out, config)
    console.print(*tables(results))
    if arguments.quick:
        runner.print_line(f'This was the quick form: {config.iterations} steps a stage, {config.trials} rollouts a '
                          'split and policy. It shows that everything runs; its differences are chance.')
    for path in write_results(results, out):
        runner.print_line(f'wrote {path}')
    return 0


def _sizes(arguments: StudyArguments) -> StudyConfig:
    given: dict[str, Any] = {
        'sheets': arguments.shards, 'looking': arguments.grounding_steps, 'lessons': arguments.vlm_steps,
        'skills': arguments.skills, 'demonstrations': arguments.demonstrations, 'iterations': arguments.max_steps,
        'batch': arguments.batch_size, 'trials': arguments.rollouts, 'seeds': arguments.seeds}
    return replace(QUICK if arguments.quick else FULL,
                   **{name: value for name, value in given.items() if value is not None})
