"""Simulator as a process: topics and behaviour of a robot's drivers."""

import math
import signal
import time

import numpy as np
import pytest
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from apt_control.kinematics import arm_kinematics
from apt_policy.core.decode import decode_camera_info, decode_image, decode_transform, stamp_to_ns
from apt_policy.core.geometry import invert_pose
from apt_policy.core.transforms import LATEST, TransformBuffer
from apt_policy.ros.qos import Role, profile
from apt_sim.world.messages import link_frame
from apt_sim.world.scene import hand_from_wrist_camera

SIMULATOR = 'apt_sim.world.node'
WIDTH, HEIGHT = 96, 72


class Heard:
    """Node that subscribes to all of the simulator's topics."""

    def __init__(self, ear, contract):
        self.joints = {name: ear.hear(JointState, arm.joint_states_topic, Role.STATE)
                       for name, arm in contract.arms.items()}
        self.images = {name: ear.hear(Image, camera.image_topic, Role.SENSOR)
                       for name, camera in contract.cameras.items()}
        self.infos = {name: ear.hear(CameraInfo, camera.info_topic, Role.SENSOR)
                      for name, camera in contract.cameras.items()}
        self.moving = ear.hear(TFMessage, '/tf', Role.TRANSFORM)
        self.static = ear.hear(TFMessage, '/tf_static', Role.STATIC_TRANSFORM)
        self.clock = ear.hear(Clock, '/clock', Role.TARGET)
        self.factor = ear.hear(Float64, 'sim/real_time_factor', Role.STATUS)

    def position(self, name):
        return np.array(self.joints[name][-1].position[:6])

    def transforms(self):
        buffer = TransformBuffer()
        for edge in (edge for message in self.static for edge in message.transforms):
            buffer.set_static_transform(decode_transform(edge))
        for edge in (edge for message in self.moving for edge in message.transforms):
            buffer.set_transform(decode_transform(edge))
        return buffer


@pytest.fixture(scope='module')
def simulator(run_program):
    return run_program(SIMULATOR, width=WIDTH, height=HEIGHT, seed=5)


@pytest.fixture(scope='module')
def heard(simulator, ear, contract):
    heard = Heard(ear, contract)
    everything = [*heard.joints.values(), *heard.images.values(), *heard.infos.values(), heard.moving,
                  heard.static, heard.clock, heard.factor]
    assert ear.until(lambda: all(everything)), simulator.log()
    return heard


@pytest.fixture
def send(ear, heard, contract):
    """Publish a command of the left arm until the simulator has received it."""
    arm = contract.arms['left']
    topics = {JointGroupCommand: arm.joint_group_topic, JointSingleCommand: arm.joint_single_topic}
    publishers = {kind: ear.node.create_publisher(kind, topic, profile(Role.COMMAND))
                  for kind, topic in topics.items()}
    for publisher in publishers.values():
        assert ear.until(lambda p=publisher: p.get_subscription_count() > 0)
    yield lambda message: publishers[type(message)].publish(message)
    for publisher in publishers.values():
        ear.node.destroy_publisher(publisher)


def now_ns(heard):
    return stamp_to_ns(heard.clock[-1].clock)


def simulated(ear, heard, seconds):
    """Process messages for a number of simulated seconds."""
    end_ns = now_ns(heard) + seconds * 1e9
    assert ear.until(lambda: now_ns(heard) >= end_ns)


def rate(messages, since_ns):
    """Return the rate from the median gap, because a busy machine loses messages."""
    stamps = [stamp for m in messages if (stamp := stamp_to_ns(m.header.stamp)) >= since_ns]
    return 1e9 / np.median(np.diff(stamps))


def test_every_stream_keeps_the_contracts_rate_in_simulated_time(ear, heard, contract):
    since_ns = now_ns(heard)
    simulated(ear, heard, 2.0)
    for name, arm in contract.arms.items():
        assert rate(heard.joints[name], since_ns) >= 0.95 * arm.state_rate_hz
    for name, camera in contract.cameras.items():
        assert rate(heard.images[name], since_ns) >= 0.9 * camera.rate_hz
        assert rate(heard.infos[name], since_ns) >= 0.9 * camera.rate_hz


def test_cameras_take_turns(ear, heard, contract):
    simulated(ear, heard, 0.5)
    stamps = [stamp_to_ns(images[-1].header.stamp) for images in heard.images.values()]
    assert len(set(stamps)) == len(contract.cameras)


def test_joint_states_have_the_names_and_order_of_the_interbotix_driver(heard, contract):
    for name, arm in contract.arms.items():
        state = heard.joints[name][-1]
        assert tuple(state.name) == (*arm.joints, 'gripper', 'left_finger', 'right_finger')
        assert len(state.position) == len(state.velocity) == len(state.effort) == 9
        assert state.position[7] == -state.position[8] == pytest.approx(state.position[6])


def test_transforms_agree_with_the_joints_that_they_come_with(ear, heard, contract):
    simulated(ear, heard, 0.3)
    buffer, kinematics = heard.transforms(), arm_kinematics(contract)
    for name, arm in contract.arms.items():
        for state in heard.joints[name][-20:-5]:
            stamp_ns = stamp_to_ns(state.header.stamp)
            np.testing.assert_allclose(buffer.lookup(arm.base_frame, arm.ee_frame, stamp_ns),
                                       kinematics[name].base_from_ee(np.array(state.position[:6])), atol=1e-6)


def test_every_camera_has_a_pose_at_the_instant_of_its_image(ear, heard, contract):
    simulated(ear, heard, 0.3)
    buffer = heard.transforms()
    for name, camera in contract.cameras.items():
        stamp_ns = stamp_to_ns(heard.images[name][-2].header.stamp)
        pose = buffer.lookup(contract.world_frame, camera.frame, stamp_ns)
        if camera.world_from_camera is not None:
            np.testing.assert_allclose(pose, camera.world_from_camera.matrix, atol=1e-6)
        else:
            arm = contract.arms[camera.tf_anchor]
            hand = buffer.lookup(contract.world_frame, link_frame(arm, 'gripper_link'), stamp_ns)
            np.testing.assert_allclose(invert_pose(hand) @ pose, hand_from_wrist_camera(), atol=1e-6)


def test_images_and_calibration_are_those_of_the_contracts_cameras(heard, contract):
    for name, camera in contract.cameras.items():
        image, info = heard.images[name][-1], heard.infos[name][-1]
        assert image.header.frame_id == info.header.frame_id == camera.frame
        assert image.encoding == 'rgb8' and decode_image(image).shape == (HEIGHT, WIDTH, 3)
        assert decode_image(image).std() > 10
        model = decode_camera_info(info)
        focal = HEIGHT / 2 / math.tan(math.radians(58) / 2)
        assert (model.width, model.height) == (WIDTH, HEIGHT)
        np.testing.assert_allclose(np.diag(model.intrinsics), (focal, focal, 1.0), rtol=1e-9)


def test_the_real_time_factor_is_reported(heard):
    assert 0.0 < heard.factor[-1].data < 1.2


def test_an_arm_goes_where_it_is_commanded(ear, heard, send, contract):
    home = np.array(contract.arms['left'].start)
    send(JointGroupCommand(name='arm', cmd=(home + 0.1).tolist()))
    send(JointSingleCommand(name='gripper', cmd=0.03))
    assert ear.until(lambda: np.abs(heard.position('left') - home - 0.1).max() < 0.01)
    assert ear.until(lambda: abs(heard.joints['left'][-1].position[7] - 0.03) < 0.002)
    np.testing.assert_allclose(heard.position('right'), home, atol=0.01)


@pytest.mark.parametrize(('message', 'error_text'), [
    (JointGroupCommand(name='arm', cmd=[0.0, math.nan, 0.0, 0.0, 0.0, 0.0]), 'shoulder is nan'),
    (JointGroupCommand(name='arm', cmd=[0.0] * 5), 'got 5 positions, expected 6'),
    (JointGroupCommand(name='arm', cmd=[0.0, 2.0, 0.0, 0.0, 0.0, 0.0]), 'shoulder is 2.0000 rad, outside'),
    (JointGroupCommand(name='all', cmd=[0.0] * 6), "joint group is 'all'"),
    (JointSingleCommand(name='gripper', cmd=math.inf), 'gripper is inf'),
    (JointSingleCommand(name='elbow', cmd=0.0), "single joint is 'elbow'")],
    ids=['nan', 'short', 'beyond a limit', 'other group', 'infinite', 'other joint'])
def test_a_bad_command_is_refused_in_words_and_the_arm_holds(simulator, ear, heard, send, message, error_text):
    before = heard.position('left')
    assert ear.until(lambda: send(message) or ear.spin(0.1) or error_text in simulator.log())
    assert 'The arm holds its last command' in simulator.log()
    simulated(ear, heard, 0.2)
    np.testing.assert_allclose(heard.position('left'), before, atol=0.01)


def test_a_reset_begins_the_next_episode_without_turning_back_the_clock(ear, heard, send, contract):
    home = np.array(contract.arms['left'].start)
    send(JointGroupCommand(name='arm', cmd=(home + 0.2).tolist()))
    assert ear.until(lambda: np.abs(heard.position('left') - home).max() > 0.15)
    answer = ear.call(Trigger, 'aloha_sim/reset', Trigger.Request())
    assert answer.success and answer.message == 'episode of seed 6'
    assert ear.until(lambda: np.abs(heard.position('left') - home).max() < 0.01)
    simulated(ear, heard, 0.3)
    np.testing.assert_allclose(heard.position('left'), home, atol=0.01)
    stamps = [stamp_to_ns(message.clock) for message in heard.clock]
    assert np.all(np.diff(stamps) > 0)


def test_static_transforms_reach_those_who_come_late(ear, contract, heard):
    late = ear.hear(TFMessage, '/tf_static', Role.STATIC_TRANSFORM)
    assert ear.until(lambda: late)
    children = {edge.child_frame_id for edge in late[-1].transforms}
    assert {arm.base_frame for arm in contract.arms.values()} <= children
    assert {camera.frame for camera in contract.cameras.values()} <= children
    assert heard.transforms().lookup('world', contract.arms['left'].ee_frame, LATEST).shape == (4, 4)


@pytest.mark.parametrize(('number', 'after_s'), [
    (signal.SIGINT, 0.7), (signal.SIGTERM, 1.2), (signal.SIGINT, 2.0), (signal.SIGTERM, 3.0)])
def test_a_signal_at_any_moment_ends_it_cleanly(run_program, number, after_s):
    program = run_program(SIMULATOR, width=WIDTH, height=HEIGHT)
    time.sleep(after_s)
    # Before Python runs the program, the default action of the signal ends it.
    assert program.stop(number) in (0, -number)
    assert 'Traceback' not in program.log() or 'KeyboardInterrupt' in program.log()


@pytest.mark.parametrize(('parameters', 'error_text'), [
    ({'contract': '/nowhere/robot.yaml'}, 'cannot read contract /nowhere/robot.yaml'),
    ({'widht': 320}, "did you mean width?"),
    ({'viewer': 'true'}, 'the viewer needs a display')], ids=['no contract', 'misspelt', 'no display'])
def test_what_cannot_start_says_why(run_program, monkeypatch, parameters, error_text):
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    program = run_program(SIMULATOR, **parameters)
    assert program.wait() == 1
    assert error_text in program.log()
    assert 'Traceback' not in program.log()
