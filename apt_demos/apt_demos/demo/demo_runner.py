"""Run of the demonstration: play the user, instruction by instruction, and detect failures of the graph.

Instructions sampled for the scene are scored, and so are those typed by a user that are wordings of a feasible task.
Other instructions are executed and recorded only.
"""

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
from apt_demos.demo.demo_recorder import OVERVIEW, DemoRecorder
from apt_demos.demo.recording import Recording
from apt_demos.live_evaluation.live_robot import LiveGraphError, LiveRobot
from apt_policy.core.contract import RobotContract
from apt_policy.core.errors import UserError
from apt_sim.evaluation.splits import InstructionSplit, is_in_split, split_wordings
from apt_sim.evaluation.success_checker import EpisodeState, EpisodeStatus, FailureKind, SuccessChecker, failed_status
from apt_sim.tasks.episode import InstructedTask
from apt_sim.tasks.language import parse_instruction, sample_instruction
from apt_sim.tasks.task import GroundTruth, Skill, Task
from apt_sim.tasks.task_sampler import NoTaskError, TaskSampler

# Share of the requested speed below which the run gives up: a slow machine simulates correctly, but too slowly.
_SLOWEST = 0.1
# Recording time after an instruction is done [s].
_REST_S = 1.0
# Number of instructions that are sampled for a scene.
_SAMPLED = 2
# Period at which the prompt is published until the policy has it [s].
_PUBLISH_PERIOD_S = 0.5
NOT_SCORED = 'Records a video. Success is not scored for a custom prompt: it is not a task of this scene.'


class DemoError(UserError, RuntimeError):
    """Demonstration that cannot be completed; the message names the step."""


@dataclass(frozen=True, kw_only=True)
class DemoInstruction:
    """Instruction of the demonstration."""

    prompt: str
    instructed_task: InstructedTask | None = None
    """Task that the prompt describes; None if it is no task of the scene."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InstructionResult:
    """Result of one instruction."""

    instruction: DemoInstruction
    recording: Recording
    status: EpisodeStatus | None
    """Final status; None if the instruction is not scored."""

    @property
    def done(self) -> bool:
        """True if the instruction is scored and done."""
        return self.status is not None and self.status.state is EpisodeState.SUCCESS

    @property
    def outcome(self) -> str:
        """Result as text; empty if the instruction is not scored."""
        if self.status is None:
            return ''
        return f'done in {self.recording.duration_s:.1f} s' if self.done else self.status.reason


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoResult:
    """Results of all instructions."""

    results: tuple[InstructionResult, ...]
    intrinsics: NDArray[np.float64]
    """(3, 3) pinhole matrix of the overview camera [px]."""


def interpret_prompts(contract: RobotContract, scene: GroundTruth, prompts: Sequence[str]) -> tuple[DemoInstruction,
                                                                                                    ...]:
    """Match a user's prompts with the feasible tasks of the scene.

    Args:
        contract: description of the robot.
        scene: ground truth at the beginning.
        prompts: instructions as typed.
    """
    sampler = TaskSampler(contract)
    tasks = [task for skill in Skill for task in sampler.feasible_tasks(skill, scene)]
    return tuple(_interpret(prompt, tasks) for prompt in prompts)


def _interpret(prompt: str, tasks: Sequence[Task]) -> DemoInstruction:
    # The node collapses white space in the same way.
    shown = ' '.join(prompt.split())
    task = parse_instruction(shown, tasks)
    return DemoInstruction(
        prompt=shown, instructed_task=None if task is None else InstructedTask(task=task, instruction=shown))


def sample_instructions(contract: RobotContract, scene: GroundTruth, *, count: int,
                        seed: int) -> tuple[DemoInstruction, ...]:
    """Sample instructions of the training distribution, each about another object of the scene.

    Args:
        contract: description of the robot.
        scene: ground truth at the beginning.
        count: number of instructions.
        seed: seed of the choice.

    Raises:
        NoTaskError: the scene has too few feasible tasks.
    """
    random = np.random.default_rng(seed)
    tasks = {task.object: task for task in TaskSampler(contract).feasible_tasks(Skill.PICK, scene)
             if is_in_split(InstructionSplit.SEEN, task)}
    if len(tasks) < count:
        raise NoTaskError(f'the scene has {len(tasks)} objects with a training instruction, expected at least {count}')
    chosen = [sorted(tasks)[index] for index in random.permutation(len(tasks))[:count]]
    instructed = [InstructedTask(task=tasks[name], instruction=sample_instruction(
        tasks[name], random, among=split_wordings(InstructionSplit.SEEN, tasks[name]))) for name in chosen]
    return tuple(DemoInstruction(prompt=each.instruction, instructed_task=each) for each in instructed)


class DemoRunner:
    """Runner of the demonstration on one graph."""

    def __init__(self, contract: RobotContract, session: Session, stop: Event, console: Console) -> None:
        """Create the client and the recorder; ``rclpy`` must be initialised.

        Args:
            contract: description of the robot.
            session: running graph.
            stop: set to end the demonstration.
            console: output for the user.
        """
        self._contract, self._session, self._stop, self._console = contract, session, stop, console
        self._robot = LiveRobot(contract, session, give_up=stop.is_set)
        self._recorder = DemoRecorder(contract, OVERVIEW, use_sim_time=True)
        self._robot.spinner.add_node(self._recorder)

    def run(self, prompts: Sequence[str], seconds: float, *, scene: int, speed: float) -> DemoResult:
        """Bring up the policy and run each instruction in the same scene.

        Args:
            prompts: instructions; none samples two for the scene.
            seconds: time limit of each instruction on the robot's clock [s].
            scene: seed of the scene.
            speed: simulated seconds per second of wall time.

        Raises:
            DemoError: the machine is too slow, or the policy does not run.
            LiveGraphError: a node ended or does not respond.
            BringUpError: the policy cannot be configured or activated.
            NoTaskError: there are no prompts, and the scene has too few feasible tasks.
        """
        for node in self._session.managed:
            self._print(f'bringing up {node.name}: load, warm up, activate')
            bring_up(self._robot, self._robot.spinner, node.full_name, give_up=self._broken)
        laid_out = self._robot.reset(scene)
        self._print(f'scene {scene}: {", ".join(laid_out.objects)}')
        instructions = interpret_prompts(self._contract, laid_out, prompts) or sample_instructions(
            self._contract, laid_out, count=_SAMPLED, seed=scene)
        results = tuple(self._run_instruction(instruction, seconds, scene=scene, speed=speed)
                        for instruction in instructions)
        assert self._recorder.intrinsics is not None, 'waited for'
        return DemoResult(results=results, intrinsics=self._recorder.intrinsics)

    def _run_instruction(self, instruction: DemoInstruction, seconds: float, *, scene: int,
                         speed: float) -> InstructionResult:
        recorder, robot = self._recorder, self._robot
        before = robot.reset(scene)
        self._print(f'instruction: "{instruction.prompt}"')
        if instruction.instructed_task is None:
            self._print(NOT_SCORED)
        self._until(lambda: recorder.active_prompt == instruction.prompt, 'the policy to accept the instruction',
                    meanwhile=lambda: recorder.publish_prompt(instruction.prompt))
        self._until(lambda: recorder.status is not None and recorder.intrinsics is not None, 'status and images')
        robot.enable(True)
        sent = self._sent()
        self._until(lambda: self._sent() > sent, 'the first target')
        self._print(f'policy runs; time limit {seconds:g} s on the robot clock, simulated at speed {speed:g}')
        recorder.start()
        checker = SuccessChecker((instruction.instructed_task,), before) if instruction.instructed_task else None
        status = self._watch(checker, seconds, robot.wait_for_state(after_ns=before.stamp_ns).stamp_ns,
                             patience_s=seconds / (speed * _SLOWEST))
        recording = recorder.finish()
        robot.enable(False)
        return InstructionResult(instruction=instruction, recording=recording, status=status)

    def _watch(self, checker: SuccessChecker | None, seconds: float, now_ns: int, *,
               patience_s: float) -> EpisodeStatus | None:
        """Wait until shortly after the instruction is done or failed, or until the time limit; return the status."""
        status: EpisodeStatus | None = None
        until_s = seconds
        deadline = time.monotonic() + patience_s
        while self._recorder.elapsed_s() < until_s:
            if time.monotonic() > deadline:
                raise DemoError(f'waited {patience_s:.0f} s for {seconds:g} s on the robot clock: this machine is too '
                                'slow or too busy to simulate; close other programs')
            now = self._robot.wait_for_state(after_ns=now_ns)
            now_ns = now.stamp_ns
            if checker is None or status is not None:
                continue
            update = checker.update(now)
            if update.state in (EpisodeState.SUCCESS, EpisodeState.FAILURE):
                status = update
                until_s = min(seconds, self._recorder.elapsed_s() + _REST_S)
        if checker is None:
            return None
        return status or failed_status(FailureKind.TIME_OVER, f'not done in {seconds:g} s')

    def _sent(self) -> int:
        status: Any = self._recorder.status
        return int(status.targets_sent) if status is not None else 0

    def _broken(self) -> bool:
        return self._stop.is_set() or bool(self._session.ended)

    def _until(self, done: Callable[[], bool], what: str, *, meanwhile: Callable[[], None] | None = None) -> None:
        next_s = 0.0

        def poll() -> bool:
            nonlocal next_s
            if meanwhile is not None and not done() and time.monotonic() >= next_s:
                next_s = time.monotonic() + _PUBLISH_PERIOD_S
                meanwhile()
            return done()

        try:
            self._robot.wait_until(poll, what)
        except LiveGraphError as error:
            raise DemoError(f'{error}; {self._policy_state()}') from error

    def _policy_state(self) -> str:
        status = self._recorder.status
        if status is None:
            return 'the policy has not published its status'
        return f'policy status: {status.detail or "no hold"} (hold reason {status.hold_reason})'

    def _print(self, text: str) -> None:
        self._console.print(f'demo: {text}', markup=False, highlight=False)
