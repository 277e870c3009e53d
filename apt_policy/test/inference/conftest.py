"""Factories for the tests of inference: observations, chunks and plans of two arms."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.contract import contract_from_dict
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.sample import ArmState, Chunk, Hold, Observation, View
from apt_policy.core.streams import StreamReport
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.ports import PlannedChunk, PlanRequest
from apt_policy.inference.report import LoopConfig
from apt_policy.inference.worker.worker import WorkerState, run_plan

STEP_NS = 100_000_000
SIZE = 16


def pose(x=0.0, y=0.0, z=0.0, rotvec=(0.0, 0.0, 0.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def make_observation(*, stamp_ns=0, arms=None, prompt='wave', seed=None, cameras=2):
    if arms is None:
        arms = (ArmState(world_from_ee=pose(), gripper=0.0), ArmState(world_from_ee=pose(), gripper=0.0))
    rng = np.random.default_rng(seed)
    views = tuple(View(rgb=rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8),
                       mask=rng.random((SIZE, SIZE)) > 0.5, intrinsics=np.diag([200.0, 200.0, 1.0]),
                       world_from_camera=pose(z=1.0), stamp_ns=stamp_ns) for _ in range(cameras))
    return Observation(stamp_ns=stamp_ns, prompt=prompt, views=views, history=(arms,))


def make_planned(poses, gripper=None, *, stamp_ns=0, epoch=0, step_ns=STEP_NS, valid=(True, True),
                 arms=None, prefix=None):
    """A plan of (T, A, 4, 4) poses, made from ``arms`` (both at the origin if None)."""
    poses = np.asarray(poses, dtype=float)
    gripper = np.zeros(poses.shape[:2]) if gripper is None else np.asarray(gripper, dtype=float)
    observation = make_observation(stamp_ns=stamp_ns, arms=arms)
    chunk = Chunk(stamp_ns=stamp_ns, step_ns=step_ns, world_from_ee=poses, gripper=gripper,
                  valid_arms=np.array(valid), epoch=epoch, prompt='wave', inference_s=0.1)
    return PlannedChunk(request=PlanRequest(observation=observation, epoch=epoch, prefix=prefix), chunk=chunk)


def random_walk(rng, rows=8, arms=2, start=None):
    """(T, A, 4, 4) poses and (T, A) openings of a smooth random motion."""
    steps = rng.normal(scale=0.02, size=(rows, arms, 3)).cumsum(axis=0)
    turns = rng.normal(scale=0.1, size=(rows, arms, 3)).cumsum(axis=0)
    poses = np.array([[pose(*steps[k, a], rotvec=turns[k, a]) for a in range(arms)] for k in range(rows)])
    return (poses if start is None else start @ poses), rng.random((rows, arms))


@pytest.fixture
def make():
    """The factories above, for test modules."""

    class Make:
        step_ns = STEP_NS
        size = SIZE
        pose = staticmethod(pose)
        observation = staticmethod(make_observation)
        planned = staticmethod(make_planned)
        walk = staticmethod(random_walk)
        replace = staticmethod(replace)

    return Make


ARM = {'joints': ['waist'], 'joint_lower': [-3.0], 'joint_upper': [3.0], 'joint_velocity': 3.0,
       'start': [0.0], 'gripper_state': {'joint': 'finger', 'closed': 0.0, 'open': 0.05},
       'gripper_command': {'joint': 'gripper', 'closed': 0.0, 'open': 0.05},
       'world_from_base': {'translation': [0.0, 0.0, 0.0]}, 'reference_cameras': ['cam'],
       'state_rate_hz': 50.0, 'max_age_s': 0.1}
CONTRACT = {
    'name': 'two_arms', 'world_frame': 'world', 'prompt_topic': 'apt/prompt', 'image_size': SIZE,
    'horizon': 8, 'history': 1, 'step_s': 0.1, 'control_rate_hz': 50.0,
    'arms': {side: {**ARM, 'namespace': side, 'base_frame': f'{side}/base', 'ee_frame': f'{side}/ee'}
             for side in ('left', 'right')},
    'cameras': {'cam': {'image_topic': 'cam/image', 'info_topic': 'cam/info', 'frame': 'cam', 'rate_hz': 30.0,
                        'max_age_s': 0.25, 'world_from_camera': {'translation': [0.0, 0.0, 1.0]}}},
    'safety': {'linear_speed': 1.0, 'angular_speed': 3.0, 'gripper_speed': 10.0}}


class StillArms:
    """A source of observations: two arms that stand where they are put, one camera."""

    def __init__(self):
        self.arms = (ArmState(world_from_ee=pose(x=0.3), gripper=0.5),
                     ArmState(world_from_ee=pose(x=-0.3), gripper=0.5))
        self.camera_age_s = 0.02
        self.refusal = None
        self.on_snapshot = lambda: None
        self.cleared = 0

    def snapshot(self, tick_ns, prompt):
        self.on_snapshot()
        return self.refusal or make_observation(stamp_ns=tick_ns, arms=self.arms, prompt=prompt, cameras=1)

    def ages(self, tick_ns):
        return (StreamReport(stream='cam', age_s=self.camera_age_s, max_age_s=0.25, rate_hz=30.0,
                             expected_hz=30.0, ok=True),)

    def arm_states(self, stamp_ns):
        return self.arms

    def clear(self):
        self.cleared += 1


class HandWorker:
    """A worker that plans when told to, in the caller's thread."""

    def __init__(self, planner):
        self.planner = planner
        self.state = WorkerState.IDLE
        self.request = None
        self.outcomes = []

    def submit(self, request):
        self.request = request
        self.state = WorkerState.BUSY

    def finish(self, outcome=None):
        self.outcomes.append(outcome or run_plan(self.planner, self.request))
        self.state = WorkerState.IDLE

    def poll(self):
        return self.outcomes.pop(0) if self.outcomes else None


class ManualClock:
    def __init__(self):
        self.ns = 0

    def now_ns(self):
        return self.ns


class Rig:
    """A loop over these, with a time of its own that every tick moves on by 20 ms."""

    def __init__(self, planner=None, worker=None, **settings):
        self.steady = ManualClock()
        self.source = StillArms()
        self.worker = worker or HandWorker(planner or HoverPlanner(horizon=8))
        self.safety = SafetyFilter(contract_from_dict(CONTRACT, source='the test'))
        self.loop = PolicyLoop(source=self.source, worker=self.worker, safety=self.safety,
                               arms=('left', 'right'), config=LoopConfig(**settings), steady=self.steady)
        self.now_ns = 1_000_000_000

    def tick(self):
        self.now_ns += 20_000_000
        self.steady.ns += 20_000_000
        return self.loop.tick(self.now_ns)

    def observe(self):
        self.loop.observe(self.now_ns)

    def ready(self):
        """Active, enabled and told what to do."""
        self.loop.activate()
        assert self.loop.enable(True).accepted and self.loop.set_prompt('wave').accepted
        return self

    def moving(self):
        """Executing a first plan."""
        self.ready()
        self.plan()
        assert not isinstance(self.tick(), Hold)
        return self

    def plan(self):
        self.observe()
        self.worker.finish()

    def reason(self):
        """Of the next tick's hold, None for a target."""
        outcome = self.tick()
        return outcome.reason if isinstance(outcome, Hold) else None


@pytest.fixture
def rig():
    """Builds a :class:`Rig`."""
    return Rig
