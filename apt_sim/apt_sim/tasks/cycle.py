"""Demonstration after demonstration on a running robot: what is to be done when.

Reset, look, instruct, mark the beginning, demonstrate, judge, mark the end. It decides; a node carries out.
Times are those of the situations that it is given.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from apt_policy.core.contract import RobotContract
from apt_policy.core.sample import Target
from apt_policy.core.topics import EpisodeMark
from apt_sim.tasks.demonstrator import Demonstrator
from apt_sim.tasks.draw import NoTaskError
from apt_sim.tasks.episode import LONGEST_S, Assignment, assign
from apt_sim.tasks.success import done
from apt_sim.tasks.task import Situation, Skill

_NS = 1_000_000_000
# The simulator is deaf for 0.1 s after a reset, and what was under way must have arrived.
_SETTLE_NS = 400_000_000
# The instruction is known everywhere before the episode begins, and its last frames belong to it.
_LEAD_NS = 200_000_000
_TAIL_NS = 500_000_000
# A robot on which so many scenes in a row allow nothing has the wrong objects on its table.
_MOST_EMPTY_SCENES = 20


@dataclass(frozen=True, kw_only=True)
class Reset:
    """Begin the scene of a seed; answered by :meth:`Cycle.was_reset`."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class Instruct:
    """Publish an instruction."""

    instruction: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Publish an episode mark."""

    mark: EpisodeMark
    reason: str = ''


Act = Reset | Instruct | Mark | Target


class _Stage(Enum):
    NEXT = auto()
    RESETTING = auto()
    LOOKING = auto()
    INSTRUCTED = auto()
    RUNNING = auto()
    ENDING = auto()
    FINISHED = auto()


class Cycle:
    """The course of a session of demonstrations."""

    def __init__(self, contract: RobotContract, skills: Sequence[Skill], *, seed: int, episodes: int) -> None:
        """
        Args:
            seed: of the first scene; each further one takes the next.
            episodes: successful demonstrations after which the session is finished; 0: never.
        """
        self._contract, self._skills = contract, tuple(skills)
        self._seed, self._episodes = seed - 1, episodes
        self._stage, self._since_ns = _Stage.NEXT, 0
        self._before: Situation | None = None
        self._assignment: Assignment | None = None
        self._demonstrator: Demonstrator | None = None
        self._random = np.random.default_rng(seed)
        self.tally: Counter[str] = Counter()
        """Demonstrations that succeeded and failed, and scenes that allowed no task."""
        self._empty = 0

    @property
    def finished(self) -> bool:
        """Whether all episodes are done."""
        return self._stage is _Stage.FINISHED

    @property
    def running(self) -> bool:
        """Whether an episode is open."""
        return self._stage in (_Stage.RUNNING, _Stage.ENDING)

    def was_reset(self, now_ns: int) -> None:
        """The scene that :class:`Reset` asked for is there."""
        self._enter(_Stage.LOOKING, now_ns)

    def tick(self, now: Situation) -> list[Act]:
        """What is to be done in this control period.

        Raises:
            NoTaskError: scene after scene allows none of the skills.
        """
        waited_ns = now.stamp_ns - self._since_ns
        if self._stage is _Stage.NEXT:
            return self._next(now)
        if self._stage is _Stage.LOOKING and waited_ns >= _SETTLE_NS:
            return self._look(now)
        if self._stage is _Stage.INSTRUCTED and waited_ns >= _LEAD_NS:
            self._enter(_Stage.RUNNING, now.stamp_ns)
            return [Mark(mark=EpisodeMark.BEGIN)]
        if self._stage is _Stage.RUNNING:
            return self._run(now, waited_ns)
        if self._stage is _Stage.ENDING:
            return self._end(now) if waited_ns >= _TAIL_NS else [self._demonstration.step(now)]
        return []

    def break_off(self, reason: str) -> list[Act]:
        """End in the midst of it; what is open is not to be learned from."""
        was_open, self._stage = self.running, _Stage.FINISHED
        return [Mark(mark=EpisodeMark.DISCARD, reason=reason)] if was_open else []

    @property
    def _demonstration(self) -> Demonstrator:
        assert self._demonstrator is not None, 'only asked for while one runs'
        return self._demonstrator

    def _next(self, now: Situation) -> list[Act]:
        if self._episodes and self.tally['succeeded'] >= self._episodes:
            self._enter(_Stage.FINISHED, now.stamp_ns)
            return []
        self._seed += 1
        self._enter(_Stage.RESETTING, now.stamp_ns)
        return [Reset(seed=self._seed)]

    def _look(self, now: Situation) -> list[Act]:
        self._random = np.random.default_rng(self._seed)
        try:
            self._assignment = assign(self._contract, self._skills, now, self._random)
        except NoTaskError:
            self.tally['no task'] += 1
            self._empty += 1
            if self._empty >= _MOST_EMPTY_SCENES:
                raise
            self._enter(_Stage.NEXT, now.stamp_ns)
            return []
        self._empty = 0
        self._enter(_Stage.INSTRUCTED, now.stamp_ns)
        return [Instruct(instruction=self._assignment.instruction)]

    def _run(self, now: Situation, waited_ns: int) -> list[Act]:
        assert self._assignment is not None, 'assigned before it runs'
        if self._demonstrator is None:
            self._before = now
            self._demonstrator = Demonstrator(self._contract, self._assignment.task, now, random=self._random,
                                              epoch=self._seed)
        target = self._demonstrator.step(now)
        if self._demonstrator.done or waited_ns > LONGEST_S * _NS:
            self._enter(_Stage.ENDING, now.stamp_ns)
        return [target]

    def _end(self, now: Situation) -> list[Act]:
        assert self._assignment is not None and self._before is not None, 'begun before it ends'
        success = self._demonstration.done and done(self._assignment.task, self._before, now)
        self.tally['succeeded' if success else 'failed'] += 1
        self._demonstrator = None
        self._enter(_Stage.NEXT, now.stamp_ns)
        if success:
            return [Mark(mark=EpisodeMark.END)]
        return [Mark(mark=EpisodeMark.DISCARD, reason=f'"{self._assignment.instruction}" was not done')]

    def _enter(self, stage: _Stage, now_ns: int) -> None:
        self._stage, self._since_ns = stage, now_ns
