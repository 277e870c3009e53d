"""Camera info, joint states, transforms and stamps."""

import numpy as np
import pytest

from apt_policy.core.decode import (
    DecodeError,
    decode_camera_info,
    decode_joint_positions,
    decode_transform,
    stamp_to_ns,
)

K = [600.0, 0.0, 320.0, 0.0, 610.0, 240.0, 0.0, 0.0, 1.0]

# ROS counts from the centre of the first pixel.
HALF_A_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])


def _info(messages, k, **fields):
    header = messages.Header(stamp=messages.Time(sec=1, nanosec=2), frame_id='cam')
    return messages.camera_info(header=header, height=480, width=640, k=np.array(k, np.float64), **fields)


def _joints(messages, names, positions):
    header = messages.Header(stamp=messages.Time(sec=1, nanosec=2), frame_id='')
    return messages.JointState(header=header, name=names, position=np.array(positions, np.float64),
                               velocity=np.zeros(0), effort=np.zeros(0))


def test_intrinsics_are_the_k_of_the_camera_info_counted_from_the_corner_of_the_first_pixel(messages):
    model = decode_camera_info(_info(messages, K))
    np.testing.assert_array_equal(model.intrinsics, np.reshape(K, (3, 3)) + HALF_A_PIXEL)
    assert (model.width, model.height) == (640, 480)


def test_a_region_of_interest_and_binning_move_the_intrinsics_with_the_image(messages):
    roi = messages.RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300, do_rectify=False)
    model = decode_camera_info(_info(messages, K, roi=roi, binning_x=2, binning_y=2))
    assert (model.width, model.height) == (200, 150)
    # The pixel of the whole image, cut and binned, is where the new intrinsics project the point.
    point = np.array([0.1, -0.05, 1.0])
    whole = (np.reshape(K, (3, 3)) + HALF_A_PIXEL) @ point
    np.testing.assert_allclose((model.intrinsics @ point)[:2], (whole[:2] - (100, 40)) / 2)


@pytest.mark.parametrize('k', [np.zeros(9), [np.nan, *K[1:]], [-600.0, *K[1:]]])
def test_an_uncalibrated_camera_is_refused(k, messages):
    with pytest.raises(DecodeError, match='camera info has K .*expected fx, fy > 0: calibrate the camera'):
        decode_camera_info(_info(messages, k))


@pytest.mark.parametrize('sides', [{'width': 0, 'height': 0}, {'width': 0}, {'height': 0}, {'binning_y': 1000}])
def test_a_camera_info_without_the_size_of_the_image_is_refused(sides, messages):
    info = _info(messages, K)
    for name, value in sides.items():
        setattr(info, name, value)
    with pytest.raises(DecodeError, match=r'camera info describes an image of \d+x\d+ pixels, expected its size'):
        decode_camera_info(info)


def test_joints_are_found_by_name_in_any_order(messages):
    message = _joints(messages, ['b', 'extra', 'a'], [2.0, 9.0, 1.0])
    assert decode_joint_positions(message, ['a', 'b']) == {'a': 1.0, 'b': 2.0}


def test_a_missing_joint_is_named_beside_those_present(messages):
    with pytest.raises(DecodeError, match="lacks 'elbow'; it has a, b"):
        decode_joint_positions(_joints(messages, ['a', 'b'], [1.0, 2.0]), ['a', 'elbow'])


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_position_that_is_not_finite_is_refused_by_joint(value, messages):
    with pytest.raises(DecodeError, match="joint 'b' has position (nan|inf)"):
        decode_joint_positions(_joints(messages, ['a', 'b'], [1.0, value]), ['a', 'b'])


def test_more_names_than_positions_are_refused(messages):
    with pytest.raises(DecodeError, match='2 names and 1 positions'):
        decode_joint_positions(_joints(messages, ['a', 'b'], [1.0]), ['a'])


def test_a_transform_is_read_with_frames_stamp_and_quaternion_order(messages):
    header = messages.Header(stamp=messages.Time(sec=3, nanosec=4), frame_id='base')
    move = messages.Transform(translation=messages.Vector3(x=1.0, y=2.0, z=3.0),
                              rotation=messages.Quaternion(x=0.1, y=0.2, z=0.3, w=0.9))
    got = decode_transform(messages.TransformStamped(header=header, child_frame_id='ee', transform=move))
    assert (got.parent, got.child, got.stamp_ns) == ('base', 'ee', 3_000_000_004)
    assert got.translation == (1.0, 2.0, 3.0)
    assert got.quaternion_xyzw == (0.1, 0.2, 0.3, 0.9)


@pytest.mark.parametrize('stamp_ns', [0, 1, 999_999_999, 1_000_000_000, 1_722_000_000_123_456_789])
def test_a_stamp_is_read_to_the_nanosecond(stamp_ns, messages):
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    assert stamp_to_ns(messages.Time(sec=sec, nanosec=nanosec)) == stamp_ns
