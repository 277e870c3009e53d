"""The ledger of measurements: one entry per figure in ``out/bench.json``.

A benchmark calls :func:`record`; it knows nothing of how the others run.
"""

import fcntl
import json
from pathlib import Path

from apt_policy.core.atomic import write_text

PATH = Path(__file__).resolve().parents[1] / 'out' / 'bench.json'


def record(*, name: str, value: float, unit: str, goal: str, command: str, path: Path = PATH) -> None:
    """Print one figure and merge it by name into the ledger.

    Args:
        goal: what it is held against, such as ``>= 4``; empty for a figure that is only reported.
        command: what reproduces it, from the repository's root.

    Raises:
        ValueError: the ledger exists, but is not a list of entries; remove it.
    """
    entry = {'name': name, 'value': value, 'unit': unit, 'goal': goal, 'command': command}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Benchmarks may run side by side; a reader must never see half a file.
    with (path.parent / '.bench.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [other for other in _read(path) if other['name'] != name]
        text = json.dumps(sorted([*kept, entry], key=lambda e: str(e['name'])), indent=2) + '\n'
        write_text(path, text)
    print(f'{name}: {value:.4g} {unit}' + (f' (goal {goal})' if goal else ''), flush=True)


def _read(path: Path) -> list[dict[str, str | float]]:
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON ({error}); remove it and measure again') from error
    if not isinstance(entries, list) or not all(isinstance(e, dict) and 'name' in e for e in entries):
        raise ValueError(f'{path} is not a list of entries with a name; remove it and measure again')
    return entries
