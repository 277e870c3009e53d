"""Old names of programs and old places of files, which work for one more release and print the new ones."""

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

REMOVAL_RELEASE = '0.3'
"""Release that drops the old names of programs, flags and places, as docs/moved.md says."""
_OLD_HOME, _NEW_HOME = 'apt_bringup', 'apt_sim'
"""Packages that contained, and contain, the shipped checkpoints."""
COMMANDS = {
    'apt-operate': ('apt-ctl', 'apt_policy.ros.ctl'),
    'apt-pack': ('apt-export', 'apt_training.export.main'),
    'apt-sim-data': ('apt-sim-collect', 'apt_sim.collect.main'),
    'apt-sim-questions': ('apt-sim-vqa', 'apt_sim.vqa.main'),
    'apt-teach': ('apt-finetune-vlm', 'apt_training.vlm_finetune.main'),
}
"""Commands by their old names: the new name, and the module of the program."""


def main() -> int:
    """Run the command that has the called one's place, and print its new name."""
    old = Path(sys.argv[0]).name
    new, module = COMMANDS[old]
    package = module.partition('.')[0]
    return run_moved(f'{package} {old}', f'{package} {new}', module)


def run_moved(old: str, new: str, module: str) -> int:
    """Run ``module.main()`` in the place of a program of another name.

    Args:
        old: old name of the program, as it is typed.
        new: new name, as it is typed.
        module: dotted name of the module with the program.

    Returns:
        Exit status of the program; 2 if its package is not installed.
    """
    package = module.partition('.')[0]
    if find_spec(package) is None:
        print(f'{old} moved to the package {package}, which is not installed here', file=sys.stderr)
        return 2
    print(f'{old} is now {new}; the old name ends with release {REMOVAL_RELEASE}', file=sys.stderr)
    status: int | None = importlib.import_module(module).main()
    return status or 0


def current_checkpoint(path: str | Path) -> Path:
    """Return the present place of the checkpoint at ``path``, and print it once if it moved.

    Shipped checkpoints moved from ``apt_bringup/checkpoints`` to ``apt_sim/checkpoints``, in the repository and in
    installed share folders. Any other path is returned unchanged, whether it exists or not.
    """
    path = Path(path)
    if path.exists():
        return path
    for place in _new_places(path):
        if place.exists():
            _print_once(f'{path} moved to {place}; the old place ends with release {REMOVAL_RELEASE}')
            return place
    return path


def current_vlm(name: str) -> str:
    """Return hub name or folder of a VLM; the present place of a folder that moved, as :func:`current_checkpoint`."""
    return str(current_checkpoint(name)) if name else name


def _new_places(path: Path) -> list[Path]:
    """Return present places of ``path``, the likeliest first; none if it is not an old place."""
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
def _print_once(text: str) -> None:
    print(text, file=sys.stderr)
