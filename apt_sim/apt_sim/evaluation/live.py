"""Trials through the live graph: what its nodes are started with, and who runs them.

The graph stands above this package, so whoever can start it registers itself as an entry point (``apt_demos`` does).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from apt_policy.core.errors import UserError
from apt_policy.inference.planner_settings import PlannerSettings
from apt_sim.evaluation.evaluate import EvaluationSettings
from apt_sim.evaluation.trial import TrialPlan
from apt_training.bulk.pool import Done

RUNNERS = 'apt_sim.trial_runners'


class NoRunnerError(UserError, ValueError):
    """No installed package starts the live graph."""


@dataclass(frozen=True, kw_only=True)
class LivePolicy:
    """What the nodes are started with."""

    planner: PlannerSettings
    speed: float
    """Simulated seconds per second, if the machine keeps up."""


class LiveRunner(Protocol):
    """Runs every trial of ``todo`` over DDS, one after the other."""

    def __call__(self, settings: EvaluationSettings, policy: LivePolicy, plans: tuple[TrialPlan, ...],
                 episodes: int, todo: Sequence[int]) -> Iterator[Done]:
        """
        Raises:
            CrewError: the graph cannot be started, a node ended, or does not answer.
        """


def live_runner() -> LiveRunner:
    """Find the installed runner.

    Raises:
        NoRunnerError: there is none.
    """
    for entry in entry_points(group=RUNNERS, name='ros'):
        runner: LiveRunner = entry.load()
        return runner
    raise NoRunnerError('--ros starts the live graph, which the package apt_demos does; it is not installed here')
