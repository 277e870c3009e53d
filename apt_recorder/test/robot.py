"""Robot that publishes every stream of a contract, or fails to: a program for the tests of the recorder.

``python robot.py CONTRACT [--image 64x48] [--without cam_low] [--late cam_high:3.0] [--slow left:0.3]
[--best-effort]``; SIGUSR1 silences cam_low, SIGUSR2 publishes it again, on SIGINT it prints as JSON how
often it published what.
"""

import argparse
import json
import signal
import struct
import threading
import time

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from apt_policy.core.contract import load_contract
from apt_policy.ros import encode
from apt_policy.ros.qos import Role, profile
from apt_policy.ros.stamps import to_time


class Robot(Node):
    def __init__(self, options):
        super().__init__('robot')
        self.options = options
        self.contract = load_contract(options.contract)
        self.sent = {}
        self.flows = []
        width, height = map(int, options.image.split('x'))
        reliability = ReliabilityPolicy.BEST_EFFORT if options.best_effort else ReliabilityPolicy.RELIABLE
        quality = QoSProfile(depth=10, reliability=reliability)
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        for name, camera in self.contract.cameras.items():
            self.flow(name, Image, camera.image_topic, encode.image(1, camera.frame, pixels), camera.rate_hz, quality)
            self.flow(f'{name} info', CameraInfo, camera.info_topic,
                      encode.camera_info(1, camera.frame, np.eye(3), width, height), camera.rate_hz, quality)
        for name, arm in self.contract.arms.items():
            state = encode.joint_state(1, (*arm.joints, arm.gripper_state.joint), [0.1] * (len(arm.joints) + 1))
            self.flow(name, JointState, arm.joint_states_topic, state, arm.state_rate_hz, quality)
        edge = encode.transform(1, 'world', 'somewhere', np.eye(4))
        self.flow('tf', TFMessage, '/tf', TFMessage(transforms=[edge]), 20.0, quality)
        self.static = self.create_publisher(TFMessage, '/tf_static', profile(Role.STATIC_TRANSFORM))
        self.static.publish(TFMessage(transforms=[edge]))
        self.prompts = self.create_publisher(String, self.contract.prompt_topic, profile(Role.COMMAND))

    def flow(self, name, kind, topic, message, rate_hz, quality):
        if name.split()[0] in self.options.without:
            return
        rate_hz *= self.options.slow.get(name, 1.0)
        publisher = self.create_publisher(kind, topic, quality)
        self.sent[publisher.topic_name] = 0
        # Big messages are serialized once: what is measured is the recorder.
        data = serialize_message(message) if kind is Image else None
        self.flows.append([name, publisher, message, data, 1.0 / rate_hz, time.monotonic()])

    def publish_due(self, stop, silent):
        while not stop.is_set():
            now = time.monotonic()
            for flow in self.flows:
                name, publisher, message, data, period_s, due = flow
                if now >= due and not (name == 'cam_low' and silent.is_set()):
                    flow[-1] = max(due + period_s, now - period_s)
                    self.publish(name, publisher, message, data)
            if (wait := min(flow[-1] for flow in self.flows) - time.monotonic()) > 0:
                time.sleep(min(wait, 0.01))

    def publish(self, name, publisher, message, data):
        stamp_ns = time.time_ns() - int(1e9 * self.options.late.get(name, 0.0))
        if data is not None:
            publisher.publish(data[:4] + struct.pack('<iI', *divmod(stamp_ns, 10**9)) + data[12:])
        else:
            for part in [message] if hasattr(message, 'header') else message.transforms:
                part.header.stamp = to_time(stamp_ns)
            publisher.publish(message)
        self.sent[publisher.topic_name] += 1


def pairs(words):
    return {name: float(value) for name, value in (word.split(':') for word in words)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('contract')
    parser.add_argument('--image', default='64x48')
    parser.add_argument('--without', nargs='*', default=[])
    parser.add_argument('--best-effort', action='store_true')
    for name in ('--late', '--slow'):
        parser.add_argument(name, nargs='*', default=[])
    options = parser.parse_args()
    options.late, options.slow = pairs(options.late), pairs(options.slow)
    stop, silent = threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, lambda *_: silent.set())
    signal.signal(signal.SIGUSR2, lambda *_: silent.clear())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    robot = Robot(options)
    robot.publish_due(stop, silent)
    print(json.dumps(robot.sent), flush=True)
    robot.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
