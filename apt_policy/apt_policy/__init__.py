"""The APT vision-language-action policy: ``from apt_policy import TrajPlanner``.

That name is looked up when it is asked for, so that the parts which need no torch do not load it.
"""

__all__ = ['TrajPlanner']


def __getattr__(name: str) -> type:
    if name == 'TrajPlanner':
        from apt_policy.inference.traj_planner import TrajPlanner
        return TrajPlanner
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it offers {", ".join(__all__)}')
