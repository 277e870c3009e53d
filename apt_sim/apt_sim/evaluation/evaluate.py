"""Closed-loop rollouts of a policy, without ROS and without waiting.

The policy's side is the node's own program: its loop with chunking and safety over its planner, then the
inverse-kinematics bridges. Only time differs: simulated time stands still during inference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.sample import HoldReason, Target
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import Planner
from apt_policy.inference.report import LoopConfig
from apt_sim.evaluation.loop_ports import SimulatedClock, SimulatedObservationSource, SynchronousWorker
from apt_sim.evaluation.rollout import Rollout, RolloutPlan, RolloutSampler, rollout_scene
from apt_sim.evaluation.stopwatch import Stopwatch
from apt_sim.evaluation.success_checker import EpisodeState, EpisodeStatus, FailureKind, SuccessChecker
from apt_sim.images import FONT, write_video
from apt_sim.tasks.task import GroundTruth
from apt_sim.tasks.task_scene import TaskScene
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHT_RANDOMIZATION

PlannerFactory = Callable[[RobotContract], Planner]
"""Picklable factory that builds the planner in the worker process."""

# Frame rate of a video in simulated time [Hz].
_VIDEO_HZ = 10
# Side of each camera's image and height of the title bar in a video [px].
_SIDE, _BAR = 256, 40


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Configuration of rollouts apart from the policy."""

    contract: str
    """Path of the robot contract."""
    replan_s: float = 0.8
    """Simulated time between the observations of two plans [s]."""
    delay_s: float = 0.0
    """Simulated time from an observation to its plan [s]."""
    patience: float = 1.0
    """Factor on the time limit of each instruction."""
    videos: Path | None = None
    """Folder for a video of every failed rollout; None records none."""

    def __post_init__(self) -> None:
        for name in ('replan_s', 'delay_s'):
            value = getattr(self, name)
            if not 0.0 <= value <= 10.0:
                raise ValueError(f'{name} is {value}; expected 0 .. 10 s of simulated time')
        if not 0.0 < self.patience <= 10.0:
            raise ValueError(f'patience is {self.patience}; expected more than 0, at most 10')


@dataclass(frozen=True, kw_only=True)
class RolloutResult:
    """Result of one rollout."""

    split: str
    number: int
    seed: int
    """Seed of the scene."""
    instructions: tuple[str, ...]
    success: bool
    reached_target_object: bool
    """True if a hand came nearer to the object of the first instruction than to any other."""
    failure: FailureKind | None
    """Kind of failure; None for a success."""
    reason: str
    """Explanation of a failure."""
    duration_s: float
    """Duration in simulated time [s]."""
    spent_s: dict[str, float] = field(compare=False)
    """Wall-clock time by activity [s]."""


class Evaluator:
    """Runs the rollouts of a list of plans; it belongs to one process."""

    def __init__(self, settings: RolloutConfig, planner_factory: PlannerFactory, plans: tuple[RolloutPlan, ...],
                 episodes: int) -> None:
        """Build robot, cameras and policy.

        Args:
            settings: configuration of the rollouts.
            planner_factory: builds the planner for the contract.
            plans: what the rollouts of each split have in common.
            episodes: number of rollouts of each plan.

        Raises:
            ContractError, SceneError: the contract cannot be read, or does not fit the simulated robot.
            GraphicsError: OpenGL is not available.
            CheckpointError, VlmError: the checkpoint or its VLM cannot be loaded.
        """
        self._settings, self._plans, self._episodes = settings, plans, episodes
        self._contract = load_contract(settings.contract)
        self._planner = planner_factory(self._contract)
        self._simulation = Simulation(self._contract, rollout_scene(self._contract, LIGHT_RANDOMIZATION))
        self._task_scene = TaskScene(self._simulation)
        self._sampler = RolloutSampler(self._contract, self._task_scene.reset)
        self._rig = CameraRig(self._simulation)

    def __call__(self, job: int) -> RolloutResult:
        """Run rollout ``job % episodes`` of plan ``job // episodes``."""
        plan, number = self._plans[job // self._episodes], job % self._episodes
        stopwatch = Stopwatch()
        with stopwatch.measure('all'):
            rollout, scene, _ = self._sampler.sample(plan, number)
            video = RolloutVideo(self._rig, self._contract) if self._settings.videos else None
            status, nearest_object = self._run(rollout, scene, stopwatch, video)
            if video is not None and self._settings.videos and status.state is EpisodeState.FAILURE:
                video.save(self._settings.videos / f'{plan.split.value}_{number:04d}.mp4', status.reason)
        return RolloutResult(
            split=plan.split.value, number=number, seed=rollout.seed, success=status.state is EpisodeState.SUCCESS,
            reached_target_object=nearest_object == rollout.instructed_tasks[0].task.object,
            failure=status.failure, reason=status.reason,
            instructions=tuple(each.instruction for each in rollout.instructed_tasks),
            duration_s=(self._simulation.time_ns - scene.stamp_ns) / 1e9, spent_s=dict(stopwatch.spent_s))

    def close(self) -> None:
        """Free planner and graphics context."""
        self._planner.close()
        self._rig.close()

    def _run(self, rollout: Rollout, scene: GroundTruth, stopwatch: Stopwatch,
             video: 'RolloutVideo | None') -> tuple[EpisodeStatus, str]:
        """Return the final status, and the object that a hand came nearest to."""
        worker = SynchronousWorker(self._planner, SimulatedClock(self._simulation), delay_s=self._settings.delay_s,
                                   stopwatch=stopwatch)
        worker.warm_up()
        source = SimulatedObservationSource(self._simulation, self._rig, stopwatch)
        source.start_episode(scene)
        loop = self._loop(source, worker)
        checker = SuccessChecker(rollout.instructed_tasks, scene, patience=self._settings.patience)
        now, status = scene, EpisodeStatus(state=EpisodeState.NEXT_INSTRUCTION)
        held = ''
        while status.state in (EpisodeState.RUNNING, EpisodeState.NEXT_INSTRUCTION):
            if status.state is EpisodeState.NEXT_INSTRUCTION:
                loop.set_prompt(checker.current_task.instruction)
            if video is not None:
                video.add_frame_if_due(now, checker.current_task.instruction)
            loop.observe(now.stamp_ns)
            outcome = loop.tick(now.stamp_ns)
            with stopwatch.measure('physics'):
                now = self._task_scene.step(outcome) if isinstance(outcome, Target) else self._task_scene.hold()
            if not isinstance(outcome, Target) and outcome.reason is not HoldReason.NO_CHUNK:
                held = f'{outcome.reason.name}: {outcome.detail}'
            source.update(now)
            status = checker.update(now)
        if status.state is EpisodeState.FAILURE and held:
            status = replace(status, reason=f'{status.reason}; held, {held}')
        return status, checker.nearest_object

    def _loop(self, source: SimulatedObservationSource, worker: SynchronousWorker) -> PolicyLoop:
        loop = PolicyLoop(
            source=source, worker=worker, safety=SafetyFilter(self._contract), arms=tuple(self._contract.arms),
            config=LoopConfig(replan_period_s=self._settings.replan_s), steady=SimulatedClock(self._simulation))
        loop.activate()
        loop.enable(True)
        return loop


class RolloutVideo:
    """Video of one rollout: all cameras side by side under the instruction; nothing is written until :meth:`save`."""

    def __init__(self, rig: CameraRig, contract: RobotContract) -> None:
        """Start without frames."""
        self._rig, self._cameras = rig, tuple(contract.cameras)
        self._frames: list[NDArray[np.uint8]] = []
        self._due_ns: int | None = None

    def add_frame_if_due(self, now: GroundTruth, instruction: str) -> None:
        """Render and append a frame if the time of the next one has come.

        Args:
            now: current ground truth; its stamp is the clock.
            instruction: text above the images.
        """
        if self._due_ns is not None and now.stamp_ns < self._due_ns:
            return
        self._due_ns = now.stamp_ns + 10**9 // _VIDEO_HZ
        self._frames.append(_titled(np.hstack([self._render(name) for name in self._cameras]), instruction))

    def save(self, path: Path, reason: str) -> None:
        """Encode the frames as H.264; the last frame shows ``reason`` for a second.

        Raises:
            OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        last = [_titled(self._frames[-1][_BAR:], reason)] * _VIDEO_HZ
        write_video([*self._frames, *last], path, rate_hz=_VIDEO_HZ)

    def _render(self, name: str) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(self._rig.render(name).rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST),
                          np.uint8)


def _titled(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    bar = np.full((_BAR, image.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, title, (8, 26), FONT, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.vstack([bar, image]))


def policy_planner(settings: PlannerConfig, contract: RobotContract) -> Planner:
    """Load the planner of a checkpoint.

    Raises:
        CheckpointError, VlmError, ValueError: see :func:`apt_policy.inference.planner.load_planner`.
    """
    from apt_policy.inference.planner import load_planner
    return load_planner(settings, contract)
