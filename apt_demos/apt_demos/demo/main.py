"""``make demo``: the whole road, from camera to joint, on real ROS 2, in simulation.

Starts the graph on a domain of its own, plays the user (instruction, enable), watches, stops everything, and says
whether it worked. With a trained policy it gives two instructions in the same scene and judges what becomes of them.
Where the machine does not keep up, it tries once more at half the speed, unless a speed was asked for.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event

import rclpy
from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id
from rclpy.signals import SignalHandlerOptions
from rich.console import Console

from apt_bringup import graph
from apt_bringup.arguments import ArgumentError
from apt_bringup.managed import BringUpError
from apt_bringup.session import Session, StartError
from apt_demos.demo.director import DemoError, Director, Performance
from apt_demos.demo.film import write_film
from apt_demos.demo.report import (
    SLOWEST_SPEED,
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
from apt_policy.core.contract import ContractError, load_contract, mismatches
from apt_policy.core.stop import stop_requests
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.moved import current_checkpoint
from apt_sim.evaluation.evaluate import EvaluationSettings
from apt_sim.evaluation.live import LivePolicy
from apt_sim.tasks.draw import NoTaskError

UNTRAINED = 'untrained'
CUBES, TRIALS = 'cubes', 'trials'
_UNTRAINED_PROMPT = 'put the red cube into the white tray'
# Of the first ones with two things to ask for, one in which the shipped weights get both, each with another arm.
_SCENE = 3
_PLAIN, _SMALL = 'aloha_sim.yaml', 'aloha_small.yaml'
# Rendering, model and four Python nodes keep about two and a half cores busy in real time.
_CORES_FOR_REAL_TIME = 4
_DENOISING_STEPS = 10


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0 when targets flowed at the control rate and the arms followed them, 130 on Ctrl-C, 2 for arguments
        that cannot be used, else 1.
    """
    options = _options(words)
    console = Console()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with domain_id() as domain, stop_requests() as stop:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        try:
            performance, speed = _perform_as_asked(options, stop, console)
        except (ArgumentError, StartError, ContractError, ValueError) as error:
            print_error(console, f'demo: {error}')
            return 2
        except (DemoError, BringUpError, LiveError) as error:
            reason = 'interrupted' if stop.is_set() else str(error)
            print_error(console, f'demo: {reason}')
            return 130 if stop.is_set() else 1
    return _report(options, performance, speed, console)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    shipped = Path(get_package_share_directory('apt_sim')) / 'checkpoints' / 'aloha_small'
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20.0,
                        help='longest time for an instruction, on the robot clock')
    parser.add_argument('--prompt', nargs='+', default=[], metavar='TEXT',
                        help='instructions, one after the other in the same scene; default: two drawn for the scene')
    parser.add_argument('--checkpoint', default=str(shipped) if shipped.exists() else UNTRAINED,
                        help=f'trained weights, or "{UNTRAINED}"; default: those that come with the suite')
    parser.add_argument('--contract', default='',
                        help=f'robot contract; default: {_SMALL} for weights of that robot, else {_PLAIN}')
    parser.add_argument('--table', choices=(CUBES, TRIALS), default='',
                        help='what lies on it: six cubes and two trays, or what apt-sim-eval lays out; default: '
                             f'{TRIALS} with {_SMALL}, else {CUBES}')
    parser.add_argument('--scene', type=int, default=_SCENE, help='seed of the scene')
    parser.add_argument('--seed', type=int, default=0, help='of the noise')
    parser.add_argument('--speed', type=float, default=None,
                        help=f'simulated seconds per second (default here: {_affordable_speed():g}, by the number of '
                             'cores, and half of it where that is too fast)')
    parser.add_argument('--out', type=Path, default=Path('out/demo'),
                        help='folder of the video, the story in one picture, and the plot')
    options = parser.parse_args(words)
    if not 1.0 <= options.seconds <= 3600.0:
        parser.error(f'--seconds is {options.seconds:g}, expected 1 to 3600')
    if options.speed is not None and not SLOWEST_SPEED <= options.speed <= 1.0:
        parser.error(f'--speed is {options.speed:g}, expected {SLOWEST_SPEED:g} to 1')
    if not all(prompt.strip() for prompt in options.prompt):
        parser.error('--prompt is empty; give an instruction')
    if not 0 <= options.scene < 2**31:
        parser.error(f'--scene is {options.scene}, expected 0 to {2**31 - 1}')
    options.checkpoint = options.checkpoint or UNTRAINED
    if options.checkpoint != UNTRAINED:
        options.checkpoint = str(current_checkpoint(options.checkpoint))
    options.contract = options.contract or str(_share() / 'config' / _contract_of(options.checkpoint))
    options.table = options.table or (TRIALS if Path(options.contract).name == _SMALL else CUBES)
    if options.checkpoint == UNTRAINED:
        options.prompt = options.prompt or [_UNTRAINED_PROMPT]
    return options


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


def _graph(options: argparse.Namespace, speed: float) -> graph.Graph:
    weights = '' if options.checkpoint == UNTRAINED else options.checkpoint
    if options.table == CUBES:
        return graph.aloha({'robot': 'sim', 'checkpoint': weights, 'seed': str(options.seed),
                            'speed': str(speed), 'contract': options.contract}, _share())
    planner = PlannerSettings(checkpoint=weights, denoising_steps=_DENOISING_STEPS, seed=options.seed)
    return trial_graph(EvaluationSettings(contract=options.contract), LivePolicy(planner=planner, speed=speed))


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


def _perform_as_asked(options: argparse.Namespace, stop: Event, console: Console) -> tuple[Performance, float]:
    """Perform at the speed that was asked for, whether the machine keeps up or not; without one, adapt it."""
    if options.speed is not None:
        return _perform(options, stop, console, options.speed), options.speed
    return perform_in_time(partial(_perform, options, stop, console), _affordable_speed(), console)


def _perform(options: argparse.Namespace, stop: Event, console: Console, speed: float) -> Performance:
    with Session(_graph(options, speed)) as session:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            director = Director(load_contract(options.contract), session, stop, console)
            return director.run(options.prompt, options.seconds, scene=options.scene, speed=speed)
        except NoTaskError as error:
            raise DemoError(f'{error}; give another --scene, or a --prompt') from error
        finally:
            rclpy.shutdown()
            console.print('demo: stopping, the policy first')


def _report(options: argparse.Namespace, performance: Performance, speed: float, console: Console) -> int:
    recordings = [part.recording for part in performance.parts]
    for part in performance.parts:
        print_table(part.recording, console, title=part.errand.prompt)
    placement = load_contract(options.contract).cameras[OVERVIEW].world_from_camera
    assert placement is not None, 'the overview camera is a fixed one'
    options.out.mkdir(parents=True, exist_ok=True)
    write_plot(recordings[-1], options.out / 'tracking.png')
    products = [('plot', 'tracking.png')]
    # Without pictures the robot is judged all the same.
    if frames := [frame for recording in recordings for frame in recording.frames]:
        write_film(frames, options.out / 'demo.mp4', overview=OVERVIEW, intrinsics=performance.intrinsics,
                   world_from_camera=placement.matrix, rate_hz=FILM_HZ)
        write_story(performance.parts, options.out / 'demo.jpg')
        products = [('video', 'demo.mp4'), ('story', 'demo.jpg'), *products]
    for what, name in products:
        console.print(f'{what:<6} {options.out / name}', highlight=False, markup=False, soft_wrap=True)
    if options.checkpoint == UNTRAINED:
        console.print('The weights are untrained: the arms circle, but they do no work.', style='yellow')
    print_outcomes(performance.parts, console)
    print_conclusion(recordings, console, speed=speed)
    return 1 if any(recording.shortcomings() for recording in recordings) else 0


if __name__ == '__main__':
    sys.exit(main())
