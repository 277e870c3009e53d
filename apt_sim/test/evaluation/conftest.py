"""Scene of the rollouts, and a planner with ground truth."""

import sys
from pathlib import Path

import numpy as np
import pytest

from apt_policy.core.geometry import make_pose
from apt_policy.core.sample import ArmState, Chunk
from apt_sim.evaluation.rollout import Rollout
from apt_sim.tasks.grasp import EE_FROM_TOOL_CENTRE
from apt_sim.tasks.scripted_expert import ScriptedExpert
from apt_sim.tasks.task import GroundTruth

_REACH = 0.04
# Spawned worker processes import the planner factory by name.
sys.path.append(str(Path(__file__).parent))


class Oracle:
    """Planner that predicts the scripted expert in a world where grasped objects move with the hand."""

    def __init__(self, contract):
        self._contract = contract
        self.see = None
        """Tells the true situation."""
        self.rollout: Rollout
        self._course = []

    def warm_up(self):
        self._course = []

    def plan(self, observation, *, epoch, prefix):
        task = next(part.task for part in self.rollout.instructed_tasks if part.instruction == observation.prompt)
        if not self._course or self._course[0] != epoch:
            self._course = [epoch, observation.stamp_ns, self._imagine(task, self.see())]
        _, begun_ns, targets = self._course
        step_ns, rate = self._contract.step_ns, self._contract.control_rate_hz
        due = observation.stamp_ns - begun_ns + step_ns * np.arange(1, self._contract.horizon + 1)
        rows = [targets[min(round(ns * rate / 1e9) - 1, len(targets) - 1)] for ns in due]
        return Chunk(stamp_ns=observation.stamp_ns, step_ns=step_ns, epoch=epoch, prompt=observation.prompt,
                     world_from_ee=np.stack([row.world_from_ee for row in rows]),
                     gripper=np.stack([row.gripper for row in rows]), valid_arms=np.ones(2, bool), inference_s=0.0)

    def close(self):
        pass

    def _imagine(self, task, now):
        expert, targets = ScriptedExpert(self._contract, task, now, random=np.random.default_rng(0)), []
        while not expert.done:
            targets.append(expert.step(now))
            now = self._after(now, targets[-1])
        return targets

    def _after(self, now, target):
        arms = {name: ArmState(world_from_ee=target.world_from_ee[k], gripper=float(target.gripper[k]))
                for k, name in enumerate(self._contract.arms)}
        objects = dict(now.objects)
        for state in arms.values():
            tool = state.world_from_ee @ np.array([*EE_FROM_TOOL_CENTRE, 1.0])
            for name, pose in objects.items():
                if state.gripper < 0.5 and np.linalg.norm(pose[:3, 3] - tool[:3]) < _REACH:
                    objects[name] = make_pose(pose[:3, :3], tool[:3])
        return GroundTruth(stamp_ns=target.due_ns, arms=arms, objects=objects, trays=now.trays)


@pytest.fixture
def oracle(small):
    return Oracle(small)
