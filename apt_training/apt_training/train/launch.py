"""Launcher of the ranks of a run on this machine, with the elastic agent of torchrun.

``apt-train --gpus N`` uses it for N > 1; under torchrun or a DeepSpeed launcher the processes exist already.
"""

import concurrent.futures
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from tempfile import TemporaryDirectory

import torch
from torch.distributed.elastic.agent.server import ElasticAgent, RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from apt_training.environment import environment_variables

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Interval at which the agent polls its processes [s]."""


def is_launched() -> bool:
    """Return whether a launcher started this process as one rank of a run."""
    return 'RANK' in os.environ and 'WORLD_SIZE' in os.environ


def run_processes(command: Sequence[str], count: int, stop: threading.Event, *,
                  environment: Mapping[str, str] | None = None) -> int:
    """Run ``count`` processes of ``command`` and wait for them.

    When a process fails, the agent sends SIGTERM to the others and kills them after 30 s.

    Args:
        command: command line of one process, which reads its rank from the environment.
        count: number of processes.
        stop: event that asks every process to stop with SIGTERM; they may be saving, so the wait has no limit.
        environment: variables added to this process's own.

    Returns:
        Exit status of the first process that failed, 128 plus the signal if one was killed; 0 if none failed.
    """
    # The agent's messages name its internals; this module logs what matters of them.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    with (environment_variables({**_defaults(count), **(environment or {})}), TemporaryDirectory() as logs,
          ThreadPoolExecutor(1) as executor):
        agent = _agent(command, count, logs)
        # In a thread of its own, the agent leaves the signal handlers of this program alone.
        result = executor.submit(agent.run)
        _forward_stop(agent, result, stop)
        return _exit_status(result.result(), count, stopped=stop.is_set())


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that starts this program as one rank."""
    return [sys.executable, '-m', 'apt_training.train.main', *arguments]


def _agent(command: Sequence[str], count: int, logs: str) -> ElasticAgent:
    parameters = RendezvousParameters(backend='c10d', endpoint='127.0.0.1:0', run_id='apt-train', min_nodes=1,
                                      max_nodes=1, local_addr='127.0.0.1')
    spec = WorkerSpec(role='rank', local_world_size=count, entrypoint=command[0], args=tuple(command[1:]),
                      rdzv_handler=get_rendezvous_handler(parameters), max_restarts=0, monitor_interval=POLL_S,
                      local_addr='127.0.0.1')
    return LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=logs))


def _forward_stop(agent: ElasticAgent, result: 'Future[RunResult]', stop: threading.Event) -> None:
    """Wait for the end of the run, and send SIGTERM to every process once ``stop`` is set."""
    asked: set[int] = set()
    while not result.done():
        # A process has an id once it is started, which may be after ``stop`` is set.
        started = {worker.id for worker in agent.get_worker_group().workers if worker.id}
        for pid in started - asked if stop.is_set() else ():
            asked.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        concurrent.futures.wait([result], timeout=POLL_S)


def _exit_status(result: RunResult, count: int, *, stopped: bool) -> int:
    if not result.failures:
        return 0
    rank, failure = min(result.failures.items(), key=lambda item: item[1].timestamp)
    # Stopped processes end with a status of their own, which is no error.
    if not stopped and (len({other.exitcode for other in result.failures.values()}) > 1 or failure.exitcode < 0):
        end = (f'was killed by {signal.Signals(-failure.exitcode).name}' if failure.exitcode < 0
               else f'ended with status {failure.exitcode}')
        log.error('Process %d of %d %s; the others have ended', rank, count, end)
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def _defaults(count: int) -> dict[str, str]:
    """Return variables for runs on the CPU: the loopback interface, and an equal share of the cores."""
    if torch.cuda.is_available():
        return {}
    defaults = {'GLOO_SOCKET_IFNAME': 'lo', 'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // count))}
    return {name: value for name, value in defaults.items() if name not in os.environ}
