"""Control jitter at 50 Hz while the policy is inferred, with the planner in a thread and in a process.

The loop's tick is called at a fixed rate, as the node's control timer does; jitter is how long after
its due time a tick's target is there. The planner is the real one at its debug size, on the CPU, and never
pauses. As it is, it spends its time in torch, which lets go of Python's lock; so there is a second planner
that begins every plan with 30 ms of plain Python, as slow tokenizers and image processors do.

The cases take turns, so that whatever else runs on the machine falls on all of them alike; a figure is the
median over the turns of the 99th percentile in a turn.
"""

import argparse
import functools
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
from ledger import record

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.safety import SafetyFilter
from apt_policy.core.sample import ArmState, Chunk, Observation, Target, View
from apt_policy.core.streams import StreamReport
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.loop import PolicyLoop
from apt_policy.inference.ports import ChunkPrefix, Planner, PlannerFactory
from apt_policy.inference.report import LoopConfig
from apt_policy.inference.worker.child import threads_beside_control
from apt_policy.inference.worker.process_worker import start_worker
from apt_policy.inference.worker.worker import WorkerConfig, WorkerKind

CONTRACT = Path(__file__).resolve().parents[1] / 'apt_bringup' / 'config' / 'aloha_sim.yaml'
PERIOD_NS = 20_000_000


def policy(contract: RobotContract) -> Planner:
    """The untrained policy of the debug size; imported where it runs, so that torch is."""
    from apt_policy.inference.planner import load_planner
    from apt_policy.inference.planner_config import PlannerConfig
    return load_planner(PlannerConfig(device='cpu'), contract)


class Talkative:
    """The policy behind 30 ms of Python that never lets go of its lock."""

    def __init__(self, contract: RobotContract) -> None:
        """Load the policy."""
        self._policy = policy(contract)

    def warm_up(self) -> None:
        """As the policy does."""
        self._policy.warm_up()

    def plan(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None) -> Chunk:
        """As the policy does, later."""
        end_s = time.perf_counter() + 0.03
        while time.perf_counter() < end_s:
            sum(map(int, str(epoch)))
        return self._policy.plan(observation, epoch=epoch, prefix=prefix)

    def close(self) -> None:
        """As the policy does."""
        self._policy.close()


class Scene:
    """Two arms in the middle of their boxes and every camera, always fresh."""

    def __init__(self, contract: RobotContract) -> None:
        """Any images will do."""
        rng, size = np.random.default_rng(0), contract.image_size
        self._views = tuple(
            View(rgb=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
                 mask=np.ones((size, size), np.bool_), world_from_camera=np.eye(4), stamp_ns=0,
                 intrinsics=np.array([[250.0, 0, 128], [0, 250, 128], [0, 0, 1]])) for _ in contract.cameras)
        self._arms = tuple(ArmState(world_from_ee=_middle(arm.workspace), gripper=0.5)
                           for arm in contract.arms.values())

    def snapshot(self, tick_ns: int, prompt: str) -> Observation:
        """Everything at once."""
        return Observation(stamp_ns=tick_ns, prompt=prompt, views=self._views, history=(self._arms,))

    def ages(self, tick_ns: int) -> tuple[StreamReport, ...]:
        """No stream is late."""
        return ()

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...]:
        """They stand still."""
        return self._arms

    def clear(self) -> None:
        """Nothing to forget."""


class Case:
    """One way to run the planner, warm and ready to be measured."""

    def __init__(self, contract: RobotContract, kind: WorkerKind, factory: PlannerFactory, *,
                 pause_s: float, nice: int) -> None:
        """``pause_s`` between two plans [s]; ``nice`` of a planner process."""
        self._pause_s = pause_s
        self._worker = start_worker(kind, factory, cameras=len(contract.cameras),
                                    image_size=contract.image_size, config=WorkerConfig(nice=nice))
        self._worker.warm_up()
        self.loop = PolicyLoop(source=Scene(contract), worker=self._worker, arms=tuple(contract.arms),
                               config=LoopConfig(), safety=SafetyFilter(contract))
        self.turns_ms: list[list[float]] = []

    def measure(self, seconds: float) -> None:
        """Tick for a while, observing from another thread as the node does."""
        self.loop.activate()
        self.loop.enable(True)
        self.loop.set_prompt('move')
        ended = threading.Event()
        observer = threading.Thread(target=self._observe, args=(ended,))
        observer.start()
        lateness_ms = []
        due_ns = time.monotonic_ns() + PERIOD_NS
        for _ in range(round(seconds * 1e9 / PERIOD_NS)):
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            outcome = self.loop.tick(time.monotonic_ns())
            if isinstance(outcome, Target):
                lateness_ms.append((time.monotonic_ns() - due_ns) / 1e6)
            due_ns += PERIOD_NS
        self.turns_ms.append(lateness_ms)
        ended.set()
        observer.join()
        self.loop.deactivate()

    def close(self) -> None:
        """End the planner."""
        self._worker.close()

    def _observe(self, ended: threading.Event) -> None:
        self.loop.observe(time.monotonic_ns())
        while not ended.wait(self._pause_s):
            self.loop.observe(time.monotonic_ns())


def _middle(box: object) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = np.mean([box.lower, box.upper], axis=0)  # type: ignore[attr-defined]
    return pose


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=3.0, help='length of one turn of one case [s]')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each case')
    parser.add_argument('--nice', type=int, default=0, help='niceness of the planner process')
    parser.add_argument('--switch-ms', type=float, default=5.0, help="interval of Python's lock [ms]")
    options = parser.parse_args()
    sys.setswitchinterval(options.switch_ms / 1e3)
    # What a worker process gives its planner; the thread gets the same, before torch is imported.
    os.environ['OMP_NUM_THREADS'] = str(threads_beside_control())
    contract = load_contract(CONTRACT)
    hover = functools.partial(HoverPlanner, radius_m=0.005)
    cases = {'_idle': Case(contract, WorkerKind.THREAD, hover, pause_s=2.0, nice=0)}
    for suffix, planner in (('', policy), ('_python', Talkative)):
        factory = functools.partial(planner, contract)
        for kind, name in ((WorkerKind.PROCESS, suffix), (WorkerKind.THREAD, f'_thread{suffix}')):
            cases[name] = Case(contract, kind, factory, pause_s=0.005, nice=options.nice)
    for _ in range(options.rounds):
        for case in cases.values():
            case.measure(options.seconds)
    for name, case in cases.items():
        case.close()
        p50, p99 = (float(np.median([np.quantile(turn, q) for turn in case.turns_ms])) for q in (0.5, 0.99))
        largest, ticks = max(map(max, case.turns_ms)), sum(map(len, case.turns_ms))
        inference_ms = case.loop.status().counts.inference.p50_s * 1e3
        print(f'{ticks} ticks, jitter p50 {p50:.2f} ms, p99 {p99:.2f} ms, largest {largest:.1f} ms; '
              f'inference p50 {inference_ms:.1f} ms')
        record(name=f'control_jitter{name}_ms_p99', value=p99, unit='ms', goal='' if name else '< 5',
               command='python benchmarks/bench_control_jitter.py')


if __name__ == '__main__':
    main()
