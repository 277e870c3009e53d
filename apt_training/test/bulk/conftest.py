"""Path for the processes of the pool, which import their workers by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
