"""``make demo``: the whole road, from camera to joint, on real ROS 2, in simulation.

Starts the graph on a domain of its own, plays the user (instruction, enable), watches,
stops everything, and says whether it worked.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import rclpy
from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rich.console import Console

from apt_bringup import graph
from apt_bringup.arguments import ArgumentError
from apt_bringup.demo.film import write_film
from apt_bringup.demo.recording import Recording
from apt_bringup.demo.report import print_table, write_plot
from apt_bringup.demo.watch import FILM_HZ, Watcher
from apt_bringup.managed import BringUpError, bring_up
from apt_bringup.session import Session, StartError
from apt_bringup.stop import stop_requests
from apt_policy.core.contract import RobotContract, load_contract

OVERVIEW = 'cam_high'
_PROMPT = 'put the red cube into the white tray'
# A slow machine simulates slowly but correctly; below this real-time factor it is not worth the wait.
_SLOWEST = 0.1
_SETTLE_S = 60.0
# Rendering, model and four Python nodes keep about two and a half cores busy in real time.
_CORES_FOR_REAL_TIME = 4


class DemoError(RuntimeError):
    """The demonstration could not be carried through; the message says at which point."""


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
            recording, intrinsics = _perform(options, stop, console)
        except (ArgumentError, StartError) as error:
            console.print(f'demo: {error}', style='red', markup=False)
            return 2
        except (DemoError, BringUpError) as error:
            reason = 'interrupted' if stop.is_set() else str(error)
            console.print(f'demo: {reason}', style='red', markup=False)
            return 130 if stop.is_set() else 1
    return _report(options, recording, intrinsics, console)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20.0, help='how long to watch, on the robot clock')
    parser.add_argument('--prompt', default=_PROMPT, help='instruction, published on the prompt topic')
    parser.add_argument('--checkpoint', default='', help='trained weights; empty runs an untrained model')
    parser.add_argument('--contract', default='', help='robot contract; empty takes the shipped simulated one')
    parser.add_argument('--seed', type=int, default=0, help='of the scene and of the noise')
    parser.add_argument('--speed', type=float, default=_affordable_speed(),
                        help='simulated seconds per second (default here: %(default)g, by the number of cores)')
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder of the video and the plot')
    options = parser.parse_args(words)
    if not 1.0 <= options.seconds <= 3600.0:
        parser.error(f'--seconds is {options.seconds:g}, expected 1 to 3600')
    if not 0.1 <= options.speed <= 1.0:
        parser.error(f'--speed is {options.speed:g}, expected 0.1 to 1')
    if not options.prompt.strip():
        parser.error('--prompt is empty; give an instruction')
    return options


def _contract(options: argparse.Namespace) -> RobotContract:
    share = Path(get_package_share_directory('apt_bringup'))
    return load_contract(options.contract or share / 'config' / 'aloha_sim.yaml')


def _affordable_speed() -> float:
    return min(1.0, len(os.sched_getaffinity(0)) / _CORES_FOR_REAL_TIME)


def _perform(options: argparse.Namespace, stop: Event, console: Console) -> tuple[Recording, Any]:
    share = Path(get_package_share_directory('apt_bringup'))
    described = graph.aloha(
        {'robot': 'sim', 'checkpoint': options.checkpoint, 'seed': str(options.seed),
         'speed': str(options.speed), 'contract': options.contract}, share)
    contract = _contract(options)
    with Session(described) as session:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        watcher = Watcher(contract, OVERVIEW, use_sim_time=True)
        executor = SingleThreadedExecutor()
        executor.add_node(watcher)
        try:
            director = _Director(session, watcher, executor, stop, console)
            return director.run(options.prompt, options.seconds, options.speed), watcher.intrinsics
        finally:
            executor.shutdown()
            watcher.destroy_node()
            rclpy.shutdown()
            console.print('demo: stopping, the policy first')


class _Director:
    """Plays the user, step by step, and notices when the graph falls apart."""

    def __init__(self, session: Session, watcher: Watcher, executor: SingleThreadedExecutor, stop: Event,
                 console: Console) -> None:
        self._session, self._watcher, self._executor = session, watcher, executor
        self._stop, self._console = stop, console

    def run(self, prompt: str, seconds: float, speed: float) -> Recording:
        for node in self._session.managed:
            self._say(f'bringing up {node.name}: load, warm up, activate')
            bring_up(self._watcher, self._executor, node.full_name, give_up=self._broken)
        self._say(f'instruction: "{prompt}"')
        self._until(lambda: self._watcher.active_prompt == prompt, 'the policy to take the instruction',
                    meanwhile=lambda: self._watcher.instruct(prompt))
        self._until(lambda: self._watcher.status is not None and self._watcher.intrinsics is not None,
                    'status and images')
        self._enable()
        self._until(self._moves, 'the first target')
        self._say(f'targets flow; recording {seconds:g} s of the robot\'s time, simulated at speed {speed:g}')
        self._watcher.start()
        self._until(lambda: self._watcher.elapsed_s() >= seconds, f'{seconds:g} s on the robot clock',
                    timeout_s=seconds / _SLOWEST)
        return self._watcher.finish()

    def _enable(self) -> None:
        answers: list[Any] = []

        def ask() -> None:
            if not answers or (answers[-1].done() and not answers[-1].result().success):
                future = self._watcher.enable(True)
                answers.extend([future] if future is not None else [])

        self._until(lambda: bool(answers) and answers[-1].done() and answers[-1].result().success,
                    'the policy to be enabled', meanwhile=ask)

    def _moves(self) -> bool:
        status = self._watcher.status
        return status is not None and status.targets_sent > 0

    def _broken(self) -> bool:
        return self._stop.is_set() or bool(self._session.ended)

    def _until(self, done: Callable[[], bool], what: str, *, timeout_s: float = _SETTLE_S,
               meanwhile: Callable[[], None] | None = None) -> None:
        deadline, again = time.monotonic() + timeout_s, 0.0
        while not done():
            if ended := self._session.ended:
                names = ', '.join(f'{name} (status {status})' for name, status in ended.items())
                raise DemoError(f'{names} ended while waiting for {what}; its last lines are above')
            if self._stop.is_set():
                raise DemoError('interrupted')
            if time.monotonic() > deadline:
                raise DemoError(f'waited {timeout_s:.0f} s for {what}; {self._situation()}')
            if meanwhile is not None and time.monotonic() >= again:
                again = time.monotonic() + 0.5
                meanwhile()
            self._executor.spin_once(timeout_sec=0.05)

    def _situation(self) -> str:
        status = self._watcher.status
        if status is None:
            return 'the policy has not published its status'
        return f'the policy says: {status.detail or "no hold"} (hold reason {status.hold_reason})'

    def _say(self, text: str) -> None:
        self._console.print(f'demo: {text}', markup=False, highlight=False)


def _report(options: argparse.Namespace, recording: Recording, intrinsics: Any,
            console: Console) -> int:
    print_table(recording, console)
    placement = _contract(options).cameras[OVERVIEW].world_from_camera
    assert placement is not None, 'the overview camera is a fixed one'
    options.out.mkdir(parents=True, exist_ok=True)
    write_plot(recording, options.out / 'tracking.png')
    write_film(recording.frames, options.out / 'demo.mp4', overview=OVERVIEW, intrinsics=intrinsics,
               world_from_camera=placement.matrix, rate_hz=FILM_HZ)
    for what, name in (('video', 'demo.mp4'), ('plot', 'tracking.png')):
        console.print(f'{what:<6} {options.out / name}', highlight=False, markup=False, soft_wrap=True)
    if not options.checkpoint:
        console.print('The weights are untrained: the arms circle, but they do no work.', style='yellow')
    for shortcoming in (shortcomings := recording.shortcomings()):
        console.print(f'FAILED: {shortcoming}', style='red', markup=False)
    if shortcomings and recording.holds:
        console.print(f'If this machine is slow or busy, simulate slower: DEMO_SPEED={options.speed / 2:g}')
    if not shortcomings:
        console.print('OK: targets flowed at the control rate, and both arms followed them.', style='green')
    return 1 if shortcomings else 0


if __name__ == '__main__':
    sys.exit(main())
