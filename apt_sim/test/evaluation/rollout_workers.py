"""Planners for worker processes, which import this module by name."""

from apt_policy.inference.hover_planner import Fault, HoverPlanner


def hover(contract, fault=Fault.NONE):
    """Return a planner that holds its position."""
    return HoverPlanner(horizon=contract.horizon, step_s=contract.step_s, fault=fault)
