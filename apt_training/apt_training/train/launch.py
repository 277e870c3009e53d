"""Starting a run's processes on this machine, and ending them together.

Serves ``apt-train --gpus N`` with N > 1; under torchrun or a DeepSpeed launcher the processes exist
already. Knows nothing of what they compute.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

log = logging.getLogger(__name__)

GRACE_S = 20.0
"""Time that the others get to end when one process has died."""
POLL_S = 0.1


def launched() -> bool:
    """Whether somebody started this process as one of many."""
    return 'RANK' in os.environ and 'WORLD_SIZE' in os.environ


def run_processes(command: Sequence[str], count: int, stop: threading.Event, *,
                  environment: Mapping[str, str] | None = None, grace_s: float = GRACE_S) -> int:
    """Run ``count`` processes of ``command`` to their end.

    Args:
        command: of one process; who it is stands in its environment.
        count: how many.
        stop: when set, each is asked to stop (SIGTERM), and waited for without limit: it may be saving.
        environment: added to this process's own.
        grace_s: how long processes may outlive one that failed [s].

    Returns:
        The exit status of the first that failed, 0 if none did.
    """
    # The store that they find each other by: opened here, so that no port can be taken in between.
    store = dist.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    shared = {**os.environ, **(environment or {}), 'WORLD_SIZE': str(count), 'LOCAL_WORLD_SIZE': str(count),
              'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(store.port), 'TORCHELASTIC_USE_AGENT_STORE': 'True'}
    if not torch.cuda.is_available():
        shared.setdefault('GLOO_SOCKET_IFNAME', 'lo')
        shared.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // count)))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            # A session of their own: Ctrl-C reaches them through this process only, once.
            processes.append(subprocess.Popen(
                list(command), env={**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}, start_new_session=True))
        return _watch(processes, stop, grace_s)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def _watch(processes: Sequence[subprocess.Popen[bytes]], stop: threading.Event, grace_s: float) -> int:
    asked = False
    while True:
        states = [process.poll() for process in processes]
        failed = next(((rank, code) for rank, code in enumerate(states) if code), None)
        if failed is not None:
            return _end_others(processes, *failed, grace_s=grace_s)
        if all(code is not None for code in states):
            return 0
        if stop.is_set() and not asked:
            asked = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(POLL_S)


def _end_others(processes: Sequence[subprocess.Popen[bytes]], rank: int, code: int, *, grace_s: float) -> int:
    """Wait for what the others still do, then end them."""
    until = time.monotonic() + grace_s
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
    codes = [process.poll() for process in processes]
    if len({*codes}) == 1 and code > 0:
        return code
    how = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with status {code}'
    left = [number for number, state in enumerate(codes) if state is None]
    log.error('process %d of %d %s%s', rank, len(processes), how,
              f'; ending {len(left)} that were waiting for it' if left else '; the others ended as well')
    return code if code > 0 else 128 - code


def own_command(arguments: Sequence[str]) -> list[str]:
    """This program again, as one process of many."""
    return [sys.executable, '-m', 'apt_training.train.main', *arguments]
