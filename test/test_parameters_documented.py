"""docs/parameters.md and README.md say what the code declares."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / 'scripts' / 'document_parameters.py'


def test_the_documented_arguments_and_parameters_are_those_of_the_code():
    done = subprocess.run([sys.executable, SCRIPT, '--check'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
