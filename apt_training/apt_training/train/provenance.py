"""Which version of this suite is running."""

import subprocess
from pathlib import Path


def git_revision() -> str:
    """The commit that this file stands in, ``+`` behind it if files were changed; empty outside git."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(['git', 'describe', '--always', '--dirty=+', '--abbrev=12', '--exclude=*'],
                                   cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ''
    return described.stdout.strip()
