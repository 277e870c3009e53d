"""Old names of programs and old paths of files, which work for one more release and print the new name."""

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_LAST_RELEASE = '0.3'
_OLD_HOME, _NEW_HOME = 'apt_bringup', 'apt_sim'
"""Packages that contained and contain the shipped checkpoints."""


def run_moved(old: str, new: str, module: str) -> int:
    """Run ``module.main()`` for a program that was renamed.

    Args:
        old: old command.
        new: new command.
        module: dotted name of the module that contains the program now.

    Returns:
        The program's exit status; 2 if its package is not installed.
    """
    package = module.partition('.')[0]
    if find_spec(package) is None:
        print(f'{old} moved to the package {package}, which is not installed here', file=sys.stderr)
        return 2
    print(f'{old} is now {new}; the old name ends with release {_LAST_RELEASE}', file=sys.stderr)
    status: int | None = importlib.import_module(module).main()
    return status or 0


def current_checkpoint(path: str | Path) -> Path:
    """Return the present path of the checkpoint at ``path``, and print the new path once if it moved.

    Shipped checkpoints moved from ``apt_bringup/checkpoints`` to ``apt_sim/checkpoints``, in the repository and in
    installed share folders. Any other path is returned unchanged.
    """
    path = Path(path)
    if path.exists():
        return path
    for place in _new_places(path):
        if place.exists():
            _say_once(f'{path} moved to {place}; the old place ends with release {_LAST_RELEASE}')
            return place
    return path


def _new_places(path: Path) -> list[Path]:
    """List the possible new paths of ``path``, the most likely first; empty if it is not an old path."""
    parts = path.parts
    homes = [at for at in range(len(parts) - 1) if parts[at:at + 2] == (_OLD_HOME, 'checkpoints')]
    if not homes:
        return []
    home = homes[-1]
    merged = (*parts[:home], _NEW_HOME, *parts[home + 1:])
    if parts[max(home - 2, 0):home] != (_OLD_HOME, 'share'):
        return [Path(*merged)]
    # In an isolated install each package has a prefix of its own: PREFIX/apt_bringup/share/apt_bringup.
    isolated = (*parts[:home - 2], _NEW_HOME, *merged[home - 1:])
    return [Path(*isolated), Path(*merged)]


@cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)
