"""Encoded messages, read back by the decoder that the node and the bag converter use."""

import numpy as np
import pytest
from apt_msgs.action import RunPolicy
from apt_msgs.msg import PolicyStatus
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image

from apt_policy.core.decode import (
    decode_camera_info,
    decode_image,
    decode_joint_positions,
    decode_transform,
    stamp_to_ns,
)
from apt_policy.core.geometry import make_pose, pose_from_quaternion
from apt_policy.core.sample import Chunk, HoldReason
from apt_policy.inference.session import Termination
from apt_policy.ros import encode, encode_policy
from apt_policy.ros.stamps import from_duration, from_time, to_duration, to_time

STAMP_NS = 1_700_000_000_123_456_789


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def poses(rng):
    turns = Rotation.random(12, random_state=rng).as_matrix()
    return make_pose(turns, rng.uniform(-1, 1, (12, 3)))


def _matrix(pose):
    p, q = pose.position, pose.orientation
    return pose_from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


@pytest.mark.parametrize('stamp_ns', [0, 1, STAMP_NS, 2_147_483_647_999_999_999])
def test_stamps_are_exact(stamp_ns):
    assert from_time(to_time(stamp_ns)) == stamp_ns


@pytest.mark.parametrize('span_ns', [0, 1, 100_000_000, -1, -1_500_000_000])
def test_durations_are_exact_negative_ones_too(span_ns):
    assert from_duration(to_duration(span_ns)) == span_ns


def test_an_image_keeps_its_pixels_and_its_colours_over_the_wire(rng):
    rgb = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    sent = deserialize_message(serialize_message(encode.image(STAMP_NS, 'cam', rgb)), Image)
    np.testing.assert_array_equal(decode_image(sent), rgb)
    assert sent.header.frame_id == 'cam' and stamp_to_ns(sent.header.stamp) == STAMP_NS


def test_camera_info_keeps_the_intrinsics():
    camera = np.array([[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]])
    info = encode.camera_info(STAMP_NS, 'cam', camera, 640, 480)
    model = decode_camera_info(info)
    assert (model.width, model.height) == (640, 480)
    np.testing.assert_allclose(model.intrinsics, camera)
    # To ROS the centre of the first pixel is (0, 0): the camera's axis meets the middle of 640 x 480 there.
    assert (info.k[2], info.k[5]) == (319.5, 239.5)
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], np.reshape(info.k, (3, 3)))


def test_joint_states_keep_names_and_positions():
    message = encode.joint_state(STAMP_NS, ['a', 'b'], np.array([0.5, -1.0]))
    assert decode_joint_positions(message, ['b', 'a']) == {'b': -1.0, 'a': 0.5}


def test_transforms_and_poses_keep_the_matrix(poses):
    for matrix, pose in zip(poses, encode.poses(poses), strict=True):
        link = decode_transform(encode.transform(STAMP_NS, 'a', 'b', matrix))
        found = pose_from_quaternion(link.translation, link.quaternion_xyzw)
        np.testing.assert_allclose(found, matrix, atol=1e-12)
        np.testing.assert_allclose(_matrix(pose), matrix, atol=1e-12)
        stamped = encode.pose_stamped(STAMP_NS, 'a', matrix)
        np.testing.assert_allclose(_matrix(stamped.pose), matrix, atol=1e-12)


@pytest.mark.parametrize('turn', [(0, 0, 0), (np.pi, 0, 0), (0, np.pi, 0), (0, 0, np.pi), (0, np.pi - 1e-9, 0),
                                  (1e-9, 0, 0), (2.5, -1.0, 0.5)])
def test_a_quaternion_is_exact_at_half_turns_and_near_rest_too(turn):
    rotation = Rotation.from_rotvec(turn)
    found = encode.quaternion(make_pose(rotation.as_matrix(), np.zeros(3)))
    assert found.w >= 0
    difference = Rotation.from_quat([found.x, found.y, found.z, found.w]) * rotation.inv()
    assert difference.magnitude() < 1e-12


def test_a_chunk_leaves_absent_arms_out(poses):
    chunk = Chunk(stamp_ns=STAMP_NS, step_ns=100_000_000, world_from_ee=poses.reshape(6, 2, 4, 4),
                  gripper=np.linspace(0, 1, 12).reshape(6, 2), valid_arms=np.array([False, True]), epoch=3,
                  prompt='stack', inference_s=0.25)
    message = encode_policy.action_chunk(chunk, arms=('left', 'right'), world_frame='world')
    assert [arm.arm for arm in message.arms] == ['right']
    np.testing.assert_allclose([_matrix(pose) for pose in message.arms[0].poses], chunk.world_from_ee[:, 1],
                               atol=1e-12)
    np.testing.assert_allclose(message.arms[0].gripper, chunk.gripper[:, 1])
    assert from_duration(message.step) == 100_000_000 and from_duration(message.inference_time) == 250_000_000
    markers = encode_policy.plan_markers(chunk, arms=('left', 'right'), world_frame='world').markers
    assert {marker.ns for marker in markers} == {'right/path', 'right/states'}
    assert all(len(marker.points) == len(marker.colors) == 6 for marker in markers)


def test_the_constants_of_the_messages_are_the_enums(rng):
    assert {name: getattr(PolicyStatus, f'HOLD_{name}') for name in HoldReason.__members__} == {
        reason.name: int(reason) for reason in HoldReason}
    assert {reason.name: getattr(RunPolicy.Result, reason.name) for reason in Termination} == {
        reason.name: int(reason) for reason in Termination}
