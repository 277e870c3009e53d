"""How the node's worker gets its planner, without the node ever importing torch.

The function here is pickled by name into the worker, and imports the model only there. It
knows nothing of ROS.
"""

from functools import partial
from typing import Any

from apt_policy.core.contract import RobotContract
from apt_policy.runtime.ports import Planner, PlannerFactory


def trained_policy(contract: RobotContract, **settings: Any) -> PlannerFactory:
    """A factory of the real planner; ``settings`` are the fields of ``PlannerSettings``."""
    return partial(_load, contract, settings)


def _load(contract: RobotContract, settings: dict[str, Any]) -> Planner:
    # Here and not above: in a node with a worker process, only that process pays for torch.
    from apt_policy.runtime.planner import PlannerSettings, load_planner
    return load_planner(PlannerSettings(**settings), contract)
