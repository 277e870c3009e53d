"""Starts the graph for live trials on a domain of its own, and ends it whatever happens."""

import os
from collections.abc import Iterator, Sequence

import rclpy
from domain_coordinator import domain_id
from rclpy.signals import SignalHandlerOptions

from apt_bringup.arguments import ArgumentError
from apt_bringup.managed import BringUpError
from apt_bringup.session import Session, StartError
from apt_demos.live_evaluation.live import LiveEvaluator, trial_graph
from apt_demos.live_evaluation.live_robot import LiveError
from apt_sim.evaluation.evaluate import EvaluationSettings
from apt_sim.evaluation.live import LivePolicy
from apt_sim.evaluation.trial import TrialPlan
from apt_training.bulk.pool import JobDone, WorkerPoolError


def run_live(settings: EvaluationSettings, policy: LivePolicy, plans: tuple[TrialPlan, ...], episodes: int,
             todo: Sequence[int]) -> Iterator[JobDone]:
    """Every trial, one after the other.

    Raises:
        WorkerPoolError: the graph cannot be started, a node ended, or does not answer.
    """
    with domain_id() as domain:
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
        try:
            with Session(trial_graph(settings, policy), environment=environment) as session:
                rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
                try:
                    evaluator = LiveEvaluator(settings, session, plans, episodes)
                    for job in todo:
                        yield JobDone(number=job, result=evaluator(job))
                    evaluator.close()
                finally:
                    rclpy.shutdown()
        except (ArgumentError, StartError, BringUpError, LiveError) as error:
            raise WorkerPoolError(str(error)) from error
