"""Processes end in every way in which processes can be made to end, and nobody survives."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apt_bringup.supervise import ChildProcess, StopTimeouts

BRIEF = StopTimeouts(interrupt_s=0.3, terminate_s=0.3)
POLITE = ('import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(7)); '
          'print("up", flush=True); time.sleep(60)')
DEAF = ('import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]; '
        'print("up", flush=True); time.sleep(60)')
TERMINABLE = ('import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); '
              'print("up", flush=True); time.sleep(60)')
PARENT = ('import subprocess, sys, time; child = subprocess.Popen(["sleep", "60"]); '
          'print("up", child.pid, flush=True); time.sleep(60)')
WAITING = 'import os, time; print("up", os.getpid(), flush=True); time.sleep(60)'


def start(code, out=None):
    return ChildProcess('node', [sys.executable, '-S', '-c', code], {}, out=out or io.StringIO())


def wait_for(text, out):
    deadline = time.monotonic() + 20
    while text not in out.getvalue():
        assert time.monotonic() < deadline, f'{text!r} is not in {out.getvalue()!r}'
        time.sleep(0.01)


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_until_gone(pid):
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, f'process {pid} survived'
        time.sleep(0.02)


@pytest.mark.parametrize(('code', 'status', 'patience'), [
    (POLITE, 7, StopTimeouts(interrupt_s=20.0)), (TERMINABLE, -signal.SIGTERM, StopTimeouts(interrupt_s=0.3)),
    (DEAF, -signal.SIGKILL, BRIEF)],
    ids=['heeds SIGINT', 'heeds SIGTERM', 'heeds nothing'])
def test_every_process_ends_and_tells_how(code, status, patience):
    out = io.StringIO()
    process = start(code, out)
    wait_for('up', out)
    assert process.stop(patience) == status
    assert process.exit_status == status


def test_a_process_that_has_ended_keeps_its_status():
    process = start('raise SystemExit(3)')
    wait_until_gone(process._child.pid)
    assert process.stop(BRIEF) == 3


def test_stopping_twice_is_harmless():
    process = start(DEAF)
    assert process.stop(BRIEF) == process.stop(BRIEF)


def test_what_a_node_leaves_behind_goes_with_it():
    out = io.StringIO()
    process = start(PARENT, out)
    wait_for('up', out)
    wait_for('\n', out)
    grandchild = int(out.getvalue().split()[-1])
    process.stop(BRIEF)
    wait_until_gone(grandchild)


def test_each_line_stands_behind_the_name_of_its_node():
    out = io.StringIO()
    process = start('import sys; print("one"); print("two", file=sys.stderr); print("three")', out)
    deadline = time.monotonic() + 20
    while process.exit_status is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.stop(BRIEF)
    assert sorted(out.getvalue().splitlines()) == ['[node] one', '[node] three', '[node] two']


def test_nodes_end_even_when_the_runner_is_killed_outright():
    runner = subprocess.Popen([sys.executable, '-c', (
        'import sys, time\n'
        'from apt_bringup.supervise import ChildProcess\n'
        f'ChildProcess("node", [sys.executable, "-S", "-c", {WAITING!r}], {{}})\n'
        'time.sleep(60)')], stdout=subprocess.PIPE, text=True)
    node = int(runner.stdout.readline().split()[-1])
    assert alive(node)
    runner.kill()
    runner.wait()
    wait_until_gone(node)


def test_an_executable_that_does_not_exist_is_an_error_at_once():
    with pytest.raises(FileNotFoundError):
        ChildProcess('node', ['/nowhere/policy'], {})
