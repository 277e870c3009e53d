"""``apt-operate`` as it is typed, against a running policy."""

import os
import signal
import subprocess
import sys

import pytest

from apt_policy.core.sample import HoldReason


@pytest.fixture
def operate(domain):
    """Type the command; its exit status and what it printed."""
    def run(*words):
        done = subprocess.run([sys.executable, '-m', 'apt_policy.ros.operate', '--timeout', '30', *words], timeout=90.0,
                              capture_output=True, text=True, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
        return done.returncode, done.stdout + done.stderr
    return run


def test_the_arms_stop_and_go(bench, operate):
    assert operate('disable')[0] == 0
    bench.held(HoldReason.DISABLED)
    status, said = operate('status')
    assert status == 0 and 'disabled, holds: DISABLED' in said and "prompt 'wave'" in said
    assert operate('enable')[0] == 0
    bench.flow()
    bench.until(lambda: 'enabled, targets flow' in operate('status')[1], 'a status without a hold')


def test_a_prompt_and_a_reset_arrive(bench, operate):
    assert operate('prompt', 'stack the cups')[0] == 0
    bench.until(lambda: bench.listener.prompts[-1].data == 'stack the cups', 'the prompt')
    assert operate('reset')[0] == 0


def test_a_refusal_is_the_policys_own_words(bench, operate):
    status, said = operate('prompt', 'x' * 3000)
    assert status == 1 and 'refused: ' in said and '2048' in said


def test_ctrl_c_ends_the_waiting(bench, domain):
    process = subprocess.Popen(
        [sys.executable, '-m', 'apt_policy.ros.operate', '--namespace', 'elsewhere', '--timeout', '60', 'status'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}, stderr=subprocess.PIPE)
    bench.until(lambda: bench.listener.node.count_subscribers('/elsewhere/apt/status'), 'somebody who listens')
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30.0)
    assert process.returncode == 130 and b'Traceback' not in said


def test_a_mistake_is_named(operate):
    for words, complaint in ((('--namespace', 'a b', 'status'), "--namespace 'a b' is none"),
                             (('--timeout', '-1', 'status'), '--timeout is -1; expected more than 0 s'),
                             (('statsu',), 'invalid choice')):
        status, said = operate(*words)
        assert status == 2 and complaint in said and 'Traceback' not in said


def test_nobody_there_is_said(bench, operate):
    status, said = operate('--namespace', 'elsewhere', '--timeout', '0.5', 'enable')
    assert status == 1 and 'nobody offers /elsewhere/apt_policy/enable' in said and 'ROS_DOMAIN_ID' in said
    assert 'nothing is said on /elsewhere/apt/status' in operate('--namespace', 'elsewhere', '--timeout', '0.5',
                                                                 'status')[1]
