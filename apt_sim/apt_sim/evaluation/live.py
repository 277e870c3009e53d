"""Rollouts through the live graph of nodes: configuration, and look-up of the runner.

This package cannot import the graph; a package that starts it registers a runner as an entry point (``apt_demos``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from apt_policy.core.errors import UserError
from apt_policy.inference.planner_config import PlannerConfig
from apt_sim.evaluation.evaluate import RolloutConfig
from apt_sim.evaluation.rollout import RolloutPlan
from apt_training.bulk.pool import JobDone

RUNNERS = 'apt_sim.trial_runners'


class NoRunnerError(UserError, ValueError):
    """Live runner that no installed package provides."""


@dataclass(frozen=True, kw_only=True)
class LivePolicyConfig:
    """Configuration of the live policy and simulator nodes."""

    planner: PlannerConfig
    """Settings of the planner."""
    speed: float
    """Simulated seconds per second of wall time; a slow machine may not reach it."""


class LiveRunner(Protocol):
    """Runs every rollout of ``todo`` over DDS, one after the other."""

    def __call__(self, settings: RolloutConfig, policy: LivePolicyConfig, plans: tuple[RolloutPlan, ...],
                 episodes: int, todo: Sequence[int]) -> Iterator[JobDone]:
        """Run the rollouts and yield their results.

        Args:
            settings: configuration of the rollouts.
            policy: configuration of the nodes.
            plans: what the rollouts of each split have in common.
            episodes: number of rollouts of each plan.
            todo: numbers of the rollouts, counted over all plans.

        Raises:
            WorkerPoolError: the graph cannot be started, or a node ended or does not respond.
        """


def live_runner() -> LiveRunner:
    """Find the installed runner.

    Raises:
        NoRunnerError: no runner is installed.
    """
    for entry in entry_points(group=RUNNERS, name='ros'):
        runner: LiveRunner = entry.load()
        return runner
    raise NoRunnerError('--ros needs the package apt_demos, which starts the live graph and is not installed; '
                        'install it, or run without --ros')
