"""What episode files are called, and which of them lie in a folder.

The one place that knows their suffixes; what is inside is known to ``read`` and ``write``.
"""

from pathlib import Path

SUFFIX = '.h5'
"""Of the files that the suite writes."""
SUFFIXES = (SUFFIX, '.hdf5')
"""Of the files that it reads."""
EITHER = ' or '.join(SUFFIXES)
"""For messages."""


def episode_files(folder: Path, pattern: str = '**/*') -> list[Path]:
    """List the episode files below ``folder`` whose paths match the glob ``pattern``, sorted; hidden ones are none."""
    return sorted(path for path in folder.glob(pattern)
                  if path.suffix in SUFFIXES and not path.name.startswith('.'))
