"""What processes of a pool are made of, which have to be able to import it."""

from apt_policy.inference.fakes import Fault, HoverPlanner


def hover(contract, fault=Fault.NONE):
    """A planner that goes nowhere."""
    return HoverPlanner(horizon=contract.horizon, step_s=contract.step_s, fault=fault)
