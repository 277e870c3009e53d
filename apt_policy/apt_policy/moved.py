"""Old names of programs and old places of files, which work for one more release and say what they are now."""

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_LAST_RELEASE = '0.3'
_OLD_HOME, _NEW_HOME = 'apt_bringup', 'apt_sim'
"""The packages that shipped checkpoints were in, and are in."""


def run_moved(old: str, new: str, module: str) -> int:
    """Run ``module.main()`` in the place of a program of another name.

    Args:
        old: what was called, as it is typed.
        new: what to call in its place, as it is typed.
        module: dotted name of the module that has the program now.

    Returns:
        The program's exit status; 2 where the package that has it is not installed.
    """
    package = module.partition('.')[0]
    if find_spec(package) is None:
        print(f'{old} moved to the package {package}, which is not installed here', file=sys.stderr)
        return 2
    print(f'{old} is now {new}; the old name ends with release {_LAST_RELEASE}', file=sys.stderr)
    status: int | None = importlib.import_module(module).main()
    return status or 0


def current_checkpoint(path: str | Path) -> Path:
    """Return where the checkpoint at ``path`` lies now, and say once where it went.

    Shipped checkpoints moved from ``apt_bringup/checkpoints`` to ``apt_sim/checkpoints``, in the repository and in
    installed share folders. Any other path comes back as it is, whether anything is there or not.
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
    """List where ``path`` may lie now, the likeliest first; empty where it is no old place."""
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
