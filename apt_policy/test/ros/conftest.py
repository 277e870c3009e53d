"""A small robot on real DDS, and a policy node with a planner without a model, shared by all tests."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import domain_coordinator
import numpy as np
import pytest
import rclpy
import yaml
from apt_msgs.msg import EndEffectorTarget, PolicyStatus
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from apt_policy.core.sample import HoldReason
from apt_policy.inference.hover_planner import HoverPlanner
from apt_policy.ros import encode
from apt_policy.ros.policy_node import PolicyNode
from apt_policy.ros.qos import Reliability, Role, profile

# The robot is twice as quick as it has to be, so that a busy machine is no slow robot.
RATE_HZ, CONTRACT_HZ = 40.0, 20.0
WIDTH, HEIGHT = 64, 48
JOINTS = ['waist', 'elbow', 'left_finger']


def contract_fields() -> dict[str, Any]:
    """Two arms, a fixed camera and one on an arm."""
    arm = {'joints': JOINTS[:2], 'joint_lower': [-3.0, -3.0], 'joint_upper': [3.0, 3.0],
           'joint_velocity': 3.0, 'start': [0.0, 0.0],
           'gripper_state': {'joint': 'left_finger', 'closed': 0.0, 'open': 0.1},
           'gripper_command': {'joint': 'gripper', 'closed': 0.0, 'open': 1.0}, 'state_rate_hz': CONTRACT_HZ,
           'max_age_s': 0.4, 'reference_cameras': ['top', 'wrist'],
           'workspace': {'lower': [-1.0, -1.0, 0.0], 'upper': [1.0, 1.0, 1.0]}}
    camera = {'rate_hz': CONTRACT_HZ, 'max_age_s': 0.5}
    return {
        'name': 'small', 'world_frame': 'world', 'prompt_topic': 'apt/prompt', 'image_size': 32,
        'horizon': 16, 'history': 1, 'step_s': 0.1, 'control_rate_hz': 50.0,
        'arms': {side: {**arm, 'namespace': side, 'base_frame': f'{side}/base', 'ee_frame': f'{side}/ee',
                        'world_from_base': {'translation': [x, 0.0, 0.0]}}
                 for side, x in (('left', -0.3), ('right', 0.3))},
        'cameras': {
            'top': {**camera, 'image_topic': 'top/image', 'info_topic': 'top/info', 'frame': 'top_optical',
                    'world_from_camera': {'translation': [0.0, 0.0, 1.0], 'quaternion_xyzw': [1.0, 0, 0, 0]}},
            'wrist': {**camera, 'image_topic': 'wrist/image', 'info_topic': 'wrist/info',
                      'frame': 'wrist_optical', 'tf_anchor': 'left'}},
        'safety': {'linear_speed': 0.5, 'angular_speed': 2.0, 'gripper_speed': 4.0}}


class Robot:
    """Publishes what two standing arms would; a test breaks one thing at a time through ``faults``."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.faults: dict[str, Callable[[Any], Any]] = {}
        self.shift_ns = 0
        self._publishers = {
            'top/image': node.create_publisher(Image, 'top/image', profile(Role.SENSOR)),
            'wrist/image': node.create_publisher(Image, 'wrist/image', profile(
                Role.SENSOR, reliability=Reliability.RELIABLE)),
            'top/info': node.create_publisher(CameraInfo, 'top/info', 1),
            'wrist/info': node.create_publisher(CameraInfo, 'wrist/info', 1),
            'left/joint_states': node.create_publisher(JointState, 'left/joint_states', 10),
            'right/joint_states': node.create_publisher(JointState, 'right/joint_states', 10),
            '/tf': node.create_publisher(TFMessage, '/tf', 100)}
        static = node.create_publisher(TFMessage, '/tf_static', profile(Role.STATIC_TRANSFORM))
        static.publish(TFMessage(transforms=[encode.transform(1, 'left/ee', 'wrist_optical', np.eye(4))]))
        node.create_timer(1.0 / RATE_HZ, self.publish)

    def publish(self) -> None:
        stamp_ns = self.node.get_clock().now().nanoseconds + self.shift_ns
        camera = np.array([[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]])
        ee = np.eye(4)
        ee[:3, 3] = 0.2, 0.0, 0.3
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for name in ('top', 'wrist'):
            self._send(f'{name}/image', encode.image(stamp_ns, f'{name}_optical', pixels))
            self._send(f'{name}/info', encode.camera_info(stamp_ns, f'{name}_optical', camera, WIDTH, HEIGHT))
        for side in ('left', 'right'):
            self._send(f'{side}/joint_states', encode.joint_state(stamp_ns, JOINTS, [0.1, 0.2, 0.05]))
        self._send('/tf', TFMessage(transforms=[
            encode.transform(stamp_ns, f'{side}/base', f'{side}/ee', ee) for side in ('left', 'right')]))

    def _send(self, topic: str, message: Any) -> None:
        broken = self.faults.get(topic, lambda whole: whole)(message)
        if broken is not None:
            self._publishers[topic].publish(broken)


class Listener:
    """What the policy says, newest last."""

    def __init__(self, node: Node) -> None:
        self.targets: deque[EndEffectorTarget] = deque(maxlen=2000)
        self.poses: deque[PoseStamped] = deque(maxlen=2000)
        self.statuses: deque[PolicyStatus] = deque(maxlen=2000)
        self.prompts: deque[String] = deque(maxlen=100)
        self.node = node
        for kind, topic, kept, role in (
                (EndEffectorTarget, 'apt/left/target', self.targets, Role.TARGET),
                (PoseStamped, 'apt/left/target_pose', self.poses, Role.TARGET),
                (PolicyStatus, 'apt/status', self.statuses, Role.STATUS),
                (String, 'apt/active_prompt', self.prompts, Role.LATCHED)):
            node.create_subscription(
                kind, topic, lambda message, kept=kept: kept.append(message), profile(role))


class Spinner:
    """Nodes of one executor in a thread of their own."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending:
            self.executor.spin_once(timeout_sec=0.05)

    def stop(self) -> None:
        self._ending = True
        self._thread.join(5.0)
        self.executor.shutdown()


class Bench:
    """The policy node under test beside its robot and somebody who listens and calls services."""

    def __init__(self, policy: PolicyNode | None, robot: Robot, listener: Listener, log: list[str]) -> None:
        self.policy, self.robot, self.listener, self.log = policy, robot, listener, log
        self.usual: dict[str, Any] = {}
        self.usual_factory = policy._make_factory if policy else None

    def until(self, true: Callable[[], Any], what: str, limit_s: float = 60.0) -> None:
        """Wait for something; the limit guards against a hang, nothing is timed."""
        end = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < end, f'waited in vain for {what}; newest status {self.newest()}'
            time.sleep(0.01)

    def newest(self) -> PolicyStatus | None:
        return self.listener.statuses[-1] if self.listener.statuses else None

    def call(self, kind: type, name: str, **fields: Any) -> Any:
        client = self.listener.node.create_client(kind, name)
        assert client.wait_for_service(60.0), name
        future = client.call_async(kind.Request(**fields))
        # Loading a model takes its time on a busy machine.
        self.until(future.done, f'the answer of {name}', limit_s=90.0)
        self.listener.node.destroy_client(client)
        return future.result()

    def transition(self, label: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        change = self.call(ChangeState, 'apt_policy/change_state', transition=Transition(label=label))
        return bool(change.success)

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState
        return str(self.call(GetState, 'apt_policy/get_state').current_state.label)

    def enable(self, on: bool = True) -> Any:
        from std_srvs.srv import SetBool
        return self.call(SetBool, 'apt_policy/enable', data=on)

    def set(self, **values: Any) -> list[str]:
        """Set parameters, until the test ends; the reasons of those refused."""
        for name in values:
            self.usual.setdefault(name, self.policy.get_parameter(name).value)
        results = self.policy.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        return [result.reason for result in results if not result.successful]

    def prompt(self, text: str) -> Any:
        from apt_msgs.srv import SetPrompt
        return self.call(SetPrompt, 'apt_policy/set_prompt', prompt=text)

    def start(self, **values: Any) -> None:
        """Configure with these parameters, activate, prompt and enable, from whatever state."""
        self.stop()
        assert not self.set(**values)
        assert self.transition('configure'), self.log[-3:]
        assert self.transition('activate')
        assert self.prompt('wave').accepted
        answer = self.enable()
        assert answer.success, answer.message

    def stop(self) -> None:
        for state, label in (('active', 'deactivate'), ('inactive', 'cleanup')):
            if self.state() == state:
                assert self.transition(label)

    def flow(self) -> None:
        """Wait until targets flow, re-enabling after a fault."""
        if self.newest() is None or not self.listener.targets:
            self.enable()
        self.until(lambda: self.newest() and self.newest().hold_reason == HoldReason.NONE, 'targets')
        seen = self.listener.targets[-1].sequence if self.listener.targets else -1
        self.until(lambda: self.listener.targets and self.listener.targets[-1].sequence > seen + 2, 'targets')

    def held(self, reason: HoldReason, words: str = '') -> PolicyStatus:
        """Wait for the hold, then check that it is told and that no target leaves during it."""
        def is_told() -> bool:
            status = self.newest()
            return status is not None and status.hold_reason == reason and words in status.detail
        self.until(is_told, f'hold {reason.name} with {words!r}')
        time.sleep(0.05)
        sent = len(self.listener.targets)
        time.sleep(0.2)
        assert len(self.listener.targets) == sent, 'a target left during a hold'
        status = self.newest()
        assert status is not None and status.hold_reason == reason, status
        return status

    def said(self, words: str) -> int:
        """How many log lines begin with it."""
        return sum(line.startswith(words) for line in self.log)

    def mend(self) -> None:
        """A whole robot, the usual parameters and planner, and targets that flow."""
        self.robot.faults.clear()
        self.robot.shift_ns = 0
        if self.usual or self.policy._make_factory is not self.usual_factory or self.state() != 'active':
            self.policy._make_factory = self.usual_factory
            self.start(**self.usual)
            self.usual.clear()
        self.prompt('wave')
        self.enable()
        self.flow()
        self.log.clear()


@pytest.fixture(scope='session')
def domain() -> Iterator[int]:
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    with domain_coordinator.domain_id() as number:
        rclpy.init(domain_id=number)
        yield number
        rclpy.try_shutdown()


@pytest.fixture(scope='session')
def contract_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('contract') / 'small.yaml'
    path.write_text(yaml.safe_dump(contract_fields(), sort_keys=False))
    return path


TF_INSIDE = ['--ros-args', '-r', '/tf:=tf', '-r', '/tf_static:=tf_static']


@pytest.fixture(scope='session')
def ending(domain: int) -> Iterator[contextlib.ExitStack]:
    """What is to be closed while ROS is still up."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope='session')
def surroundings(ending: contextlib.ExitStack) -> Callable[..., tuple[Robot, Listener]]:
    """A robot and a listener in a namespace of their own, /tf included."""
    def build(namespace: str = '', *, use_sim_time: bool = False) -> tuple[Robot, Listener]:
        about = {'namespace': namespace, 'cli_args': TF_INSIDE}
        spinner = Spinner()
        robot = Robot(rclpy.create_node(
            'robot', parameter_overrides=[Parameter('use_sim_time', value=use_sim_time)], **about))
        listener = Listener(rclpy.create_node('listener', **about))
        spinner.executor.add_node(robot.node)
        spinner.executor.add_node(listener.node)
        ending.callback(spinner.stop)
        return robot, listener
    return build


@pytest.fixture(scope='session')
def open_bench(surroundings: Callable[..., tuple[Robot, Listener]], ending: contextlib.ExitStack,
               contract_file: Path) -> Callable[..., Bench]:
    """A policy node, in this process, with its surroundings."""
    from rcl_interfaces.msg import Log

    def build(namespace: str = '', *, use_sim_time: bool = False) -> Bench:
        robot, listener = surroundings(namespace, use_sim_time=use_sim_time)
        about = {'namespace': namespace, 'cli_args': TF_INSIDE}
        clock = [Parameter('use_sim_time', value=use_sim_time)]
        own = Spinner()
        policy = PolicyNode(
            make_factory=lambda params, contract: partial(HoverPlanner, delay_s=0.02), **about,
            parameter_overrides=[*clock, Parameter('contract', value=str(contract_file)),
                                 Parameter('worker', value='thread')])
        lines: list[str] = []
        logger = policy.get_logger().name
        listener.node.create_subscription(
            Log, '/rosout', lambda line: lines.append(line.msg) if line.name == logger else None, 100)
        own.executor.add_node(policy)
        ending.callback(policy.destroy_node)
        ending.callback(own.stop)
        return Bench(policy, robot, listener, lines)
    return build


@pytest.fixture(scope='session')
def steer(surroundings: Callable[..., tuple[Robot, Listener]]) -> Bench:
    """A bench for a policy that runs as a process in namespace ``proc``."""
    return Bench(None, *surroundings('proc'), [])


@pytest.fixture(scope='session')
def shared_bench(open_bench: Callable[..., Bench]) -> Bench:
    return open_bench()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """The shared bench, mended: targets flow when the test begins."""
    shared_bench.mend()
    return shared_bench
