"""One-line errors for missing Python modules, in place of a traceback.

This module needs only the standard library. Programs import everything else within :func:`explain_missing`.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

_PAGE = 'docs/workspace.md'
_UNDERLAY = ('interbotix_xs_msgs', 'tf2_msgs')
_OF_ROS = ('_msgs', '_srvs', '_interfaces')
_OF_ROS_BY_NAME = ('rclpy', 'tf2_ros', 'ament_index_python', 'domain_coordinator')
_OURS = 'apt_'


@contextmanager
def explain_missing(program: str, *, later: Sequence[str] = ()) -> Iterator[None]:
    """End the program with status 1 and one line on stderr if a module is missing in the block.

    Args:
        program: name of the program, first word of the line.
        later: modules that are imported only after the start; they are searched at once.

    Raises:
        SystemExit: a module is missing.
    """
    try:
        for name in later:
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
        yield
    except ModuleNotFoundError as error:
        module = (error.name or '').partition('.')[0]
        # A missing part of an installed package is a defect, which needs a traceback.
        if not module or module in sys.modules:
            raise
        sys.stderr.write(f'{program}: {_remedy(module)} ({_PAGE})\n')
        raise SystemExit(1) from None


def _remedy(module: str) -> str:
    """Describe the missing module and how to install it."""
    here = f'{sys.executable} finds no'
    if module in _UNDERLAY:
        return (f'{here} {module}: build it from underlay/ in this workspace, or source the workspace that has it')
    if module.startswith(_OURS):
        return f'{here} {module}: build the workspace and source its install/setup.bash'
    if module.endswith(_OF_ROS) or module in _OF_ROS_BY_NAME:
        return f'{here} {module}: source the ROS distribution, or install what rosdep lists'
    return (f'{here} {module}: install requirements/python.txt into a virtual environment, '
            'and build the workspace with its Python')
