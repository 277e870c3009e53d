"""Marks in the run of a plan, and the time between them: on a GPU by its events, else by the clock.

The policy that is timed is the product's own; it only says where it is, from hooks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from apt_policy.model.batch import RobotState, VlFeatures
from apt_policy.model.diffusion import ActionPrefix
from apt_policy.model.expert import Conditioning, Expert
from apt_policy.model.policy import ActionSampler, Policy

PREPARE, VLM, OBSERVE, ROOM, STEP, FINISH = 'prepare', 'VLM', 'observe', 'room', 'step', 'finish'
DENOISE, PLAN = 'denoise', 'plan'
PARTS = (PREPARE, VLM, OBSERVE, DENOISE, FINISH)
"""Of a plan, in order; together they are the plan."""


class Clock(Protocol):
    """Where time is taken; the lap that ends with a mark is called after it."""

    def start(self) -> None:
        """Forget all marks and begin."""

    def mark(self, name: str) -> None:
        """End a lap."""

    def laps(self) -> list[tuple[str, float]]:
        """Wait until all is done; names and seconds of all laps since the start."""


class HostClock:
    """For the CPU, where a call returns when its work is done."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []

    def start(self) -> None:
        self._marks = [('', time.perf_counter())]

    def mark(self, name: str) -> None:
        self._marks.append((name, time.perf_counter()))

    def laps(self) -> list[tuple[str, float]]:
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [(name, until - since) for (_, since), (name, until) in pairs]


class CudaClock:
    """Events in the stream: a lap ends when the GPU gets there, and nothing waits for it meanwhile."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, torch.cuda.Event]] = []

    def start(self) -> None:
        torch.cuda.synchronize()
        self._marks = []
        self.mark('')

    def mark(self, name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append((name, event))

    def laps(self) -> list[tuple[str, float]]:
        torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [(name, since.elapsed_time(until) / 1e3) for (_, since), (name, until) in pairs]


def clock_for(device: torch.device) -> Clock:
    return CudaClock() if device.type == 'cuda' else HostClock()


class MarkedSampler(ActionSampler):
    """The sampler, marking the end of the observation's part and the begin of each step."""

    def __init__(self, expert: Expert, denoising_steps: int | None, *, noise_scale: float, clock: Clock) -> None:
        super().__init__(expert, denoising_steps, noise_scale=noise_scale)
        self._clock = clock
        self._begun = False
        # The first module that a step runs. On a CPU this expert is a packed copy, so the hook is on no other's.
        self._hook = self._expert.dp_head.traj_enc.register_forward_pre_hook(self._begin_step)

    def observe(self, features: VlFeatures, robot: RobotState, *, horizon: int) -> Conditioning:
        conditioning = super().observe(features, robot, horizon=horizon)
        self._clock.mark(OBSERVE)
        return conditioning

    def sample(self, conditioning: Conditioning, noise: Tensor, prefix: ActionPrefix | None = None) -> Tensor:
        self._begun = False
        actions = super().sample(conditioning, noise, prefix)
        self._clock.mark(STEP)
        return actions

    def _begin_step(self, *_: Any) -> None:
        self._clock.mark(STEP if self._begun else ROOM)
        self._begun = True


class MarkedPolicy(Policy):
    """A policy that marks where a plan is."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        super().__init__(policy.config, policy.vlm, policy.expert)
        self.clock = clock
        self.vlm.register_forward_pre_hook(lambda *_: clock.mark(PREPARE))
        self.vlm.register_forward_hook(lambda *_: clock.mark(VLM))

    def sampler(self, denoising_steps: int | None = None, *, noise_scale: float = 1.0) -> ActionSampler:
        return MarkedSampler(self.expert, denoising_steps, noise_scale=noise_scale, clock=self.clock)


@dataclass(kw_only=True)
class Times:
    """Seconds of every part, a value for each plan; of steps, one for each step."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, laps: list[tuple[str, float]]) -> None:
        """Add the laps of one plan."""
        sums = dict.fromkeys(PARTS, 0.0)
        for name, seconds in laps:
            sums[DENOISE if name in (ROOM, STEP) else name] += seconds
            if name == STEP:
                self.of.setdefault(STEP, []).append(seconds)
        for name, seconds in (*sums.items(), (PLAN, sum(sums.values()))):
            self.of.setdefault(name, []).append(seconds)

    def summary(self, name: str) -> dict[str, float]:
        """Return median, 95th percentile and mean [ms]; means of parts add up to the plan's, percentiles do not."""
        values = np.array(self.of[name]) * 1e3
        p50, p95 = np.percentile(values, (50, 95))
        return {'p50_ms': float(p50), 'p95_ms': float(p95), 'mean_ms': float(values.mean())}


def time_plans(plan: Callable[[], object], clock: Clock, *, warm_up: int, runs: int) -> Times:
    """Time ``plan``, which marks ``clock``, ``runs`` times after it ran ``warm_up`` times untimed."""
    for _ in range(warm_up):
        clock.start()
        plan()
    times = Times()
    for _ in range(runs):
        clock.start()
        plan()
        clock.mark(FINISH)
        times.add(clock.laps())
    return times
