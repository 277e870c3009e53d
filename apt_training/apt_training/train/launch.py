"""Launcher of a run's processes on this machine, which also ends them together.

``apt-train --gpus N`` uses it for N > 1; under torchrun or a DeepSpeed launcher the processes exist already.
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
"""Time that the other processes have to end after one has failed [s]."""
POLL_S = 0.1
"""Interval at which the processes are polled [s]."""


def is_launched() -> bool:
    """Return whether a launcher started this process as one rank of a run."""
    return 'RANK' in os.environ and 'WORLD_SIZE' in os.environ


def run_processes(command: Sequence[str], count: int, stop: threading.Event, *,
                  environment: Mapping[str, str] | None = None, grace_s: float = GRACE_S) -> int:
    """Run ``count`` processes of ``command`` and wait for them.

    Args:
        command: command line of one process, which reads its rank from the environment.
        count: number of processes.
        stop: event that asks every process to stop with SIGTERM; they may be saving, so the wait has no limit.
        environment: variables added to this process's own.
        grace_s: time that processes may outlive one that failed [s].

    Returns:
        Exit status of the first process that failed; 0 if none did.
    """
    # The ranks' rendezvous store is opened here, so that no other program can take its port in between.
    store = dist.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    shared = {**os.environ, **(environment or {}), 'WORLD_SIZE': str(count), 'LOCAL_WORLD_SIZE': str(count),
              'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(store.port), 'TORCHELASTIC_USE_AGENT_STORE': 'True'}
    if not torch.cuda.is_available():
        shared.setdefault('GLOO_SOCKET_IFNAME', 'lo')
        shared.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // count)))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            # In a session of their own, processes get Ctrl-C only from this process, and only once.
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
    """Wait until the other processes end, and kill them after the grace period."""
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
    codes = [process.poll() for process in processes]
    if len({*codes}) == 1 and code > 0:
        return code
    end = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with status {code}'
    left = [number for number, state in enumerate(codes) if state is None]
    log.error('Process %d of %d %s%s', rank, len(processes), end,
              f'; killing {len(left)} that still wait for it' if left else '; the others have ended')
    return code if code > 0 else 128 - code


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that starts this program as one rank."""
    return [sys.executable, '-m', 'apt_training.train.main', *arguments]
