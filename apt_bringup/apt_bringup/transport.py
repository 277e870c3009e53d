"""Which of the shipped Fast DDS profiles fits this machine; ``scripts/env.sh`` decides likewise."""

import os
from pathlib import Path

# The simulator, the bridge, the policy, and three tools of the user, each with a segment of fastdds.xml.
_ENOUGH_BYTES = 6 * 67 * 2**20


def profile(share: Path, shared_memory: str = '/dev/shm') -> Path:
    """The profile with large segments, or the one for little shared memory.

    Args:
        share: the folder that holds ``config/``.
    """
    status = os.statvfs(shared_memory)
    enough = status.f_bavail * status.f_frsize >= _ENOUGH_BYTES
    return share / 'config' / ('fastdds.xml' if enough else 'fastdds_small.xml')
