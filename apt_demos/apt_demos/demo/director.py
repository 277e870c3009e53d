"""Plays the user of the demonstration, step by step, and notices when the graph falls apart."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from apt_bringup.managed import bring_up
from apt_bringup.session import Session
from apt_demos.demo.errand import Errand, drawn, typed
from apt_demos.demo.recording import Recording
from apt_demos.demo.watch import OVERVIEW, Watcher
from apt_demos.live_evaluation.live_robot import LiveError, LiveRobot
from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_sim.evaluation.referee import FailureKind, Referee, Ruling, Verdict, failed

# A slow machine simulates slowly but correctly; below this share of the speed it is not worth the wait.
_SLOWEST = 0.1
# After an instruction is done, for the film [s].
_REST_S = 1.0
_DRAWN = 2
NOT_SCORED = 'Records a video. Success is not scored for a custom prompt: it is not a task of this scene.'


class DemoError(UserError, RuntimeError):
    """The demonstration could not be carried through; the message says at which point."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One instruction and what became of it."""

    errand: Errand
    recording: Recording
    verdict: Verdict | None
    """None where the instruction is no task of the scene: it is not scored."""

    @property
    def done(self) -> bool:
        """Whether what was asked for is known to have been done."""
        return self.verdict is not None and self.verdict.ruling is Ruling.SUCCESS

    @property
    def outcome(self) -> str:
        """In words; empty where there is no verdict."""
        if self.verdict is None:
            return ''
        return f'done in {self.recording.duration_s:.1f} s' if self.done else self.verdict.reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """All of it."""

    parts: tuple[Part, ...]
    intrinsics: NDArray[np.float64]
    """(3, 3) of the overview camera [px]."""


class Director:
    """Belongs to one graph."""

    def __init__(self, contract: RobotContract, session: Session, stop: Event, console: Console) -> None:
        """``rclpy`` is initialised."""
        self._contract, self._session, self._stop, self._console = contract, session, stop, console
        self._robot = LiveRobot(contract, session, give_up=stop.is_set)
        self._watcher = Watcher(contract, OVERVIEW, use_sim_time=True)
        self._robot.spinner.add_node(self._watcher)

    def run(self, prompts: Sequence[str], seconds: float, *, scene: int, speed: float) -> Performance:
        """Bring the policy up and give each instruction in the scene of this seed.

        Raises:
            DemoError, LiveError, BringUpError: see there.
            NoTaskError: no instructions are given, and the scene has none.
        """
        for node in self._session.managed:
            self._say(f'bringing up {node.name}: load, warm up, activate')
            bring_up(self._robot, self._robot.spinner, node.full_name, give_up=self._broken)
        laid_out = self._robot.reset(scene)
        self._say(f'scene {scene}: {", ".join(laid_out.objects)}')
        errands = typed(self._contract, laid_out, prompts) or drawn(self._contract, laid_out, count=_DRAWN, seed=scene)
        parts = tuple(self._follow(errand, seconds, scene=scene, speed=speed) for errand in errands)
        assert self._watcher.intrinsics is not None, 'waited for'
        return Performance(parts=parts, intrinsics=self._watcher.intrinsics)

    def _follow(self, errand: Errand, seconds: float, *, scene: int, speed: float) -> Part:
        watcher, robot = self._watcher, self._robot
        before = robot.reset(scene)
        self._say(f'instruction: "{errand.prompt}"')
        if errand.assignment is None:
            self._say(NOT_SCORED)
        self._until(lambda: watcher.active_prompt == errand.prompt, 'the policy to take the instruction',
                    meanwhile=lambda: watcher.instruct(errand.prompt))
        self._until(lambda: watcher.status is not None and watcher.intrinsics is not None, 'status and images')
        robot.enable(True)
        sent = self._sent()
        self._until(lambda: self._sent() > sent, 'the first target')
        self._say(f'targets flow; at most {seconds:g} s of the robot\'s time, simulated at speed {speed:g}')
        watcher.start()
        referee = Referee((errand.assignment,), before) if errand.assignment else None
        verdict = self._watch(referee, seconds, robot.look(after_ns=before.stamp_ns).stamp_ns,
                              patience_s=seconds / (speed * _SLOWEST))
        recording = watcher.finish()
        robot.enable(False)
        return Part(errand=errand, recording=recording, verdict=verdict)

    def _watch(self, referee: Referee | None, seconds: float, now_ns: int, *, patience_s: float) -> Verdict | None:
        """Until the instruction is done or failed, and a moment longer; or until the time is up."""
        verdict: Verdict | None = None
        until_s = seconds
        deadline = time.monotonic() + patience_s
        while self._watcher.elapsed_s() < until_s:
            if time.monotonic() > deadline:
                raise DemoError(f'waited {patience_s:.0f} s for {seconds:g} s on the robot clock: this machine is too '
                                'slow or too busy to simulate; end other programs')
            now = self._robot.look(after_ns=now_ns)
            now_ns = now.stamp_ns
            if referee is None or verdict is not None:
                continue
            ruling = referee.see(now)
            if ruling.ruling in (Ruling.SUCCESS, Ruling.FAILURE):
                verdict = ruling
                until_s = min(seconds, self._watcher.elapsed_s() + _REST_S)
        if referee is None:
            return None
        return verdict or failed(FailureKind.TIME_OVER, f'not done in {seconds:g} s')

    def _sent(self) -> int:
        status: Any = self._watcher.status
        return int(status.targets_sent) if status is not None else 0

    def _broken(self) -> bool:
        return self._stop.is_set() or bool(self._session.ended)

    def _until(self, done: Callable[[], bool], what: str, *, meanwhile: Callable[[], None] | None = None) -> None:
        again = 0.0

        def turn() -> bool:
            nonlocal again
            if meanwhile is not None and not done() and time.monotonic() >= again:
                again = time.monotonic() + 0.5
                meanwhile()
            return done()

        try:
            self._robot.until(turn, what)
        except LiveError as error:
            raise DemoError(f'{error}; {self._situation()}') from error

    def _situation(self) -> str:
        status = self._watcher.status
        if status is None:
            return 'the policy has not published its status'
        return f'the policy says: {status.detail or "no hold"} (hold reason {status.hold_reason})'

    def _say(self, text: str) -> None:
        self._console.print(f'demo: {text}', markup=False, highlight=False)
