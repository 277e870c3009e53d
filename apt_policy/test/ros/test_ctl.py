"""``apt-ctl`` as it is typed, against a running policy."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool

from apt_policy.core.sample import HoldReason
from apt_policy.ros.ctl_shell import means_stop

COMMAND = [sys.executable, '-m', 'apt_policy.ros.ctl']


@pytest.fixture
def operate(domain):
    """Type the command; its exit status and what it printed."""
    def run(*words):
        done = subprocess.run([*COMMAND, '--timeout', '30', *words], timeout=90.0, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
        return done.returncode, done.stdout + done.stderr
    return run


class Terminal:
    """A person at a terminal who typed the command and stays."""

    def __init__(self, domain, *words):
        self._person, far_end = pty.openpty()
        self.process = subprocess.Popen([*COMMAND, *words], stdin=far_end, stdout=far_end, stderr=far_end,
                                        start_new_session=True, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
        os.close(far_end)
        self.shown = ''
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while block := os.read(self._person, 4096):
                self.shown += block.decode().replace('\r', '')
        except OSError:
            pass  # As a terminal says that the other end is closed.

    def type(self, keys):
        os.write(self._person, keys.encode())

    def sees(self, words, limit_s=60.0):
        end = time.monotonic() + limit_s
        while words not in self.shown:
            assert time.monotonic() < end, f'never saw {words!r}, but {self.shown!r}'
            time.sleep(0.01)

    def left(self):
        code = self.process.wait(60.0)
        self._reader.join(10.0)
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join(10.0)
        os.close(self._person)


@pytest.fixture
def sit_down(domain):
    """Type the command at a terminal."""
    terminals = []

    def start(*words):
        terminals.append(Terminal(domain, *words))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


class HalfPolicy:
    """Offers ``enable`` and nothing else, keeps what it is told, and takes its time over it."""

    def __init__(self, namespace):
        self.told, self.delay_s = [], 0.0
        self.node = rclpy.create_node('apt_policy', namespace=namespace)
        self.node.create_service(SetBool, '~/enable', self._answer)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._ending = False
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _answer(self, request, response):
        self.told.append(request.data)
        time.sleep(self.delay_s)
        response.success, response.message = True, 'enabled' if request.data else 'disabled'
        return response

    def _spin(self):
        while not self._ending:
            self._executor.spin_once(timeout_sec=0.05)

    def close(self):
        self._ending = True
        self._thread.join(10.0)
        self._executor.shutdown()
        self.node.destroy_node()


@pytest.fixture
def half_policy(domain):
    policy = HalfPolicy('half')
    yield policy
    policy.close()


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
        [*COMMAND, '--namespace', 'elsewhere', '--timeout', '60', 'status'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}, stderr=subprocess.PIPE)
    bench.until(lambda: bench.listener.node.count_subscribers('/elsewhere/apt/status'), 'somebody who listens')
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30.0)
    assert process.returncode == 130 and b'Traceback' not in said


def test_a_mistake_is_named(operate):
    for words, error_text in ((('--namespace', 'a b', 'status'), "--namespace 'a b' is not valid"),
                             (('--timeout', '-1', 'status'), '--timeout is -1; expected more than 0 s'),
                             (('status', '--timeout', '-2'), '--timeout is -2; expected more than 0 s'),
                             (('statsu',), "apt-ctl: there is no verb 'statsu'; did you mean status?"),
                             (('--timeot', '3', 'status'), 'there is no --timeot; did you mean --timeout?'),
                             ((), 'no verb; expected one of enable, disable')):
        status, said = operate(*words)
        assert status == 2 and error_text in said and 'Traceback' not in said


@pytest.mark.parametrize('words', [('--namespace', 'elsewhere', '--timeout', '0.5', 'enable'),
                                   ('enable', '--timeout', '0.5', '--namespace', 'elsewhere'),
                                   ('--namespace', 'elsewhere', 'enable', '--timeout', '0.5')])
def test_options_may_stand_before_and_after_the_verb(domain, words):
    done = subprocess.run([*COMMAND, *words], timeout=60.0, capture_output=True, text=True,
                          env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    assert done.returncode == 1 and 'service /elsewhere/apt_policy/enable not available after 0.5 s' in done.stderr


def test_a_policy_that_is_not_there_is_told_with_what_to_check(operate):
    for verb, error_text in (('enable', 'service /elsewhere/apt_policy/enable not available after 0.5 s'),
                            ('status', 'no message on /elsewhere/apt/status after 0.5 s')):
        status, said = operate('--namespace', 'elsewhere', '--timeout', '0.5', verb)
        assert status == 1 and error_text in said and 'ROS_DOMAIN_ID and discovery range' in said


def test_stopping_loads_nothing_that_takes_long(half_policy, domain):
    program = ('import sys\nfrom apt_policy.ros.ctl import main\n'
               'assert main(["--namespace", "half", "--timeout", "30", "disable"]) == 0\n'
               'print(*sorted(sys.modules))\n')
    done = subprocess.run([sys.executable, '-c', program], timeout=90.0, capture_output=True, text=True, check=True,
                          env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    loaded = done.stdout.split()
    assert half_policy.told == [False] and 'rclpy' in loaded
    assert not {'scipy', 'torch', 'cv2', 'apt_msgs'} & set(loaded)
    assert [name for name in loaded if name.startswith('apt_policy')] == [
        'apt_policy', 'apt_policy.console', 'apt_policy.core', 'apt_policy.core.errors', 'apt_policy.core.topics',
        'apt_policy.ros', 'apt_policy.ros.ctl', 'apt_policy.ros.policy_client']


def test_a_stop_that_is_not_answered_is_said_again_and_an_enable_is_not(half_policy, operate):
    half_policy.delay_s = 2.5
    assert operate('--namespace', 'half', 'enable')[0] == 0
    assert half_policy.told == [True]
    status, said = operate('--namespace', 'half', 'disable')
    assert status == 0 and said == 'disabled\n'
    end = time.monotonic() + 30.0
    while len(half_policy.told) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert half_policy.told[1:3] == [False, False]


def test_a_person_who_stays_stops_the_arms_with_enter_alone(bench, sit_down):
    terminal = sit_down('--timeout', '30')
    terminal.sees('Enter alone stops the arms')
    terminal.type('prompt stack the cups\n')
    terminal.sees("following 'stack the cups'")
    terminal.type('\n')
    terminal.sees('\ndisabled\n')
    bench.held(HoldReason.DISABLED)
    terminal.type('enable\n')
    terminal.sees('\nenabled\n')
    bench.flow()
    terminal.type('status\n')
    terminal.sees("prompt 'stack the cups'")
    terminal.type('\x04')
    assert terminal.left() == 0
    assert bench.newest().enabled, 'leaving changes nothing'


def test_enter_does_not_queue_behind_a_request_that_waits(half_policy, sit_down):
    terminal = sit_down('shell', '--namespace', 'half', '--timeout', '600')
    terminal.type('prompt this waits for a service that is not there\nenable\n')
    terminal.sees('Enter alone')
    terminal.type('\n')
    terminal.sees('disabled\n')
    terminal.type('q\n')
    assert terminal.left() == 0
    assert half_policy.told == [False], 'what was typed before the stop must not come after it'


def test_ctrl_c_of_a_person_who_stays_stops_the_arms(half_policy, sit_down):
    terminal = sit_down('shell', '--namespace', 'half', '--timeout', '30')
    terminal.sees('> ')
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.left() == 130 and 'Traceback' not in terminal.shown
    assert half_policy.told == [False]


def test_a_mistyped_line_is_named_and_does_nothing(half_policy, domain):
    done = subprocess.run([*COMMAND, 'shell', '--namespace', 'half', '--timeout', '30'], timeout=60.0,
                          capture_output=True, text=True, input='enabel\nenable now\nprompt\nlift it',
                          env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    for error_text in ("there is no verb 'enabel'; did you mean enable?", "enable takes nothing after it, got 'now'",
                      'prompt needs an instruction', "there is no verb 'lift'; expected one of enable, disable"):
        assert error_text in done.stdout
    assert done.returncode == 1 and half_policy.told == []


@pytest.mark.parametrize('line', [
    '', 'disable', 'Disable', 'DISABLE!', 'disable now', 'disable!', '  ', '.', 'diable', 'disabel'])
def test_a_stop_is_heard_however_it_is_written(line):
    assert means_stop(line)


@pytest.mark.parametrize('line', ['enable', 'prompt disable the alarm', 'reset', 'q', 'enabel', 'help'])
def test_nothing_else_is_a_stop(line):
    assert not means_stop(line)
