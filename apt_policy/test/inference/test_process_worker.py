"""What only a process can do, and how it can end."""

import functools
import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from apt_policy.inference.hover_planner import Fault, HoverPlanner
from apt_policy.inference.ports import ChunkPrefix, PlanFailure, PlannedChunk, PlanRequest
from apt_policy.inference.worker.child import threads_beside_control
from apt_policy.inference.worker.process_worker import ProcessWorker
from apt_policy.inference.worker.shared_frames import SharedFrames, block_size
from apt_policy.inference.worker.worker import WorkerConfig, WorkerState

ROOT = Path(__file__).resolve().parents[2]


ECHO = """
import os
from apt_policy.inference.hover_planner import HoverPlanner


class EchoPlanner(HoverPlanner):
    # Tells what it received in place of poses, and how its process is set up.

    def plan(self, observation, *, epoch, prefix):
        chunk = super().plan(observation, epoch=epoch, prefix=None)
        chunk.world_from_ee[0, 0] = observation.views[0].rgb.sum()
        chunk.world_from_ee[0, 1] = observation.views[1].mask.sum()
        chunk.world_from_ee[1, 0] = int(os.environ['OMP_NUM_THREADS'])
        chunk.world_from_ee[1, 1] = os.nice(0)
        if prefix is not None:
            chunk.world_from_ee[2:4] = prefix.world_from_ee
        return chunk
"""


@pytest.fixture
def echo_planner(tmp_path, monkeypatch):
    """A planner that a child can import, unlike a test module."""
    (tmp_path / 'echo_planner.py').write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module('echo_planner').EchoPlanner
    del sys.modules['echo_planner']


@pytest.fixture
def started():
    workers = []

    def start(planner=HoverPlanner, *, image_size=16, settings=None, **arguments):
        worker = ProcessWorker(functools.partial(planner, horizon=4, **arguments), cameras=2,
                               image_size=image_size, config=WorkerConfig(**(settings or {})))
        workers.append(worker)
        worker.warm_up()
        return worker

    yield start
    for worker in workers:
        worker.close()


def next_outcome(worker, limit_s=20.0):
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if (outcome := worker.poll()) is not None:
            return outcome
        time.sleep(0.002)
    raise AssertionError('the worker never answered')


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def wait_until_gone(pid, limit_s=10.0):
    end_s = time.monotonic() + limit_s
    while is_running(pid):
        assert time.monotonic() < end_s, f'process {pid} is still there'
        time.sleep(0.01)


def test_images_and_the_committed_head_arrive_whole(started, make, echo_planner):
    worker = started(echo_planner, settings={'torch_threads': 3, 'nice': 4})
    observation = make.observation(seed=4)
    prefix = ChunkPrefix(world_from_ee=np.arange(64.0).reshape(2, 2, 4, 4), gripper=np.zeros((2, 2)),
                          valid_arms=np.ones(2, bool))
    worker.submit(PlanRequest(observation=observation, epoch=0, prefix=prefix))
    told = next_outcome(worker).chunk.world_from_ee
    assert told[0, 0, 0, 0] == observation.views[0].rgb.sum()
    assert told[0, 1, 0, 0] == observation.views[1].mask.sum()
    assert told[1, 0, 0, 0] == 3 and told[1, 1, 0, 0] == os.nice(0) + 4
    np.testing.assert_array_equal(told[2:4], prefix.world_from_ee)


def test_a_core_is_left_to_the_control_tick(started, make, echo_planner):
    worker = started(echo_planner)
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    threads = next_outcome(worker).chunk.world_from_ee[1, 0, 0, 0]
    assert threads == threads_beside_control() == max(1, len(os.sched_getaffinity(0)) - 1)


def test_an_observation_without_its_images_is_restored_and_no_pixel_is_pickled(make):
    frames = SharedFrames(bytearray(block_size(3, 16)), cameras=3, image_size=16)
    observation = make.observation(seed=5)
    observation = make.replace(observation, views=(observation.views[0], None, observation.views[1]))
    stored = frames.store(observation)
    assert all(view is None or view.rgb.nbytes + view.mask.nbytes == 0 for view in stored.views)
    restored = frames.restore(pickle.loads(pickle.dumps(stored)))
    assert restored.views[1] is None
    for mine, theirs in zip(observation.views[::2], restored.views[::2], strict=True):
        np.testing.assert_array_equal(mine.rgb, theirs.rgb)
        np.testing.assert_array_equal(mine.mask, theirs.mask)
        assert theirs.mask.dtype == np.bool_


def test_an_image_of_another_size_is_a_failure_that_names_both(started, make):
    worker = started(image_size=32)
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    failure = next_outcome(worker)
    assert '(16, 16, 3)' in failure.message and '(32, 32, 3)' in failure.message
    assert worker.state is WorkerState.IDLE


@pytest.mark.parametrize('busy', [True, False], ids=['while it plans', 'while it waits'])
def test_a_killed_planner_is_reported_once(started, make, busy):
    worker = started(delay_s=30.0)
    if busy:
        worker.submit(PlanRequest(observation=make.observation(), epoch=0))
        time.sleep(0.05)
    os.kill(worker.pid, signal.SIGKILL)
    failure = next_outcome(worker)
    assert isinstance(failure, PlanFailure) and 'SIGKILL' in failure.message and 'memory' in failure.message
    assert worker.state is WorkerState.DEAD and worker.poll() is None


def test_a_planner_that_ends_its_process_is_reported_with_the_exit_code(started, make):
    worker = started(fault=Fault.EXITS)
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    assert next_outcome(worker).message == 'the planner process ended with exit code 3'
    assert worker.state is WorkerState.DEAD


@pytest.mark.parametrize('fault', [Fault.EXITS, Fault.HANGS])
def test_a_lost_planner_is_started_again_as_often_as_told(started, make, fault):
    worker = started(fault=fault, good_plans=1, settings={'restarts': 1, 'plan_timeout_s': 3.0})
    pids = []
    for _ in range(2):
        pids.append(worker.pid)
        request = PlanRequest(observation=make.observation(), epoch=0)
        worker.submit(request)
        assert isinstance(next_outcome(worker), PlannedChunk)
        worker.submit(request)
        assert isinstance(next_outcome(worker), PlanFailure)
        wait_until_gone(pids[-1])
    assert pids[0] != pids[1] and worker.state is WorkerState.DEAD


@pytest.mark.parametrize('frozen', [False, True])
def test_a_hung_planner_is_killed_even_if_its_process_cannot_act(started, make, frozen):
    worker = started(fault=Fault.HANGS, settings={'plan_timeout_s': 0.2})
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    if frozen:
        os.kill(worker.pid, signal.SIGSTOP)
    assert 'hangs' in next_outcome(worker).message
    wait_until_gone(worker.pid)


def test_ctrl_c_is_the_parents_matter(started, make):
    worker = started(delay_s=0.2)
    worker.submit(PlanRequest(observation=make.observation(stamp_ns=9), epoch=0))
    time.sleep(0.05)
    os.kill(worker.pid, signal.SIGINT)
    assert next_outcome(worker).chunk.stamp_ns == 9


CTRL_C = """
import functools, signal, time
import numpy as np
from apt_policy.core.sample import ArmState, Observation
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.ports import PlannedChunk, PlanRequest
from apt_policy.inference.worker.process_worker import ProcessWorker

if __name__ == '__main__':
    asked = []
    signal.signal(signal.SIGINT, lambda *about: asked.append(1))
    worker = ProcessWorker(functools.partial(HoverPlanner, horizon=4, delay_s=0.5), cameras=1, image_size=8)
    {warm_up}
    arms = (ArmState(world_from_ee=np.eye(4), gripper=0.0),)
    worker.submit(PlanRequest(observation=Observation(stamp_ns=0, prompt='', views=(), history=(arms,)), epoch=0))
    print('ready', flush=True)
    while not asked:
        time.sleep(0.01)
    while (outcome := worker.poll()) is None:
        time.sleep(0.01)
    print('planned' if isinstance(outcome, PlannedChunk) else outcome, flush=True)
    worker.close()
"""


@pytest.mark.parametrize('warm_up', ['worker.warm_up()', 'pass'], ids=['planning', 'starting'])
def test_ctrl_c_to_the_whole_group_leaves_the_first_planner_of_a_program_to_its_parent(tmp_path, warm_up):
    """As a terminal and ``ros2 launch`` send it; in a fresh interpreter, which has started no process before."""
    script = tmp_path / 'program.py'
    script.write_text(CTRL_C.format(warm_up=warm_up))
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True, env={**os.environ, 'PYTHONPATH': path}) as program:
        assert program.stdout.readline() == 'ready\n'
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout.read() == 'planned\n'
    assert program.returncode == 0


def test_closing_leaves_no_process(started, make):
    worker = started(delay_s=30.0)
    worker.submit(PlanRequest(observation=make.observation(), epoch=0))
    time.sleep(0.05)
    worker.close(0.1)
    wait_until_gone(worker.pid)


PARENT = """
import functools, sys, time
from apt_policy.core.sample import Observation
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.ports import PlanRequest
from apt_policy.inference.worker.process_worker import ProcessWorker

if __name__ == '__main__':
    worker = ProcessWorker(functools.partial(HoverPlanner, delay_s=60.0), cameras=1, image_size=8)
    {warm_up}
    worker.submit(PlanRequest(observation=Observation(stamp_ns=0, prompt='', views=(), history=((),)), epoch=0))
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize('warm_up', ['worker.warm_up()', 'pass'], ids=['planning', 'starting'])
def test_no_planner_outlives_its_parent(tmp_path, sent, warm_up):
    script = tmp_path / 'parent.py'
    script.write_text(PARENT.format(warm_up=warm_up))
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': path})
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.send_signal(sent)
    parent.wait(20)
    parent.stdout.close()
    wait_until_gone(pid)
