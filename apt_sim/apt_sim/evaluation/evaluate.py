"""Trials of a policy in closed loop, without ROS and without waiting.

The policy's side is the node's own program: its loop with chunking and safety over its planner, then the
inverse-kinematics bridges. Only time differs: the simulation stands still while a plan is made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.sample import HoldReason, Target
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import Planner
from apt_policy.inference.report import LoopConfig
from apt_sim.evaluation.film import Film
from apt_sim.evaluation.instant_worker import InstantWorker
from apt_sim.evaluation.referee import FailureKind, Referee, Ruling, Verdict
from apt_sim.evaluation.source import SimulatedRobot
from apt_sim.evaluation.stopwatch import Stopwatch
from apt_sim.evaluation.trial import Trial, TrialDrawer, TrialPlan, trial_scene
from apt_sim.tasks.stage import Stage, situation
from apt_sim.tasks.task import Situation
from apt_sim.world.cameras import CameraRig
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHTS

PlannerOf = Callable[[RobotContract], Planner]
"""Builds the planner where it will run; picklable."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What decides the outcome of trials, but for the policy."""

    contract: str
    """Path."""
    replan_s: float = 0.8
    """Between the observations of two plans, in simulated time [s]."""
    delay_s: float = 0.0
    """From an observation to its plan, in simulated time [s]."""
    patience: float = 1.0
    """Multiplies the time that each instruction may take."""
    videos: Path | None = None
    """Folder for a film of every trial that failed."""

    def __post_init__(self) -> None:
        for name in ('replan_s', 'delay_s'):
            value = getattr(self, name)
            if not 0.0 <= value <= 10.0:
                raise ValueError(f'{name} is {value}; expected 0 .. 10 s of simulated time')
        if not 0.0 < self.patience <= 10.0:
            raise ValueError(f'patience is {self.patience}; expected more than 0, at most 10')


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How one trial ended."""

    split: str
    number: int
    seed: int
    """Of its scene."""
    instructions: tuple[str, ...]
    success: bool
    approached: bool
    """Whether a hand came nearer to the object that was asked for first than to any other."""
    failure: FailureKind | None
    """The kind of a failure, None for a success."""
    reason: str
    """Of a failure, for people."""
    duration_s: float
    """Simulated time."""
    spent_s: dict[str, float] = field(compare=False)
    """Wall-clock time by what it was spent on."""


class Evaluator:
    """Runs the trials of a list of plans, numbered through; belongs to one process."""

    def __init__(self, settings: EvaluationSettings, planner_of: PlannerOf, plans: tuple[TrialPlan, ...],
                 episodes: int) -> None:
        """Build robot, cameras and policy.

        Raises:
            ContractError, SceneError, GraphicsError, CheckpointError, VlmError: see there.
        """
        self._settings, self._plans, self._episodes = settings, plans, episodes
        self._contract = load_contract(settings.contract)
        self._planner = planner_of(self._contract)
        self._simulation = Simulation(self._contract, trial_scene(self._contract, LIGHTS))
        self._stage = Stage(self._simulation)
        self._drawer = TrialDrawer(self._contract, self._stage.reset)
        self._rig = CameraRig(self._simulation)

    def __call__(self, job: int) -> TrialResult:
        """Trial ``job % episodes`` of plan ``job // episodes``."""
        plan, number = self._plans[job // self._episodes], job % self._episodes
        stopwatch = Stopwatch()
        with stopwatch.on('all'):
            trial, scene, _ = self._drawer.begin(plan, number)
            film = Film(self._rig, self._contract) if self._settings.videos else None
            verdict, approached = self._run(trial, scene, stopwatch, film)
            if film is not None and self._settings.videos and verdict.ruling is Ruling.FAILURE:
                film.save(self._settings.videos / f'{plan.split.value}_{number:04d}.mp4', verdict.reason)
        return TrialResult(
            split=plan.split.value, number=number, seed=trial.seed, success=verdict.ruling is Ruling.SUCCESS,
            approached=approached == trial.parts[0].task.object, failure=verdict.failure, reason=verdict.reason,
            instructions=tuple(part.instruction for part in trial.parts),
            duration_s=(self._simulation.time_ns - scene.stamp_ns) / 1e9, spent_s=dict(stopwatch.spent_s))

    def close(self) -> None:
        """Give model and graphics context back."""
        self._planner.close()
        self._rig.close()

    def _situation(self) -> Situation:
        return situation(self._simulation)

    def _run(self, trial: Trial, scene: Situation, stopwatch: Stopwatch, film: Film | None) -> tuple[Verdict, str]:
        """How the trial ended, and which object a hand came nearest to."""
        worker = InstantWorker(self._planner, _SimulatedClock(self._simulation), delay_s=self._settings.delay_s,
                               stopwatch=stopwatch)
        worker.warm_up()
        robot = SimulatedRobot(self._simulation, self._rig, stopwatch)
        robot.begin(scene)
        loop = self._loop(robot, worker)
        referee = Referee(trial.parts, scene, patience=self._settings.patience)
        now, verdict = scene, Verdict(ruling=Ruling.NEXT)
        held = ''
        while verdict.ruling in (Ruling.GO_ON, Ruling.NEXT):
            if verdict.ruling is Ruling.NEXT:
                loop.set_prompt(referee.part.instruction)
            if film is not None:
                film.see(now, referee.part.instruction)
            loop.observe(now.stamp_ns)
            outcome = loop.tick(now.stamp_ns)
            with stopwatch.on('physics'):
                now = self._stage.follow(outcome) if isinstance(outcome, Target) else self._stage.wait()
            if not isinstance(outcome, Target) and outcome.reason is not HoldReason.NO_CHUNK:
                held = f'{outcome.reason.name}: {outcome.detail}'
            robot.see(now)
            verdict = referee.see(now)
        if verdict.ruling is Ruling.FAILURE and held:
            verdict = replace(verdict, reason=f'{verdict.reason}; held, {held}')
        return verdict, referee.approached

    def _loop(self, robot: SimulatedRobot, worker: InstantWorker) -> PolicyLoop:
        loop = PolicyLoop(
            source=robot, worker=worker, safety=SafetyFilter(self._contract), arms=tuple(self._contract.arms),
            config=LoopConfig(replan_period_s=self._settings.replan_s), steady=_SimulatedClock(self._simulation))
        loop.activate()
        loop.enable(True)
        return loop


class _SimulatedClock:
    """The time of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def now_ns(self) -> int:
        """Now [ns]."""
        return self._simulation.time_ns


def policy_planner(settings: PlannerConfig, contract: RobotContract) -> Planner:
    """The planner of a checkpoint.

    Raises:
        CheckpointError, VlmError, ValueError: see :func:`apt_policy.inference.planner.load_planner`.
    """
    from apt_policy.inference.planner import load_planner
    return load_planner(settings, contract)
