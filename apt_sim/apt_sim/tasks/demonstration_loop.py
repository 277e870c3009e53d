"""State machine that runs one demonstration after another on a live robot.

Each cycle resets the scene, waits until it is at rest, publishes an instruction, marks the beginning of the episode,
demonstrates, checks success and marks the end. A node executes the actions; times are the stamps of the ground truth.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target
from apt_policy.core.topics import EpisodeMark
from apt_sim.tasks.episode import LONGEST_S, InstructedTask, sample_instructed_task
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.success import is_task_done
from apt_sim.tasks.task import GroundTruth, Skill
from apt_sim.tasks.task_sampler import NoTaskError

# Nanoseconds in a second.
_NS = 1_000_000_000
# The simulator ignores commands for 0.1 s after a reset, and messages in flight must have arrived.
_SETTLE_NS = 400_000_000
# Every subscriber has the instruction before the episode begins, and the last frames still belong to the episode.
_LEAD_NS = 200_000_000
_TAIL_NS = 500_000_000
# After so many scenes in a row without a feasible task, the objects on the table are the wrong ones.
_MAX_EMPTY_SCENES = 20


@dataclass(frozen=True, kw_only=True)
class ResetScene:
    """Action that resets the scene to a seed; :meth:`DemonstrationLoop.on_reset_done` answers it."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class PublishInstruction:
    """Action that publishes an instruction."""

    instruction: str


@dataclass(frozen=True, kw_only=True)
class PublishEpisodeMark:
    """Action that publishes an episode mark."""

    mark: EpisodeMark
    reason: str = ''


LoopAction = ResetScene | PublishInstruction | PublishEpisodeMark | Target


class _Phase(Enum):
    NEXT = auto()
    RESETTING = auto()
    SETTLING = auto()
    INSTRUCTED = auto()
    RUNNING = auto()
    ENDING = auto()
    FINISHED = auto()


class DemonstrationLoop:
    """State machine of successive demonstrations."""

    def __init__(self, contract: RobotContract, skills: Sequence[Skill], *, seed: int, episodes: int) -> None:
        """Start before the first reset.

        Args:
            contract: description of the robot.
            skills: skills to demonstrate.
            seed: seed of the first scene; each further scene takes the next one.
            episodes: number of successful demonstrations after which the loop is finished; 0 means never.
        """
        self._contract, self._skills = contract, tuple(skills)
        self._seed, self._episodes = seed - 1, episodes
        self._phase, self._since_ns = _Phase.NEXT, 0
        self._before: GroundTruth | None = None
        self._instructed_task: InstructedTask | None = None
        self._expert: ScriptedExpert | None = None
        self._random = np.random.default_rng(seed)
        self.counts: Counter[str] = Counter()
        """Number of demonstrations that succeeded and failed, and of scenes without a feasible task."""
        self._empty = 0

    @property
    def finished(self) -> bool:
        """True if all episodes are done."""
        return self._phase is _Phase.FINISHED

    @property
    def running(self) -> bool:
        """True if an episode has begun and not ended."""
        return self._phase in (_Phase.RUNNING, _Phase.ENDING)

    def on_reset_done(self, now_ns: int) -> None:
        """Continue after the reset that :class:`ResetScene` requested."""
        self._enter(_Phase.SETTLING, now_ns)

    def tick(self, now: GroundTruth) -> list[LoopAction]:
        """Return the actions of this control period.

        Args:
            now: current ground truth.

        Raises:
            NoTaskError: 20 scenes in a row allow none of the skills.
        """
        waited_ns = now.stamp_ns - self._since_ns
        if self._phase is _Phase.NEXT:
            return self._next(now)
        if self._phase is _Phase.SETTLING and waited_ns >= _SETTLE_NS:
            return self._sample_task(now)
        if self._phase is _Phase.INSTRUCTED and waited_ns >= _LEAD_NS:
            self._enter(_Phase.RUNNING, now.stamp_ns)
            return [PublishEpisodeMark(mark=EpisodeMark.BEGIN)]
        if self._phase is _Phase.RUNNING:
            return self._run(now, waited_ns)
        if self._phase is _Phase.ENDING:
            return self._end(now) if waited_ns >= _TAIL_NS else [self._running_expert.step(now)]
        return []

    def abort(self, reason: str) -> list[LoopAction]:
        """Finish the loop and discard an open episode.

        Args:
            reason: goes into the episode mark.
        """
        was_open, self._phase = self.running, _Phase.FINISHED
        return [PublishEpisodeMark(mark=EpisodeMark.DISCARD, reason=reason)] if was_open else []

    @property
    def _running_expert(self) -> ScriptedExpert:
        assert self._expert is not None, 'only used while an expert runs'
        return self._expert

    def _next(self, now: GroundTruth) -> list[LoopAction]:
        if self._episodes and self.counts['succeeded'] >= self._episodes:
            self._enter(_Phase.FINISHED, now.stamp_ns)
            return []
        self._seed += 1
        self._enter(_Phase.RESETTING, now.stamp_ns)
        return [ResetScene(seed=self._seed)]

    def _sample_task(self, now: GroundTruth) -> list[LoopAction]:
        self._random = np.random.default_rng(self._seed)
        try:
            self._instructed_task = sample_instructed_task(self._contract, self._skills, now, self._random)
        except NoTaskError:
            self.counts['no task'] += 1
            self._empty += 1
            if self._empty >= _MAX_EMPTY_SCENES:
                raise
            self._enter(_Phase.NEXT, now.stamp_ns)
            return []
        self._empty = 0
        self._enter(_Phase.INSTRUCTED, now.stamp_ns)
        return [PublishInstruction(instruction=self._instructed_task.instruction)]

    def _run(self, now: GroundTruth, waited_ns: int) -> list[LoopAction]:
        assert self._instructed_task is not None, 'sampled before the episode runs'
        if self._expert is None:
            self._before = now
            self._expert = ScriptedExpert(self._contract, self._instructed_task.task, now, random=self._random,
                                          epoch=self._seed)
        target = self._expert.step(now)
        if self._expert.done or waited_ns > LONGEST_S * _NS:
            self._enter(_Phase.ENDING, now.stamp_ns)
        return [target]

    def _end(self, now: GroundTruth) -> list[LoopAction]:
        assert self._instructed_task is not None and self._before is not None, 'the episode began before it ends'
        success = self._running_expert.done and is_task_done(self._instructed_task.task, self._before, now)
        self.counts['succeeded' if success else 'failed'] += 1
        self._expert = None
        self._enter(_Phase.NEXT, now.stamp_ns)
        if success:
            return [PublishEpisodeMark(mark=EpisodeMark.END)]
        reason = f'"{self._instructed_task.instruction}" was not done'
        return [PublishEpisodeMark(mark=EpisodeMark.DISCARD, reason=reason)]

    def _enter(self, phase: _Phase, now_ns: int) -> None:
        self._phase, self._since_ns = phase, now_ns
