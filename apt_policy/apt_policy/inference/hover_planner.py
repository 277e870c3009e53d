"""Planner without a model, for tests, benchmarks and first trials of a robot.

``functools.partial`` of it is a picklable factory, so it runs in either worker.
"""

import math
import os
import time
from enum import Enum

import numpy as np

from apt_policy.core.sample import Chunk, Observation
from apt_policy.inference.ports import ChunkPrefix


class Fault(Enum):
    """Fault that the planner simulates."""

    NONE = 'none'
    RAISES = 'raises'
    RAISES_AT_START = 'raises at start'
    RETURNS_NAN = 'returns NaN'
    HANGS = 'hangs'
    EXITS = 'exits'
    """End of the whole process with exit code 3."""


class HoverPlanner:
    """Planner that moves every arm on a small circle in the world's x-y plane, from its present pose."""

    def __init__(self, *, horizon: int = 32, step_s: float = 0.1, radius_m: float = 0.02,
                 period_s: float = 3.0, delay_s: float = 0.0, fault: Fault = Fault.NONE,
                 good_plans: int = 0) -> None:
        """Create the planner.

        Args:
            horizon: number of rows of a chunk.
            step_s: time between two rows [s].
            radius_m: radius of the circle [m]; 0 keeps the arms in place.
            period_s: time for one circle [s].
            delay_s: duration of planning [s].
            fault: fault that occurs after ``good_plans`` plans.
            good_plans: number of plans before the fault.
        """
        self._step_ns = round(step_s * 1e9)
        angle = 2 * math.pi * step_s / period_s * np.arange(1, horizon + 1)
        self._path = radius_m * np.stack([np.cos(angle) - 1, np.sin(angle), 0 * angle], axis=-1)
        self._delay_s = delay_s
        self._fault = fault
        self._good_plans = good_plans

    def warm_up(self) -> None:
        """Do nothing, or raise for :attr:`Fault.RAISES_AT_START`."""
        if self._fault is Fault.RAISES_AT_START:
            raise RuntimeError('this planner was made to fail at its start')

    def plan(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None) -> Chunk:
        """Plan the circle; the rows of ``prefix`` are kept."""
        began_s = time.perf_counter()
        time.sleep(self._delay_s)
        self._good_plans -= 1
        fault = self._fault if self._good_plans < 0 else Fault.NONE
        _simulate_fault(fault)
        arms = observation.arms
        poses = np.array([np.eye(4) if arm is None else arm.world_from_ee for arm in arms])
        rows = np.repeat(poses[None], len(self._path), axis=0)
        rows[:, :, :3, 3] += self._path[:, None]
        gripper = np.array([[0.0 if arm is None else arm.gripper for arm in arms]] * len(rows))
        if prefix is not None:
            count = len(prefix.gripper)
            rows[:count, prefix.valid_arms] = prefix.world_from_ee[:, prefix.valid_arms]
            gripper[:count, prefix.valid_arms] = prefix.gripper[:, prefix.valid_arms]
        if fault is Fault.RETURNS_NAN:
            rows[-1, 0, 0, 3] = np.nan
        return Chunk(stamp_ns=observation.stamp_ns, step_ns=self._step_ns, world_from_ee=rows,
                     gripper=gripper, valid_arms=np.array([arm is not None for arm in arms]), epoch=epoch,
                     prompt=observation.prompt, inference_s=time.perf_counter() - began_s)

    def close(self) -> None:
        """Do nothing."""


def _simulate_fault(fault: Fault) -> None:
    if fault is Fault.RAISES:
        raise RuntimeError('this planner was made to fail')
    if fault is Fault.HANGS:
        time.sleep(3600)
    if fault is Fault.EXITS:
        os._exit(3)
