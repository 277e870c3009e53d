"""Runner of live rollouts: start the graph on its own DDS domain, and always stop it."""

import os
from collections.abc import Iterator, Sequence

import rclpy
from domain_coordinator import domain_id
from rclpy.signals import SignalHandlerOptions

from apt_bringup.arguments import ArgumentError
from apt_bringup.managed import BringUpError
from apt_bringup.session import Session, StartError
from apt_demos.live_evaluation.live import LiveEvaluator, rollout_graph
from apt_demos.live_evaluation.live_robot import LiveGraphError
from apt_sim.evaluation.evaluate import RolloutConfig
from apt_sim.evaluation.live import LivePolicyConfig
from apt_sim.evaluation.rollout import RolloutPlan
from apt_training.bulk.pool import JobDone, WorkerPoolError


def run_live(settings: RolloutConfig, policy: LivePolicyConfig, plans: tuple[RolloutPlan, ...], episodes: int,
             todo: Sequence[int]) -> Iterator[JobDone]:
    """Run the rollouts one after the other and yield their results; see :class:`apt_sim.evaluation.live.LiveRunner`."""
    with domain_id() as domain:
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
        try:
            with Session(rollout_graph(settings, policy), environment=environment) as session:
                rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
                try:
                    evaluator = LiveEvaluator(settings, session, plans, episodes)
                    for job in todo:
                        yield JobDone(number=job, result=evaluator(job))
                    evaluator.close()
                finally:
                    rclpy.shutdown()
        except (ArgumentError, StartError, BringUpError, LiveGraphError) as error:
            raise WorkerPoolError(str(error)) from error
