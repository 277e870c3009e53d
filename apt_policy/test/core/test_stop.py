"""Signals as a request to stop."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from apt_policy.core.stop import stop_requests

PESTERED = """
import faulthandler, signal, sys, threading, time
from apt_policy.core.stop import stop_requests
faulthandler.dump_traceback_later(60, exit=True)
end = time.monotonic() + 3
def pester(main):
    while time.monotonic() < end:
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(0.0002)
signal.signal(signal.SIGTERM, lambda *_: None)
threading.Thread(target=pester, args=(threading.main_thread().ident,), daemon=True).start()
while time.monotonic() < end:
    with stop_requests() as stop:
        while not stop.wait(0) and time.monotonic() < end:
            pass
"""
WORKING = """
import signal, time
from apt_policy.core.stop import ignore_interrupts
stop = ignore_interrupts()
print('ready', flush=True)
while not stop.wait(0.05):
    pass
raise SystemExit(3)
"""
# No stack is that big, so from there on no thread can be started, as where the process may have no more of them.
WITHOUT_THREADS = """
import _thread, threading
from apt_policy.core.stop import handle_stop_signals
stop = handle_stop_signals()
threading.stack_size(2**62)
try:
    _thread.start_new_thread(print, ())
except RuntimeError:
    print('ready', flush=True)
raise SystemExit(3 if stop.wait() else 4)
"""


def python(code, **options):
    return subprocess.Popen([sys.executable, '-c', code], text=True, **options)


def test_a_signal_is_an_event_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set() and stop.wait(10)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_another_thread_that_waits_is_woken_by_the_signal(number):
    with stop_requests() as stop:
        woken = []
        waiter = threading.Thread(target=lambda: woken.append(stop.wait(30)))
        waiter.start()
        os.kill(os.getpid(), number)
        waiter.join(30)
    assert woken == [True]


def test_nobody_who_was_not_asked_stops():
    with stop_requests() as stop:
        assert not stop.is_set() and not stop.wait(0.01) and stop.count == 0


def test_what_is_to_be_done_at_once_is_done_by_the_signal_itself():
    with stop_requests() as stop:
        stop.on_request = lambda: told.append(stop.count)
        told = []
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
    assert told == [1, 2]


def test_a_signal_in_the_midst_of_a_wait_does_not_block_for_ever():
    """The handler runs between any two instructions of the thread that waits, whatever lock that one holds."""
    process = python(PESTERED, stderr=subprocess.PIPE)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said[-2000:]


def test_a_wait_without_an_end_ends_where_no_thread_can_be_started():
    process = python(WITHOUT_THREADS, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == 'ready\n'
        # Let it be in the midst of the wait.
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 3
    finally:
        process.kill()
        process.wait()


def test_a_wait_lasts_as_long_as_it_is_told():
    with stop_requests() as stop:
        begun = time.monotonic()
        assert not stop.wait(1.3) and 1.3 <= time.monotonic() - begun < 10
        assert not stop.wait(-1)


def test_a_worker_leaves_ctrl_c_to_its_parent_and_ends_when_that_says_so():
    process = python(WORKING, stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 3
