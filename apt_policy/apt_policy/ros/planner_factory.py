"""How the node's worker gets its planner, without the node ever importing torch.

The function here is pickled by name into the worker, and imports the model only there. It
knows nothing of ROS.
"""

from functools import partial

from apt_policy.core.contract import RobotContract
from apt_policy.inference.planner_settings import PlannerSettings
from apt_policy.inference.ports import Planner, PlannerFactory


def trained_policy(settings: PlannerSettings, contract: RobotContract) -> PlannerFactory:
    """A factory of the real planner."""
    return partial(_load, settings, contract)


def _load(settings: PlannerSettings, contract: RobotContract) -> Planner:
    # Here and not above: in a node with a worker process, only that process pays for torch.
    from apt_policy.inference.planner import load_planner
    return load_planner(settings, contract)
