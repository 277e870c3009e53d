"""Errors on a console: one line for each mistake of a user, in place of a traceback.

The module needs nothing but Python itself until something is printed in colour, so that it can name a missing package.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from apt_policy.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

USAGE_STATUS = 2
"""Exit status for arguments and files that cannot be used, as argparse and most shells' commands have it."""
INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
_WORKSPACE_PAGE = 'docs/workspace.md'
_UNDERLAY_PACKAGES = ('interbotix_xs_msgs', 'tf2_msgs')
_ROS_SUFFIXES = ('_msgs', '_srvs', '_interfaces')
_ROS_PACKAGES = ('rclpy', 'tf2_ros', 'ament_index_python', 'domain_coordinator')
_SUITE_PREFIX = 'apt_'


def print_error(console: 'Console', text: str) -> None:
    """Print ``text`` in red, without markup and without line breaks: a path that is broken in two cannot be copied."""
    from rich.text import Text
    console.print(Text(text, style='red'), soft_wrap=True)


def run_program(program: str, run: Callable[[], int], *, also: tuple[type[Exception], ...] = (),
                interrupted: str = 'interrupted') -> int:
    """Run a program and report mistakes of its user as one line on stderr.

    Args:
        program: name of the program, the first word of the line.
        run: the program itself; returns its exit status.
        also: other errors whose message is enough for the user.
        interrupted: text for Ctrl-C.

    Returns:
        The status of ``run``; 2 after an error of the user or of one of the user's files, 130 after Ctrl-C.

    Raises:
        SystemExit: with status 1, where a Python package is not installed.
    """
    mistakes: tuple[type[Exception], ...] = (UserError, OSError, *also)
    try:
        with explain_missing(program):
            return run()
    except KeyboardInterrupt:
        sys.stderr.write(f'{program}: {interrupted}\n')
        return INTERRUPTED_STATUS
    except mistakes as error:
        sys.stderr.write(f'{program}: {error_text(error)}\n')
        return USAGE_STATUS


def error_text(error: Exception) -> str:
    """Return what an error says, without numbers of the operating system and without a Python class name."""
    if isinstance(error, UserError) or not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f'{error.filename}: {error.strerror}'


@contextmanager
def explain_missing(program: str, *, later: Sequence[str] = ()) -> Iterator[None]:
    """End the program with status 1 and one line on stderr where a module cannot be found in the block.

    Args:
        program: name of the program, the first word of the line.
        later: modules that are imported only after the start, and are looked for at once.

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
        # A part of a package that is installed: a fault in the code, which a traceback explains best.
        if not module or module in sys.modules:
            raise
        sys.stderr.write(f'{program}: {_installation_hint(module)} ({_WORKSPACE_PAGE})\n')
        raise SystemExit(1) from None


def _installation_hint(module: str) -> str:
    """Return which module is missing, and how to install it."""
    missing = f'{sys.executable} finds no {module}'
    if module in _UNDERLAY_PACKAGES:
        return f'{missing}: build it from underlay/ in this workspace, or source the workspace that has it'
    if module.startswith(_SUITE_PREFIX):
        return f'{missing}: build the workspace and source its install/setup.bash'
    if module.endswith(_ROS_SUFFIXES) or module in _ROS_PACKAGES:
        return f'{missing}: source the ROS distribution, or install what rosdep lists'
    return (f'{missing}: install requirements/python.txt into a virtual environment, '
            'and build the workspace with its Python')
