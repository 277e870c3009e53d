"""Runs every ``benchmarks/bench_*.py``, one after the other; a failure hides none of the others."""

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def run_all(folder: Path = FOLDER) -> int:
    """Returns the exit status: 0 only when every benchmark of the folder succeeded and there was one."""
    programs = sorted(folder.glob('bench_*.py'))
    failed = [program.name for program in programs if not _succeeds(program)]
    print(f'\nbench: {len(programs) - len(failed)} of {len(programs)} benchmarks succeeded'
          + (f'; failed: {", ".join(failed)}' if failed else ''))
    return 1 if failed or not programs else 0


def _succeeds(program: Path) -> bool:
    print(f'\n== {program.name}', flush=True)
    began = time.monotonic()
    status = subprocess.run([sys.executable, str(program)], check=False).returncode
    print(f'== {program.name}: {"ok" if status == 0 else f"exit status {status}"}, '
          f'{time.monotonic() - began:.0f} s', flush=True)
    return status == 0


if __name__ == '__main__':
    sys.exit(run_all())
