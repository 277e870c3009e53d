"""Tutorial as the command line asks for it.

Runs the suite's own commands one after the other. A finished step is not run again; Ctrl-C ends the step that runs, and
the next start resumes there.
"""

import shutil
from dataclasses import replace

from rich.console import Console

from apt_demos.steps.runner import StepRunner
from apt_demos.steps.step import select_steps
from apt_demos.tutorial.arguments import TutorialArguments
from apt_demos.tutorial.plan import TutorialConfig, steps
from apt_policy.core.shipped import shipped_contract
from apt_policy.core.stop import stop_requests


def run_tutorial(arguments: TutorialArguments) -> int:
    """Run the steps; return 0 when every step is done, 130 on Ctrl-C, else 1.

    Raises:
        ContractError: the shipped contract is not installed.
        ValueError: there is no such step.
    """
    console = Console()
    config = TutorialConfig(episodes=arguments.episodes, held_out=arguments.held_out, iterations=arguments.max_steps,
                  watch_s=arguments.watch)
    if arguments.speed is not None:
        config = replace(config, speed=arguments.speed)
    known = steps(arguments.out, shipped_contract('aloha_tutorial.yaml'), config)
    chosen = select_steps(arguments.only, [(step,) for step in known])
    if arguments.fresh:
        shutil.rmtree(arguments.out, ignore_errors=True)
    with stop_requests() as stop:
        return StepRunner('tutorial', arguments.out, console, stop).run(chosen)
