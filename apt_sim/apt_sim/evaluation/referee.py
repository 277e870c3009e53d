"""Watches a trial and says when it is over, and why.

A policy is judged strictly: it has done what it was told when the state of the table says so for a while, and
it has failed as soon as it lifts another object or fills another tray, even if it would have come round to the
right one. Only where things are counts; who moves them is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from apt_sim.tasks.episode import Assignment
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.success import LIFTED, done
from apt_sim.tasks.task import Situation, Skill, Task

_TOOL = np.array([*EE_FROM_TOOL_CENTRE, 1.0])
SETTLED_S = 0.4
"""A task is done when it looks done for so long [s]."""
LIMITS_S: Mapping[Skill, float] = {Skill.PICK: 15.0, Skill.PLACE: 30.0, Skill.HAND_OVER: 40.0, Skill.PUSH: 15.0}
"""Simulated time for one instruction [s]; about twice what a demonstration takes."""


class Ruling(Enum):
    """What comes next."""

    GO_ON = auto()
    NEXT = auto()
    """The next instruction."""
    SUCCESS = auto()
    FAILURE = auto()


class FailureKind(Enum):
    """What went wrong in a trial; the values are what tables say."""

    WRONG_OBJECT = 'wrong object'
    WRONG_TRAY = 'wrong tray'
    TIME_OVER = 'not done in time'


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a trial stands."""

    ruling: Ruling
    failure: FailureKind | None = None
    """The kind of a failure, None while there is none."""
    reason: str = ''
    """Of a failure, for people."""


_GO_ON = Verdict(ruling=Ruling.GO_ON)
_LOOKS_DONE = Verdict(ruling=Ruling.SUCCESS)


def failed(kind: FailureKind, reason: str) -> Verdict:
    """The verdict that ends a trial without success."""
    return Verdict(ruling=Ruling.FAILURE, failure=kind, reason=reason)


class Referee:
    """Judges one trial."""

    def __init__(self, parts: Sequence[Assignment], start: Situation, *, patience: float = 1.0) -> None:
        """``start``: the table before anything moved; ``patience`` multiplies the time for each instruction."""
        self._parts = tuple(parts)
        self._patience = patience
        self._index = 0
        self._before = start
        self._looks: Verdict | None = None
        self._since_ns = start.stamp_ns
        self._nearest_m: dict[str, float] = {}

    @property
    def approached(self) -> str:
        """The object that a hand has come nearest to while the first instruction was in force."""
        return min(self._nearest_m, key=lambda name: self._nearest_m[name], default='')

    @property
    def part(self) -> Assignment:
        """What is to be done now."""
        return self._parts[self._index]

    def see(self, now: Situation) -> Verdict:
        """Judge the table as it is now; once per control period."""
        if self._index == 0:
            self._note_approach(now)
        looks = self._look(now)
        if looks != self._looks:
            self._looks, self._since_ns = looks, now.stamp_ns
        settled = (now.stamp_ns - self._since_ns) / 1e9 >= SETTLED_S
        if looks is not None and settled:
            return self._advance(now) if looks is _LOOKS_DONE else looks
        limit_s = self._patience * LIMITS_S[self.part.task.skill]
        if (now.stamp_ns - self._before.stamp_ns) / 1e9 >= limit_s:
            return failed(FailureKind.TIME_OVER, f'not done in {limit_s:g} s')
        return _GO_ON

    def _advance(self, now: Situation) -> Verdict:
        if self._index + 1 == len(self._parts):
            return Verdict(ruling=Ruling.SUCCESS)
        self._index += 1
        self._before, self._looks, self._since_ns = now, None, now.stamp_ns
        return Verdict(ruling=Ruling.NEXT)

    def _note_approach(self, now: Situation) -> None:
        tools = [(arm.world_from_ee @ _TOOL)[:3] for arm in now.arms.values()]
        for name, pose in now.objects.items():
            gap = min(float(np.linalg.norm(tool - pose[:3, 3])) for tool in tools)
            self._nearest_m[name] = min(gap, self._nearest_m.get(name, gap))

    def _look(self, now: Situation) -> Verdict | None:
        """Success when the task looks done, a failure when it went wrong, None while it is open."""
        task = self.part.task
        if done(task, self._before, now):
            return _LOOKS_DONE
        lifted = [name for name, pose in now.objects.items() if name != task.object and pose[2, 3] >= LIFTED]
        if lifted:
            return failed(FailureKind.WRONG_OBJECT, f'lifted the {lifted[0]}')
        return self._wrong_tray(task, now)

    def _wrong_tray(self, task: Task, now: Situation) -> Verdict | None:
        if task.skill is not Skill.PLACE:
            return None
        others = [colour for colour in now.trays if colour != task.tray]
        filled = [colour for colour in others if done(replace(task, tray=colour), self._before, now)]
        return failed(FailureKind.WRONG_TRAY, f'put it into the {filled[0]} tray') if filled else None
