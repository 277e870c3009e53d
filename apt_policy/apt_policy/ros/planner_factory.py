"""How the node's worker gets its planner, without the node ever importing torch.

The function here is pickled by name into the worker, and imports the model only there. It
knows nothing of ROS.
"""

from functools import partial

from apt_policy.core.contract import RobotContract
from apt_policy.inference.planner_config import PlannerConfig
from apt_policy.inference.ports import Planner, PlannerFactory


def trained_policy(config: PlannerConfig, contract: RobotContract) -> PlannerFactory:
    """A factory of the real planner."""
    return partial(_load, config, contract)


def _load(config: PlannerConfig, contract: RobotContract) -> Planner:
    # Here and not above: in a node with a worker process, only that process pays for torch.
    from apt_policy.inference.planner import load_planner
    return load_planner(config, contract)
