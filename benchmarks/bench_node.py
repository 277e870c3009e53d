"""The policy node beside a robot in another process: overhead, frames lost, control jitter.

A second process publishes four 640x480 cameras at 30 Hz, and joint states and TF of two arms at
100 Hz. The node runs as ``ros2 run apt_policy policy`` runs it, with the shipped Fast DDS profile.

- ``node_overhead_ms_p50``: the node's own work from the image callbacks of an observation to the
  published target of its chunk, on the clock on the wall: storing the four images, making the
  observation (decode, resize, TF), handing it over, and the control tick that publishes. Not in it:
  the planner, and waiting for the control timer; ``node_latency_ms_p50`` has the waiting too, and
  ``node_overhead_cpu_ms_p50`` counts processor time only, for machines that others use as well.
- ``camera_rate_fraction``: frames that reached the node's callbacks by frames sent, of the worst
  camera; beside it the same of a bare rclpy subscriber, measured in turns.
- ``node_control_jitter_ms_p99``: how late targets are published, against the timer's own grid, while the
  real model (untrained, tiny) infers without a pause, in a process of its own and in a thread; beside it
  how late a bare rclpy timer is in a node that only receives the images.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import domain_coordinator
import numpy as np
import rclpy
import yaml
from ledger import record
from node_probe import Probe
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.inference.worker.worker import WorkerKind
from apt_policy.ros import encode
from apt_policy.ros.policy_node import PolicyNode, trained_planner
from apt_policy.ros.qos import Role, profile

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ROOT / 'apt_bringup' / 'config' / 'aloha.yaml'
COMMAND = 'python benchmarks/bench_node.py'
WIDTH, HEIGHT, CAMERA_HZ, STATE_HZ = 640, 480, 30.0, 100.0
PLANNER_S = 0.1
_FLOWS_S = 60.0


def robot(contract_path: Path, domain: int, ending: Any, sent: Any) -> None:
    """Publish until told to end; ``sent`` counts the frames of each camera."""
    rclpy.init(domain_id=domain)
    contract, node = load_contract(contract_path), rclpy.create_node('robot')
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    camera = np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]])
    images = {name: (node.create_publisher(Image, c.image_topic, profile(Role.SENSOR)),
                     node.create_publisher(CameraInfo, c.info_topic, profile(Role.SENSOR)))
              for name, c in contract.cameras.items()}
    states = {name: node.create_publisher(JointState, arm.joint_states_topic, 10)
              for name, arm in contract.arms.items()}
    frames = node.create_publisher(TFMessage, '/tf', 100)
    links = [(arm.base_frame, arm.ee_frame) for arm in contract.arms.values()] + [
        (contract.arms[c.tf_anchor].base_frame, c.frame) for c in contract.cameras.values() if c.tf_anchor]
    hand = np.eye(4)
    hand[:3, 3] = 0.3, 0.0, 0.2

    def send_images() -> None:
        for index, (name, (picture, info)) in enumerate(images.items()):
            stamp_ns, frame = node.get_clock().now().nanoseconds, contract.cameras[name].frame
            picture.publish(encode.image(stamp_ns, frame, pixels))
            info.publish(encode.camera_info(stamp_ns, frame, camera, WIDTH, HEIGHT))
            sent[index] += 1

    def send_states() -> None:
        stamp_ns = node.get_clock().now().nanoseconds
        for name, arm in contract.arms.items():
            names = [*arm.joints, arm.gripper_state.joint]
            states[name].publish(encode.joint_state(stamp_ns, names, [*arm.start, arm.gripper_state.open]))
        frames.publish(TFMessage(transforms=[encode.transform(stamp_ns, *link, hand) for link in links]))

    node.create_timer(1.0 / CAMERA_HZ, send_images)
    node.create_timer(1.0 / STATE_HZ, send_states)
    while not ending.is_set():
        rclpy.spin_once(node, timeout_sec=0.2)
    rclpy.shutdown()


class Bare(Node):
    """What rclpy alone makes of the same images."""

    def __init__(self, contract: RobotContract) -> None:
        super().__init__('bare')
        self.counts = [0] * len(contract.cameras)
        self.ticks: list[float] = []
        for index, camera in enumerate(contract.cameras.values()):
            self.create_subscription(Image, camera.image_topic, partial(self._count, index),
                                     profile(Role.SENSOR))
        self.create_timer(1.0 / contract.control_rate_hz, self._tick)

    def _count(self, index: int, _message: Image) -> None:
        self.counts[index] += 1

    def _tick(self) -> None:
        self.ticks.append(time.perf_counter())


def spin(executor: SingleThreadedExecutor, seconds: float) -> float:
    """Spin; the share of a core that this process used."""
    end, used, began = time.monotonic() + seconds, time.process_time(), time.monotonic()
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.2)
    return (time.process_time() - used) / (time.monotonic() - began)


class Run:
    """One configured node, active and enabled."""

    def __init__(self, contract_path: Path, worker: WorkerKind, make_factory: Any, probe: Probe) -> None:
        self.node = PolicyNode(make_factory=make_factory, parameter_overrides=[
            Parameter('contract', value=str(contract_path)), Parameter('worker', value=worker.value),
            Parameter('default_prompt', value='stack the cubes')])
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        probe.clear()
        self.node.trigger_configure()
        if self.node._configured is None:
            raise SystemExit(f'the node could not be configured: {self.node._why_inactive}')
        self.loop = self.node._configured.pipeline.loop
        cameras = tuple(self.node._configured.pipeline.contract.cameras)
        probe.watch_submissions(self.node._configured.pipeline._worker, cameras)
        self.node.trigger_activate()
        end = time.monotonic() + _FLOWS_S
        # The graph remembers the publishers of the turn before for a moment.
        while not self.loop.enable(True).accepted and time.monotonic() < end:
            spin(self.executor, 0.2)
        while not probe.sent or time.perf_counter() - probe.sent[-1] > 0.1:
            if time.monotonic() > end:
                raise SystemExit(f'no targets within {_FLOWS_S} s: {self.loop.status().hold}')
            spin(self.executor, 1.0)
        probe.clear()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()


def jitter_ms(sent: list[float], period_s: float) -> np.ndarray:
    """How late each target is against the grid that fits the earliest ones [ms]."""
    if len(sent) < 10:
        raise SystemExit(f'only {len(sent)} targets flowed: the machine is too busy to measure anything')
    times = np.array(sent) - sent[0]
    late = times - np.round(times / period_s) * period_s
    return 1e3 * (late - np.quantile(late, 0.01))


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=6.0, help='length of one turn [s]')
    parser.add_argument('--rounds', type=int, default=2, help='turns of each case')
    options = parser.parse_args()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    profile_file = ROOT / 'apt_bringup' / 'config' / 'fastdds.xml'
    os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(profile_file))
    sys.setswitchinterval(0.001)
    cv2.setNumThreads(1)
    # Nobody else's robot may be heard.
    with tempfile.TemporaryDirectory() as folder, domain_coordinator.domain_id() as domain:
        fields = yaml.safe_load(CONTRACT.read_text())
        for arm in fields['arms'].values():
            arm['workspace'] = None
            # What is measured is lateness; it must not end the measurement.
            arm['max_age_s'] = 1.0
        for camera in fields['cameras'].values():
            camera['max_age_s'] = 1.0
        path = Path(folder) / 'contract.yaml'
        path.write_text(yaml.safe_dump(fields, sort_keys=False))
        context = multiprocessing.get_context('spawn')
        ending, sent = context.Event(), context.Array('L', [0] * len(fields['cameras']))
        publisher = context.Process(target=robot, args=(path, domain, ending, sent), daemon=True)
        publisher.start()
        try:
            measure(path, domain, sent, options)
        finally:
            ending.set()
            publisher.join(5.0)


def measure(path: Path, domain: int, sent: Any, options: argparse.Namespace) -> None:
    """All figures, with the robot running."""
    rclpy.init(domain_id=domain)
    probe, contract = Probe(), load_contract(path)
    probe.attach()
    period_s = 1.0 / contract.control_rate_hz
    turns: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        bare_turn(contract, sent, options.seconds, period_s, turns)
        node_turn(path, contract, sent, options.seconds, probe, turns)
        for kind in WorkerKind:
            jitter_turn(path, kind, probe, options.seconds, period_s, turns)
    rclpy.shutdown()
    figures = {name: float(np.median(values)) for name, values in turns.items()}
    for name, value in figures.items():
        print(f'  {name:28} {value:8.3f}   turns: {", ".join(f"{v:.3f}" for v in turns[name][:8])}')
    for name, unit, goal in (
            ('node_overhead_ms_p50', 'ms', '< 5'), ('node_overhead_cpu_ms_p50', 'ms', ''),
            ('node_latency_ms_p50', 'ms', ''),
            ('camera_rate_fraction', '', '>= 0.97'), ('camera_rate_fraction_bare', '', ''),
            ('node_control_jitter_ms_p99', 'ms', '< 5'), ('node_control_jitter_thread_ms_p99', 'ms', ''),
            ('node_control_jitter_bare_ms_p99', 'ms', '')):
        record(name=name, value=figures[name], unit=unit, goal=goal, command=COMMAND)


def bare_turn(contract: RobotContract, sent: Any, seconds: float, period_s: float,
              turns: dict[str, list[float]]) -> None:
    """rclpy alone."""
    bare, executor = Bare(contract), SingleThreadedExecutor()
    executor.add_node(bare)
    spin(executor, 2.0)
    before, bare.counts, bare.ticks = list(sent), [0] * len(sent), []
    turns['cpu_bare'].append(spin(executor, seconds))
    turns['camera_rate_fraction_bare'].append(worst_rate(bare.counts, sent, before))
    turns['node_control_jitter_bare_ms_p99'].append(float(np.quantile(jitter_ms(bare.ticks, period_s), 0.99)))
    executor.shutdown()
    bare.destroy_node()


def node_turn(path: Path, contract: RobotContract, sent: Any, seconds: float, probe: Probe,
              turns: dict[str, list[float]]) -> None:
    """The node with a planner that computes nothing."""
    factory = partial(HoverPlanner, radius_m=0.005, delay_s=PLANNER_S)
    run = Run(path, WorkerKind.PROCESS, lambda params, contract: factory, probe)
    before = list(sent)
    turns['cpu_node'].append(spin(run.executor, seconds))
    counts = [len(probe.images[name]) for name in contract.cameras]
    turns['camera_rate_fraction'].append(worst_rate(counts, sent, before))
    wall, processor = np.median(probe.overheads_ms, axis=0)
    turns['node_overhead_ms_p50'].append(float(wall))
    turns['node_overhead_cpu_ms_p50'].append(float(processor))
    turns['node_latency_ms_p50'].append(float(np.median(probe.latencies_ms)) - 1e3 * PLANNER_S)
    run.close()


def jitter_turn(path: Path, kind: WorkerKind, probe: Probe, seconds: float, period_s: float,
                turns: dict[str, list[float]]) -> None:
    """The node while the model infers in one kind of worker."""
    run = Run(path, kind, trained_planner, probe)
    spin(run.executor, seconds)
    suffix = '' if kind is WorkerKind.PROCESS else f'_{kind.value}'
    turns[f'node_control_jitter{suffix}_ms_p99'].append(
        float(np.quantile(jitter_ms(probe.sent, period_s), 0.99)))
    turns[f'inference_{kind.value}_ms'].append(1e3 * run.loop.status().counts.inference.p50_s)
    run.close()


def worst_rate(got: list[int], sent: Any, before: list[int]) -> float:
    """Frames received by frames sent, of the camera that lost most."""
    return min(count / (now - old) for count, now, old in zip(got, sent, before, strict=True))


if __name__ == '__main__':
    main()
