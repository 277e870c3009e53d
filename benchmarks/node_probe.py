"""What ``bench_node`` measures inside a running policy node: its methods, wrapped with a clock.

It knows the node's parts by name and changes nothing of what they do.
"""

import time
from collections import defaultdict
from typing import Any

import numpy as np

from apt_policy.inference.loop import PolicyLoop
from apt_policy.ros.bridge import PolicyBridge
from apt_policy.ros.inputs import RobotInputs
from apt_policy.ros.outputs import PolicyOutputs


class Span:
    """A stretch of work of one thread, on the wall's clock and in processor time [s]."""

    def __init__(self) -> None:
        self.began, self._worked = time.perf_counter(), time.thread_time()

    def lengths(self) -> np.ndarray:
        """(2,) wall and processor time since the beginning."""
        return np.array([time.perf_counter() - self.began, time.thread_time() - self._worked])


class Probe:
    """Times what the node does, by wrapping its methods."""

    def __init__(self) -> None:
        self.images: dict[str, dict[int, tuple[float, np.ndarray]]] = defaultdict(dict)
        """Begin and lengths of the callback of each frame, by camera and stamp."""
        self.observed: dict[int, tuple[np.ndarray, dict[str, int]]] = {}
        """By the observation's stamp: lengths of making it, stamps of its frames."""
        self.sent: list[float] = []
        """When each target was out [s]."""
        self.overheads_ms: list[np.ndarray] = []
        """(2,) on the wall's clock and in processor time."""
        self.latencies_ms: list[float] = []
        self._tick = self._observation = Span()
        self._tick_lengths: np.ndarray | None = None

    def attach(self) -> None:
        """Wrap."""
        probe, listen, observe = self, RobotInputs._listen_to_camera, PolicyLoop.observe
        tick, send, chunk = PolicyBridge._tick, PolicyOutputs.send_target, PolicyOutputs.send_chunk

        def timed_listen(inputs: RobotInputs, name: str, params: Any) -> None:
            store = inputs._assembler.add_image

            def timed_store(camera: str, message: Any, receive_ns: int) -> Any:
                span = Span()
                arrival = store(camera, message, receive_ns)
                stamp = message.header.stamp
                probe.images[camera][stamp.sec * 10**9 + stamp.nanosec] = span.began, span.lengths()
                return arrival
            if getattr(inputs._assembler.add_image, '__name__', '') != 'timed_store':
                inputs._assembler.add_image = timed_store  # type: ignore[method-assign, assignment]
            listen(inputs, name, params)

        def timed_observe(loop: PolicyLoop, now_ns: int) -> None:
            probe._observation = Span()
            observe(loop, now_ns)

        def timed_tick(bridge: PolicyBridge) -> None:
            probe._tick, probe._tick_lengths = Span(), None
            tick(bridge)

        def timed_send(outputs: PolicyOutputs, target: Any) -> None:
            send(outputs, target)
            probe.sent.append(time.perf_counter())
            probe._tick_lengths = probe._tick.lengths()

        def first_target(outputs: PolicyOutputs, taken: Any) -> None:
            probe._conclude(taken.stamp_ns)
            chunk(outputs, taken)
        RobotInputs._listen_to_camera = timed_listen  # type: ignore[method-assign, assignment]
        PolicyLoop.observe = timed_observe  # type: ignore[method-assign, assignment]
        PolicyBridge._tick = timed_tick  # type: ignore[method-assign, assignment]
        PolicyOutputs.send_target = timed_send  # type: ignore[method-assign, assignment]
        PolicyOutputs.send_chunk = first_target  # type: ignore[method-assign, assignment]

    def watch_submissions(self, worker: Any, cameras: tuple[str, ...]) -> None:
        """Note when an observation is handed over, and which frames are in it."""
        submit = worker.submit

        def timed_submit(request: Any) -> None:
            submit(request)
            seen = request.observation
            stamps = {name: view.stamp_ns for name, view in zip(cameras, seen.views, strict=True)}
            self.observed[seen.stamp_ns] = self._observation.lengths(), stamps
        worker.submit = timed_submit

    def clear(self) -> None:
        """Forget what was measured, not the frames."""
        self.sent, self.overheads_ms, self.latencies_ms = [], [], []
        self.images.clear()

    def _conclude(self, stamp_ns: int) -> None:
        made = self.observed.pop(stamp_ns, None)
        if made is None or self._tick_lengths is None:
            return
        frames = [self.images[name].get(stamp) for name, stamp in made[1].items()]
        known = [frame for frame in frames if frame is not None]
        if len(known) == len(frames):
            stored = sum((lengths for _, lengths in known), np.zeros(2))
            self.overheads_ms.append(1e3 * (stored + made[0] + self._tick_lengths))
            self.latencies_ms.append(1e3 * (self.sent[-1] - max(began for began, _ in known)))
