"""Old names of programs, which work for one more release and say what they are called now."""

import importlib
import sys
from importlib.util import find_spec


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
    print(f'{old} is now {new}; the old name ends with release 0.3', file=sys.stderr)
    status: int | None = importlib.import_module(module).main()
    return status or 0
