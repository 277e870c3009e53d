"""Train and serve see the same: a stream over DDS into the live node's inputs, and its bag through the converter."""

import json
import time
from pathlib import Path

import cv2
import domain_coordinator
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from tf2_msgs.msg import TFMessage

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import contract_from_dict, contract_to_dict, load_contract
from apt_policy.core.kinematics import forward_kinematics
from apt_policy.core.sample import Observation
from apt_policy.core.streams import TimeBase
from apt_policy.ros import encode
from apt_policy.ros.inputs import RobotInputs
from apt_policy.ros.policy_params import PolicyParams
from apt_policy.ros.qos import Role, profile
from apt_policy.ros.stream_warnings import StreamWarnings
from apt_policy.ros.transforms import create_transform_listener
from apt_training.convert.rosbag.config import RosbagConversionConfig, SegmentationMode
from apt_training.convert.rosbag.job import RosbagJob

ROOT = Path(__file__).resolve().parents[1]
MS = 1_000_000
DEADLINE_S, ENOUGH = 60.0, 15
QUIET_NS, BURST_NS = 50 * MS, 200 * MS
"""Before an instant nothing is sent for the one, and everything at the other."""
WIDTH, HEIGHT = 320, 240
ON_RECEIPT = 'cam_low'


@pytest.fixture
def contract():
    """The real robot with a small view; one camera sends JPEG, one stands on a mount that TF does not know."""
    fields = json.loads(json.dumps(contract_to_dict(load_contract(ROOT / 'apt_bringup' / 'config' / 'aloha.yaml'))))
    fields['image_size'] = 64
    # Slow enough that a loaded machine keeps up.
    fields['step_s'] = 0.25
    for stream in (*fields['arms'].values(), *fields['cameras'].values()):
        stream['max_age_s'] = 0.6
    fields['cameras']['cam_low']['transport'] = 'compressed'
    fields['cameras']['cam_right_wrist']['ee_from_camera'] = {'translation': [0.02, 0.0, 0.05]}
    return contract_from_dict(fields, source='test')


@pytest.fixture
def node():
    with domain_coordinator.domain_id() as number:
        rclpy.init(domain_id=number)
        made = rclpy.create_node('parity')
        yield made
        made.destroy_node()
        rclpy.shutdown()


class Stage:
    """A robot that publishes, the live node's inputs, and a recorder of raw bytes, in one node."""

    def __init__(self, node, contract):
        self.node, self.contract = node, contract
        self.recorded, self.error_texts = [], []
        self.rng = np.random.default_rng(7)
        self.chains = forward_kinematics(contract)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.transforms = create_transform_listener(node, lambda topic, text: self.error_texts.append(text))
        self.assembler = ObservationAssembler(contract, self.transforms, time_bases={ON_RECEIPT: TimeBase.RECEIVE})
        self.inputs = RobotInputs(node, contract, PolicyParams(contract='-', stamp_on_receipt=(ON_RECEIPT,)),
                                  self.assembler, StreamWarnings(self.error_texts.append))
        self.publishers = {}
        for camera in contract.cameras.values():
            kind = CompressedImage if camera.transport.value == 'compressed' else Image
            self.open(camera.image_topic, kind, profile(Role.SENSOR))
            self.open(camera.info_topic, CameraInfo, profile(Role.SENSOR))
        for arm in contract.arms.values():
            self.open(arm.joint_states_topic, JointState, profile(Role.STATE))
        self.open('/tf', TFMessage, profile(Role.TRANSFORM))
        self.open('/tf_static', TFMessage, profile(Role.STATIC_TRANSFORM))

    def open(self, topic, kind, quality):
        self.publishers[topic] = self.node.create_publisher(kind, topic, quality)
        name = topic if topic.startswith('/') else f'/{topic}'

        def record(raw):
            self.recorded.append((self.now_ns(), name, kind, bytes(raw)))

        self.node.create_subscription(kind, topic, record, quality, raw=True)

    def now_ns(self):
        return self.node.get_clock().now().nanoseconds

    def spin_until(self, instant_ns):
        while (left := (instant_ns - self.now_ns()) / 1e9) > 0:
            self.executor.spin_once(timeout_sec=min(left, 0.01))
        for _ in range(40):
            self.executor.spin_once(timeout_sec=0.0)

    def send_states(self):
        at = self.now_ns()
        links = []
        for name, arm in self.contract.arms.items():
            joints = np.array(arm.start) + 0.3 * np.sin(at / 1e9 * np.arange(1, 7) * 0.4)
            links.append(encode.transform(at, arm.base_frame, arm.ee_frame, self.chains[name].base_from_ee(joints)))
            finger = 0.04 + 0.015 * np.sin(at / 1e9)
            self.publishers[arm.joint_states_topic].publish(encode.joint_state(
                at + MS, [*arm.joints, arm.gripper_state.joint], [*joints, finger]))
        self.publishers['/tf'].publish(TFMessage(transforms=links))

    def send_static(self):
        arm, camera = self.contract.arms['left'], self.contract.cameras['cam_left_wrist']
        mount = np.eye(4)
        mount[:3, 3] = 0.03, 0.01, 0.06
        self.publishers['/tf_static'].publish(TFMessage(transforms=[
            encode.transform(self.now_ns(), arm.ee_frame, camera.frame, mount)]))

    def send_images(self, skip):
        camera_matrix = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
        for name, camera in self.contract.cameras.items():
            # Some drivers stamp when the shutter opens, some leave out a frame.
            at = self.now_ns() - 20 * MS
            coarse = self.rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            if name == skip:
                continue
            self.publishers[camera.info_topic].publish(
                encode.camera_info(at, camera.frame, camera_matrix, WIDTH, HEIGHT))
            if camera.transport.value == 'compressed':
                _, data = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
                self.publishers[camera.image_topic].publish(CompressedImage(
                    header=encode.header(0, camera.frame), format='jpeg', data=data.tobytes()))
            else:
                self.publishers[camera.image_topic].publish(encode.image(at, camera.frame, pixels))

    def wait_for_everybody(self):
        """Until every subscription has heard its publisher."""
        deadline = time.monotonic() + DEADLINE_S
        while {topic for _, topic, _, _ in self.recorded} != {'/' + one.lstrip('/') for one in self.publishers}:
            assert time.monotonic() < deadline, f'heard only {sorted({one[1] for one in self.recorded})}'
            self.send_static()
            self.send_states()
            self.send_images(None)
            self.spin_until(self.now_ns() + 100 * MS)

    def next_step(self, start_ns):
        """The first instant before which everything can still be sent."""
        return (self.now_ns() + BURST_NS - start_ns) // self.contract.step_ns + 1

    def snapshots(self):
        """By instant, what the live node made of it; only of instants that were quiet on the wires."""
        start_ns, step_ns = self.recorded[0][0], self.contract.step_ns
        seen, deadline = {}, time.monotonic() + DEADLINE_S
        step = self.next_step(start_ns)
        while len(seen) < ENOUGH and time.monotonic() < deadline:
            tick_ns = start_ns + step * step_ns
            self.spin_until(tick_ns - BURST_NS)
            self.send_states()
            self.send_images(list(self.contract.cameras)[step % 5] if step % 5 < 4 else None)
            self.spin_until(tick_ns - 140 * MS)
            self.send_states()
            self.spin_until(tick_ns - QUIET_NS)
            heard = len(self.recorded)
            self.spin_until(tick_ns)
            found = self.assembler.snapshot(tick_ns, 'do it')
            last_ns = max(one[0] for one in self.recorded)
            if len(self.recorded) == heard and last_ns < tick_ns - QUIET_NS // 2:
                seen[tick_ns] = found
            step = self.next_step(start_ns)
        assert len(seen) == ENOUGH, f'only {len(seen)} quiet instants in {DEADLINE_S:g} s'
        return seen


def write_bag(path, recorded):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for receive_ns, topic, kind, raw in recorded:
            package = kind.__module__.split('.')[0]
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, f'{package}/msg/{kind.__name__}', typestore=store)
            writer.write(connections[topic], receive_ns, raw)
    return path


def test_the_converter_makes_of_a_bag_what_the_live_node_saw_at_the_same_instants(node, contract, tmp_path):
    stage = Stage(node, contract)
    stage.wait_for_everybody()
    live = stage.snapshots()
    stage.send_states()
    stage.spin_until(stage.now_ns() + 300 * MS)
    unit = RosbagJob(name='bag', path=str(write_bag(tmp_path / 'bag', stage.recorded)), contract=contract,
                   config=RosbagConversionConfig(split=SegmentationMode.BAG, receive=(ON_RECEIPT,), max_drops=1.0))
    frames = {frame.stamp_s: frame for episode in unit.episodes(lambda index: False, lambda share, count: None)
              for frame in episode.frames()}
    compared = 0
    for tick_ns, seen in live.items():
        if not isinstance(seen, Observation):
            assert tick_ns / 1e9 not in frames, f'live held: {seen.detail}'
            continue
        frame = frames[tick_ns / 1e9]
        for place, arm in enumerate(seen.arms):
            np.testing.assert_allclose(frame.world_from_ee[place], arm.world_from_ee, atol=1e-9)
            assert frame.gripper[place] == pytest.approx(arm.gripper, abs=1e-12)
        for name, view in zip(contract.cameras, seen.views, strict=True):
            made = frame.views[name]
            np.testing.assert_array_equal(made.rgb, view.rgb, err_msg=name)
            np.testing.assert_array_equal(made.mask, view.mask)
            np.testing.assert_allclose(made.intrinsics, view.intrinsics, atol=1e-12)
            np.testing.assert_allclose(made.world_from_camera, view.world_from_camera, atol=1e-9)
        compared += 1
    assert compared >= ENOUGH * 2 // 3, f'the live node held at {len(live) - compared} of {len(live)} instants'
