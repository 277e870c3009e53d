"""Demo as the command line asks for it: the policy on real ROS 2, in simulation, from camera to joint.

Starts the graph on a domain of its own, plays the user (instruction, enable), observes, stops everything, and reports
whether it worked. A trained policy gets two instructions in the same scene, and its success is scored.
Where the machine is too slow, the demo runs once more at half the speed, unless a speed was asked for.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal

import rclpy
from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id
from rclpy.signals import SignalHandlerOptions
from rich.console import Console

from apt_bringup import graph
from apt_bringup.managed import BringUpError
from apt_bringup.session import Session
from apt_demos.demo.arguments import SLOWEST_SPEED, DemoArguments
from apt_demos.demo.director import DemoError, Director, Performance
from apt_demos.demo.film import write_film
from apt_demos.demo.report import (
    print_conclusion,
    print_outcomes,
    print_table,
    slower,
    write_plot,
)
from apt_demos.demo.story import write_story
from apt_demos.demo.watch import FILM_HZ, OVERVIEW
from apt_demos.live_evaluation.live import trial_graph
from apt_demos.live_evaluation.live_robot import LiveError
from apt_policy.console import print_error
from apt_policy.core.contract import load_contract, mismatches
from apt_policy.core.stop import stop_requests
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.moved import current_checkpoint
from apt_sim.evaluation.evaluate import EvaluationSettings
from apt_sim.evaluation.live import LivePolicy
from apt_sim.tasks.draw import NoTaskError

UNTRAINED = 'untrained'
CUBES: Literal['cubes'] = 'cubes'
TRIALS: Literal['trials'] = 'trials'
_UNTRAINED_PROMPT = 'put the red cube into the white tray'
_PLAIN, _SMALL = 'aloha_sim.yaml', 'aloha_small.yaml'
# Rendering, model and four Python nodes keep about two and a half cores busy in real time.
_CORES_FOR_REAL_TIME = 4
_DENOISING_STEPS = 10


def run_demo(arguments: DemoArguments) -> int:
    """Run the demo.

    Returns:
        0 when targets flowed at the control rate and the arms followed them, 130 on Ctrl-C, else 1.

    Raises:
        UserError: contract, checkpoint or graph cannot be used.
    """
    arguments = with_defaults(arguments)
    console = Console()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with domain_id() as domain, stop_requests() as stop:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        try:
            performance, speed = _perform_as_asked(arguments, stop, console)
        except (DemoError, BringUpError, LiveError) as error:
            reason = 'interrupted' if stop.is_set() else str(error)
            print_error(console, f'demo: {reason}')
            return 130 if stop.is_set() else 1
    return _report(arguments, performance, speed, console)


def with_defaults(arguments: DemoArguments) -> DemoArguments:
    """Return arguments with checkpoint, contract, table and instruction, by what is installed and by the weights."""
    shipped = Path(get_package_share_directory('apt_sim')) / 'checkpoints' / 'aloha_small'
    checkpoint = arguments.checkpoint
    if checkpoint is None and shipped.exists():
        checkpoint = str(shipped)
    checkpoint = checkpoint or UNTRAINED
    if checkpoint != UNTRAINED:
        checkpoint = str(current_checkpoint(checkpoint))
    contract = arguments.contract or str(_share() / 'config' / _contract_of(checkpoint))
    table = arguments.table or (TRIALS if Path(contract).name == _SMALL else CUBES)
    prompt = arguments.prompt or ((_UNTRAINED_PROMPT,) if checkpoint == UNTRAINED else ())
    return replace(arguments, checkpoint=checkpoint, contract=contract, table=table, prompt=prompt)


def _contract_of(checkpoint: str) -> str:
    """The shipped contract of weights by what their folder says of their robot; the plain one where it says nothing."""
    facts_file = Path(checkpoint) / 'checkpoint.json'
    newest = Path(checkpoint) / 'latest'
    if newest.is_file():
        facts_file = Path(checkpoint) / newest.read_text().strip() / 'checkpoint.json'
    small = load_contract(_share() / 'config' / _SMALL).policy_facts()
    try:
        return _PLAIN if mismatches(json.loads(facts_file.read_text())['contract'], small) else _SMALL
    except (OSError, ValueError, KeyError, TypeError):
        return _PLAIN


def _share() -> Path:
    return Path(get_package_share_directory('apt_bringup'))


def _affordable_speed() -> float:
    return max(SLOWEST_SPEED, min(1.0, len(os.sched_getaffinity(0)) / _CORES_FOR_REAL_TIME))


def _graph(arguments: DemoArguments, speed: float) -> graph.Graph:
    weights = arguments.checkpoint if arguments.checkpoint and arguments.checkpoint != UNTRAINED else ''
    if arguments.table == CUBES:
        return graph.aloha({'robot': 'sim', 'checkpoint': weights, 'seed': str(arguments.seed),
                            'speed': str(speed), 'contract': arguments.contract}, _share())
    planner = PlannerSettings(checkpoint=weights, denoising_steps=_DENOISING_STEPS, seed=arguments.seed)
    return trial_graph(EvaluationSettings(contract=arguments.contract), LivePolicy(planner=planner, speed=speed))


def perform_in_time(perform: Callable[[float], Performance], speed: float,
                    console: Console) -> tuple[Performance, float]:
    """Perform, and once more at half the speed where the machine did not keep up.

    Args:
        perform: at the speed that it is given.
        speed: to begin with.

    Returns:
        The last performance, and its speed.
    """
    performance = perform(speed)
    late = [part.recording for part in performance.parts if part.recording.too_slow]
    if not late or slower(speed) == speed:
        return performance, speed
    console.print(f'demo: this machine does not keep up with speed {speed:g} (targets at '
                  f'{late[0].target_rate_hz:.1f} of {late[0].control_rate_hz:.1f} Hz, real-time factor '
                  f'{late[0].real_time_factor:.2f}); once more at speed {slower(speed):g}',
                  style='yellow', markup=False, highlight=False, soft_wrap=True)
    return perform(slower(speed)), slower(speed)


def _perform_as_asked(arguments: DemoArguments, stop: Event, console: Console) -> tuple[Performance, float]:
    """Perform at the speed that was asked for, whether the machine keeps up or not; without one, adapt it."""
    if arguments.speed is not None:
        return _perform(arguments, stop, console, arguments.speed), arguments.speed
    return perform_in_time(partial(_perform, arguments, stop, console), _affordable_speed(), console)


def _perform(arguments: DemoArguments, stop: Event, console: Console, speed: float) -> Performance:
    with Session(_graph(arguments, speed)) as session:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            director = Director(load_contract(arguments.contract), session, stop, console)
            return director.run(arguments.prompt, arguments.seconds, scene=arguments.scene, speed=speed)
        except NoTaskError as error:
            raise DemoError(f'{error}; give another --scene, or a --prompt') from error
        finally:
            rclpy.shutdown()
            console.print('demo: stopping, the policy first')


def _report(arguments: DemoArguments, performance: Performance, speed: float, console: Console) -> int:
    recordings = [part.recording for part in performance.parts]
    for part in performance.parts:
        print_table(part.recording, console, title=part.errand.prompt)
    placement = load_contract(arguments.contract).cameras[OVERVIEW].world_from_camera
    assert placement is not None, 'the overview camera is a fixed one'
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_plot(recordings[-1], arguments.out / 'tracking.png')
    products = [('plot', 'tracking.png')]
    # Without pictures the robot is judged all the same.
    if frames := [frame for recording in recordings for frame in recording.frames]:
        write_film(frames, arguments.out / 'demo.mp4', overview=OVERVIEW, intrinsics=performance.intrinsics,
                   world_from_camera=placement.matrix, rate_hz=FILM_HZ)
        write_story(performance.parts, arguments.out / 'demo.jpg')
        products = [('video', 'demo.mp4'), ('story', 'demo.jpg'), *products]
    for what, name in products:
        console.print(f'{what:<6} {arguments.out / name}', highlight=False, markup=False, soft_wrap=True)
    if arguments.checkpoint == UNTRAINED:
        console.print('The weights are untrained: the arms circle, but they do no work.', style='yellow')
    print_outcomes(performance.parts, console)
    print_conclusion(recordings, console, speed=speed)
    return 1 if any(recording.shortcomings() for recording in recordings) else 0
