"""Planner factory of the policy node; the node itself never imports torch.

The factory is pickled by name into the worker process and imports the model there. It has a module of
its own so that the worker process does not import rclpy.
"""

from functools import partial

from apt_policy.core.contract import RobotContract
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import Planner, PlannerFactory


def trained_policy(config: PlannerConfig, contract: RobotContract) -> PlannerFactory:
    """Return the factory of the planner with a trained policy."""
    return partial(_load, config, contract)


def _load(config: PlannerConfig, contract: RobotContract) -> Planner:
    # Imported here, so that only the worker process loads torch.
    from apt_policy.inference.planner import load_planner
    return load_planner(config, contract)
