"""Success checker of a rollout.

A task is done when its success criterion has held for :data:`SETTLE_TIME_S`. A rollout has failed as soon as another
object is lifted or another tray is filled, even if the policy would correct itself later. Only poses count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from apt_sim.tasks.episode import InstructedTask
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.success import LIFTED, is_task_done
from apt_sim.tasks.task import GroundTruth, Skill, Task

# Tool centre in the frame of the end-effector, homogeneous [m].
_TOOL = np.array([*EE_FROM_TOOL_CENTRE, 1.0])
SETTLE_TIME_S = 0.4
"""Time for which a success or failure criterion must hold without interruption [s]."""
TIME_LIMITS_S: Mapping[Skill, float] = {Skill.PICK: 15.0, Skill.PLACE: 30.0, Skill.HAND_OVER: 40.0, Skill.PUSH: 15.0}
"""Time limit of one instruction in simulated time [s]; about twice the duration of a demonstration."""


class EpisodeState(Enum):
    """State of a rollout."""

    RUNNING = auto()
    NEXT_INSTRUCTION = auto()
    """The previous instruction is done; the next one begins."""
    SUCCESS = auto()
    FAILURE = auto()


class FailureKind(Enum):
    """Kind of a failed rollout; the values are shown in tables."""

    WRONG_OBJECT = 'wrong object'
    WRONG_TRAY = 'wrong tray'
    TIME_OVER = 'not done in time'


@dataclass(frozen=True, kw_only=True)
class EpisodeStatus:
    """State of a rollout, with the kind of a failure."""

    state: EpisodeState
    failure: FailureKind | None = None
    """Kind of failure; None while there is none."""
    reason: str = ''
    """Explanation of a failure."""


_RUNNING = EpisodeStatus(state=EpisodeState.RUNNING)
_DONE = EpisodeStatus(state=EpisodeState.SUCCESS)


def failed_status(kind: FailureKind, reason: str) -> EpisodeStatus:
    """Return the status of a failed rollout."""
    return EpisodeStatus(state=EpisodeState.FAILURE, failure=kind, reason=reason)


class SuccessChecker:
    """Success checker of one rollout."""

    def __init__(self, tasks: Sequence[InstructedTask], start: GroundTruth, *, patience: float = 1.0) -> None:
        """Start with the first instruction.

        Args:
            tasks: tasks with their instructions, in order.
            start: ground truth before the rollout.
            patience: factor on the time limit of each instruction.
        """
        self._tasks = tuple(tasks)
        self._patience = patience
        self._index = 0
        self._before = start
        self._candidate: EpisodeStatus | None = None
        self._since_ns = start.stamp_ns
        self._nearest_m: dict[str, float] = {}

    @property
    def nearest_object(self) -> str:
        """Object that a hand has come nearest to during the first instruction."""
        return min(self._nearest_m, key=lambda name: self._nearest_m[name], default='')

    @property
    def current_task(self) -> InstructedTask:
        """Task and instruction in progress."""
        return self._tasks[self._index]

    def update(self, now: GroundTruth) -> EpisodeStatus:
        """Check the current ground truth; call once per control period.

        Args:
            now: current ground truth.
        """
        if self._index == 0:
            self._update_nearest(now)
        candidate = self._assess(now)
        if candidate != self._candidate:
            self._candidate, self._since_ns = candidate, now.stamp_ns
        settled = (now.stamp_ns - self._since_ns) / 1e9 >= SETTLE_TIME_S
        if candidate is not None and settled:
            return self._advance(now) if candidate is _DONE else candidate
        limit_s = self._patience * TIME_LIMITS_S[self.current_task.task.skill]
        if (now.stamp_ns - self._before.stamp_ns) / 1e9 >= limit_s:
            return failed_status(FailureKind.TIME_OVER, f'not done in {limit_s:g} s')
        return _RUNNING

    def _advance(self, now: GroundTruth) -> EpisodeStatus:
        if self._index + 1 == len(self._tasks):
            return EpisodeStatus(state=EpisodeState.SUCCESS)
        self._index += 1
        self._before, self._candidate, self._since_ns = now, None, now.stamp_ns
        return EpisodeStatus(state=EpisodeState.NEXT_INSTRUCTION)

    def _update_nearest(self, now: GroundTruth) -> None:
        tools = [(arm.world_from_ee @ _TOOL)[:3] for arm in now.arms.values()]
        for name, pose in now.objects.items():
            gap = min(float(np.linalg.norm(tool - pose[:3, 3])) for tool in tools)
            self._nearest_m[name] = min(gap, self._nearest_m.get(name, gap))

    def _assess(self, now: GroundTruth) -> EpisodeStatus | None:
        """Return the status that the current poses suggest; None while the task is in progress."""
        task = self.current_task.task
        if is_task_done(task, self._before, now):
            return _DONE
        lifted = [name for name, pose in now.objects.items() if name != task.object and pose[2, 3] >= LIFTED]
        if lifted:
            return failed_status(FailureKind.WRONG_OBJECT, f'lifted the {lifted[0]}')
        return self._wrong_tray(task, now)

    def _wrong_tray(self, task: Task, now: GroundTruth) -> EpisodeStatus | None:
        if task.skill is not Skill.PLACE:
            return None
        others = [colour for colour in now.trays if colour != task.tray]
        filled = [colour for colour in others if is_task_done(replace(task, tray=colour), self._before, now)]
        return failed_status(FailureKind.WRONG_TRAY, f'put it into the {filled[0]} tray') if filled else None
