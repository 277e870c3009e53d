"""Processes that are started anew import what they work at by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
