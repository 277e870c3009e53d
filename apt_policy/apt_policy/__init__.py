"""The APT vision-language-action policy: ``from apt_policy import TrajPlanner``.

``TrajPlanner`` is imported on first access, so that modules without torch stay light.
"""

__all__ = ['TrajPlanner']


def __getattr__(name: str) -> type:
    if name == 'TrajPlanner':
        from apt_policy.inference.traj_planner import TrajPlanner
        return TrajPlanner
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it offers {", ".join(__all__)}')
