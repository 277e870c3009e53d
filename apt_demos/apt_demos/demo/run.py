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
from apt_demos.demo.demo_recorder import OVERVIEW, VIDEO_HZ
from apt_demos.demo.demo_runner import DemoError, DemoResult, DemoRunner
from apt_demos.demo.media import write_demo_video, write_storyboard
from apt_demos.demo.report import (
    print_conclusion,
    print_results,
    print_table,
    slower,
    write_plot,
)
from apt_demos.live_evaluation.live import rollout_graph
from apt_demos.live_evaluation.live_robot import LiveGraphError
from apt_policy.console import print_error
from apt_policy.core.contract import load_contract, mismatches
from apt_policy.core.stop import stop_requests
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.moved import current_checkpoint
from apt_sim.evaluation.evaluate import RolloutConfig
from apt_sim.evaluation.live import LivePolicyConfig
from apt_sim.tasks.task_sampler import NoTaskError

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
            result, speed = _run_demo(arguments, stop, console)
        except (DemoError, BringUpError, LiveGraphError) as error:
            reason = 'interrupted' if stop.is_set() else str(error)
            print_error(console, f'demo: {reason}')
            return 130 if stop.is_set() else 1
    return _report(arguments, result, speed, console)


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
    """Return the shipped contract for weights, by the robot that their folder names; the plain one if it names none."""
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
    planner = PlannerConfig(checkpoint=weights, denoising_steps=_DENOISING_STEPS, seed=arguments.seed)
    return rollout_graph(RolloutConfig(contract=arguments.contract), LivePolicyConfig(planner=planner, speed=speed))


def run_in_real_time(run_at_speed: Callable[[float], DemoResult], speed: float,
                    console: Console) -> tuple[DemoResult, float]:
    """Perform, and once more at half the speed where the machine did not keep up.

    Args:
        run_at_speed: function that runs the demo at the speed that it is given.
        speed: to begin with.

    Returns:
        The last result, and its speed.
    """
    result = run_at_speed(speed)
    late = [each.recording for each in result.results if each.recording.too_slow]
    if not late or slower(speed) == speed:
        return result, speed
    console.print(f'demo: this machine does not keep up with speed {speed:g} (targets at '
                  f'{late[0].target_rate_hz:.1f} of {late[0].control_rate_hz:.1f} Hz, real-time factor '
                  f'{late[0].real_time_factor:.2f}); once more at speed {slower(speed):g}',
                  style='yellow', markup=False, highlight=False, soft_wrap=True)
    return run_at_speed(slower(speed)), slower(speed)


def _run_demo(arguments: DemoArguments, stop: Event, console: Console) -> tuple[DemoResult, float]:
    """Perform at the speed that was asked for, whether the machine keeps up or not; without one, adapt it."""
    if arguments.speed is not None:
        return _run_at_speed(arguments, stop, console, arguments.speed), arguments.speed
    return run_in_real_time(partial(_run_at_speed, arguments, stop, console), _affordable_speed(), console)


def _run_at_speed(arguments: DemoArguments, stop: Event, console: Console, speed: float) -> DemoResult:
    with Session(_graph(arguments, speed)) as session:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            runner = DemoRunner(load_contract(arguments.contract), session, stop, console)
            return runner.run(arguments.prompt, arguments.seconds, scene=arguments.scene, speed=speed)
        except NoTaskError as error:
            raise DemoError(f'{error}; give another --scene, or a --prompt') from error
        finally:
            rclpy.shutdown()
            console.print('demo: stopping, the policy first')


def _report(arguments: DemoArguments, result: DemoResult, speed: float, console: Console) -> int:
    recordings = [each.recording for each in result.results]
    for each in result.results:
        print_table(each.recording, console, title=each.instruction.prompt)
    placement = load_contract(arguments.contract).cameras[OVERVIEW].world_from_camera
    assert placement is not None, 'the overview camera is a fixed one'
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_plot(recordings[-1], arguments.out / 'tracking.png')
    products = [('plot', 'tracking.png')]
    # Without pictures the robot is judged all the same.
    if frames := [frame for recording in recordings for frame in recording.frames]:
        write_demo_video(frames, arguments.out / 'demo.mp4', overview=OVERVIEW, intrinsics=result.intrinsics,
                   world_from_camera=placement.matrix, rate_hz=VIDEO_HZ)
        write_storyboard(result.results, arguments.out / 'demo.jpg')
        products = [('video', 'demo.mp4'), ('story', 'demo.jpg'), *products]
    for what, name in products:
        console.print(f'{what:<6} {arguments.out / name}', highlight=False, markup=False, soft_wrap=True)
    if arguments.checkpoint == UNTRAINED:
        console.print('The weights are untrained: the arms circle, but they do no work.', style='yellow')
    print_results(result.results, console)
    print_conclusion(recordings, console, speed=speed)
    return 1 if any(recording.issues() for recording in recordings) else 0
