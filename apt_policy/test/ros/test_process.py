"""The node as a process: it ends cleanly on a signal at any moment, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = '''
import sys, time
from functools import partial
from apt_policy.ros.node import main
from apt_policy.inference.hover_planner import HoverPlanner


class Slow(HoverPlanner):
    def warm_up(self):
        time.sleep(60)


def factory(params, contract):
    return partial(Slow if params.seed else HoverPlanner, delay_s=0.5)


if __name__ == '__main__':
    sys.exit(main(make_factory=factory))
'''


class Process:
    """The node's process in namespace ``proc``, steered over DDS."""

    def __init__(self, folder, environment, *arguments):
        script = folder / 'policy.py'
        script.write_text(SCRIPT)
        self.output = (folder / 'output.txt').open('w+')
        self.process = subprocess.Popen(
            [sys.executable, script, '--ros-args', '-r', '__ns:=/proc', '-r', '/tf:=tf', '-r',
             '/tf_static:=tf_static', *arguments],
            env=environment, stdout=self.output, stderr=subprocess.STDOUT)

    def handlers_stand(self):
        mask = next(line for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines()
                    if line.startswith('SigCgt'))
        return int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1

    def children(self):
        path = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
        return [int(pid) for pid in path.read_text().split()]

    def text(self):
        self.output.seek(0)
        return self.output.read()

    def end(self, number):
        """Send the signal twice, as an impatient person does; the exit code and the children left."""
        children = self.children()
        self.process.send_signal(number)
        time.sleep(0.05)
        self.process.send_signal(number)
        code = self.process.wait(60)
        deadline = time.monotonic() + 10.0
        # The process that multiprocessing tidies up with ends when it hears that the others have.
        while any(map(_runs, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return code, [pid for pid in children if _runs(pid)]


def _runs(pid):
    try:
        return ') Z ' not in Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False


@pytest.fixture
def launch(steer, domain, contract_file, tmp_path):
    """Start the process; gives it and a bench that steers it."""
    launched = []

    def start(*parameters, contract=contract_file):
        arguments = [part for name in (f'contract:={contract}', 'worker:=process', *parameters)
                     for part in ('-p', name)]
        process = Process(tmp_path, {**os.environ, 'ROS_DOMAIN_ID': str(domain)}, *arguments)
        launched.append(process)
        steer.listener.statuses.clear()
        steer.listener.targets.clear()
        return process, steer
    yield start
    for process in launched:
        process.process.kill()
        process.process.wait()
        process.output.close()


def _reach(moment, process, bench):
    if moment == 'importing':
        bench.until(process.handlers_stand, 'the signal handlers')
        return
    bench.until(lambda: bench.newest(), 'the first status')
    if moment == 'configuring':
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        client = bench.listener.node.create_client(ChangeState, 'apt_policy/change_state')
        assert client.wait_for_service(60.0)
        client.call_async(ChangeState.Request(transition=Transition(label='configure')))
        bench.until(lambda: 'being configured' in bench.newest().detail and process.children(), 'configure')
    elif moment == 'inferring':
        assert bench.transition('configure') and bench.transition('activate')
        bench.prompt('wave')
        bench.enable()
        bench.flow()


@pytest.mark.parametrize(('moment', 'number'), [
    ('importing', signal.SIGINT), ('waiting', signal.SIGTERM), ('configuring', signal.SIGINT),
    ('configuring', signal.SIGTERM), ('inferring', signal.SIGTERM)])
def test_a_signal_ends_it_cleanly_at_any_moment(launch, moment, number):
    process, bench = launch('seed:=1' if moment == 'configuring' else 'seed:=0')
    _reach(moment, process, bench)
    code, orphans = process.end(number)
    assert code == 0, process.text()
    assert 'Traceback' not in process.text() and 'terminate' not in process.text()
    assert not orphans


def test_parameters_that_cannot_be_used_end_the_start_with_each_reason(launch):
    process, _ = launch('blend_s:=-1.0', 'dead_man_timeout:=0.2', 'chunk_mode:=newest')
    assert process.process.wait(60) == 1
    for words in ('blend_s is -1.0, outside 0.0 .. 2.0', "did you mean dead_man_timeout_s",
                  'expected one of newest_blend, temporal_ensemble, real_time'):
        assert words in process.text()
    assert 'Traceback' not in process.text()


def test_a_killed_node_leaves_no_planner_behind(launch):
    process, bench = launch('seed:=0')
    _reach('inferring', process, bench)
    _, orphans = process.end(signal.SIGKILL)
    assert not orphans
