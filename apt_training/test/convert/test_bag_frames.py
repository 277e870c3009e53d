"""Frames of a bag, compared with the recorded motion."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from apt_policy.core import topics
from apt_policy.core.images import letterbox
from apt_training.convert.rosbag.config import EndEffector, LabelMode, SegmentationMode
from apt_training.convert.source import ConvertError
from apt_training.episodes.episode import LabelSource

STEP_S, LATENCY_S = 0.1, 0.004
STATE_S = 0.02


def known_at(time_s, period_s, phase_s=0.0):
    """Return the stamp of the newest message of a steady stream that has arrived by a time."""
    return np.floor((time_s - LATENCY_S - phase_s) / period_s + 1e-4) * period_s + phase_s


@pytest.fixture
def only(episodes_of):
    """Return a function that reads the only episode of a job."""
    def read(job):
        (found,) = episodes_of(job)
        return found
    return read


def times(robot, frames):
    return [frame.stamp_s - robot.start_ns / 1e9 for frame in frames]


def test_frames_stand_one_step_apart_and_hold_what_had_arrived_by_then(robot, write_bag, job, only, tmp_path):
    _, frames = only(job(write_bag(tmp_path / 'bag', robot.messages(2.0))))
    stamps = times(robot, frames)
    np.testing.assert_allclose(np.diff(stamps), STEP_S, atol=1e-6)
    assert len(frames) == 19
    for time_s, frame in zip(stamps, frames, strict=True):
        for place, name in enumerate(robot.contract.arms):
            np.testing.assert_allclose(frame.world_from_ee[place],
                                       robot.world_from_ee(name, known_at(time_s, STATE_S)), atol=1e-6)
            state_s = known_at(time_s, STATE_S, 0.003)
            assert frame.gripper[place] == pytest.approx(robot.opening(name, state_s), abs=1e-6)
        for place, camera in enumerate(robot.contract.cameras):
            image_s = known_at(time_s, 1 / robot.camera_hz, 0.007 * place)
            pixels = robot.pixels(camera, image_s)
            boxed = letterbox(pixels, np.eye(3), robot.image_size)
            np.testing.assert_array_equal(frame.views[camera].rgb, boxed.rgb, err_msg=f'{camera} at {time_s}')
            np.testing.assert_array_equal(frame.views[camera].mask, boxed.mask)


def test_intrinsics_follow_the_letterbox_and_wrist_cameras_follow_their_arm(robot, write_bag, job, only, tmp_path):
    _, frames = only(job(write_bag(tmp_path / 'bag', robot.messages(1.0))))
    for time_s, frame in zip(times(robot, frames), frames, strict=True):
        view = frame.views['cam_left_wrist']
        np.testing.assert_allclose(view.intrinsics, [[28.8, 0, 16], [0, 28.8, 16], [0, 0, 1]], atol=1e-9)
        image_s = known_at(time_s, 1 / robot.camera_hz, 0.014)
        # TF is interpolated at the image's stamp.
        expected = robot.world_from_ee('left', image_s) @ [0.02, 0.0, 0.05, 1.0]
        np.testing.assert_allclose(view.world_from_camera[:3, 3], expected[:3], atol=1e-4)
        np.testing.assert_allclose(frame.views['cam_high'].world_from_camera,
                                   robot.contract.cameras['cam_high'].world_from_camera.matrix)


def test_a_reference_stream_gives_a_frame_for_each_of_its_messages(robot, write_bag, job, only, tmp_path):
    facts, frames = only(job(write_bag(tmp_path / 'bag', robot.messages(2.0)), reference='cam_low'))
    assert facts.rate_hz == robot.camera_hz
    np.testing.assert_allclose(times(robot, frames), 0.007 + 0.1 * np.arange(1, 20), atol=1e-6)
    for time_s, frame in zip(times(robot, frames), frames, strict=True):
        boxed = letterbox(robot.pixels('cam_low', time_s), np.eye(3), robot.image_size)
        np.testing.assert_array_equal(frame.views['cam_low'].rgb, boxed.rgb)


def test_a_reference_arm_gives_a_frame_for_each_of_its_states(robot, write_bag, job, only, tmp_path):
    facts, frames = only(job(write_bag(tmp_path / 'bag', robot.messages(1.0)), reference='left'))
    assert facts.rate_hz == 50.0
    np.testing.assert_allclose(np.diff(times(robot, frames)), STATE_S, atol=1e-6)


@pytest.mark.parametrize(('recorded', 'asked', 'source'), [
    ({'targets': True, 'joints': True}, LabelMode.AUTO, LabelSource.TARGETS),
    ({'joints': True}, LabelMode.AUTO, LabelSource.JOINT_COMMANDS),
    ({'targets': True, 'joints': True}, LabelMode.JOINTS, LabelSource.JOINT_COMMANDS)])
def test_labels_are_what_was_commanded_one_step_after_the_frame(recorded, asked, source, robot, write_bag, job, only,
                                                               tmp_path):
    facts, frames = only(job(write_bag(tmp_path / 'bag', robot.messages(2.0, **recorded)), labels=asked))
    assert facts.label_source is source
    for time_s, frame in zip(times(robot, frames)[:-1], frames[:-1], strict=True):
        # A target says when it is due; a joint command counts from its arrival.
        told_s = (time_s + STEP_S if source is LabelSource.TARGETS else known_at(time_s + STEP_S, STATE_S))
        told_s = np.floor(told_s / STATE_S + 1e-4) * STATE_S
        for place, name in enumerate(robot.contract.arms):
            np.testing.assert_allclose(frame.desired_world_from_ee[place], robot.world_from_ee(name, told_s + 0.15),
                                       atol=1e-5)
            assert frame.desired_gripper[place] == pytest.approx(max(robot.opening(name, told_s) - 0.1, 0), abs=1e-5)


def test_target_poses_and_target_grippers_of_other_teleoperation_serve_as_targets(robot, write_bag, job, only,
                                                                                 tmp_path):
    messages = robot.messages(1.5)
    pose, number = 'geometry_msgs/msg/PoseStamped', 'std_msgs/msg/Float64'
    for name in robot.contract.arms:
        messages += robot.stream(topics.target_pose(name), pose, 50, 1.5, lambda at, t, n=name: robot.make(
            pose, header=robot.target(n, at, t).header, pose=robot.target(n, at, t).pose))
        messages += robot.stream(topics.target_gripper(name), number, 50, 1.5,
                                 lambda at, t: robot.make(number, data=1.2))
    facts, frames = only(job(write_bag(tmp_path / 'bag', robot.in_order(messages))))
    assert facts.label_source is LabelSource.TARGETS
    np.testing.assert_allclose(frames[5].desired_world_from_ee[0],
                               robot.world_from_ee('left', times(robot, frames)[5] + STEP_S + 0.15), atol=1e-5)
    np.testing.assert_array_equal(frames[5].desired_gripper, 1.0)


def test_without_commands_there_is_no_desired_pose_and_a_lone_gripper_command_is_still_the_label(
        robot, write_bag, job, only, tmp_path):
    facts, frames = only(job(write_bag(tmp_path / 'plain', robot.messages(1.0))))
    assert facts.label_source is LabelSource.MEASURED
    assert all(frame.desired_world_from_ee is None and frame.desired_gripper is None for frame in frames)
    commanded = robot.without(robot.messages(1.0, joints=True), 'joint_group')
    facts, frames = only(job(write_bag(tmp_path / 'gripper', commanded)))
    assert facts.label_source is LabelSource.MEASURED
    assert all(frame.desired_world_from_ee is None for frame in frames)
    assert all((frame.desired_gripper < frame.gripper).all() for frame in frames[:2])


def test_an_arm_that_is_told_nothing_is_labelled_with_where_it_went(robot, write_bag, job, only, tmp_path):
    messages = robot.without(robot.messages(2.0, targets=True), topics.target('right'))
    _, frames = only(job(write_bag(tmp_path / 'bag', messages)))
    for now, later in pairwise(frames[:-1]):
        # At the later instant itself, which the later frame did not know yet.
        np.testing.assert_allclose(now.desired_world_from_ee[1], robot.world_from_ee('right', times(robot, [later])[0]),
                                   atol=1e-5)
        assert now.desired_gripper[1] == pytest.approx(robot.opening('right', times(robot, [later])[0]), abs=1e-4)


def test_commands_of_another_frame_or_not_finite_are_left_out_and_noted(robot, write_bag, job, only, tmp_path):
    def elsewhere(target):
        return replace(target, header=replace(target.header, frame_id='table'))

    def broken(target):
        return replace(target, gripper=float('nan'))

    messages = robot.messages(1.5, targets=True)
    messages = robot.altered(messages, topics.target('left'), elsewhere, 0.5, 0.7)
    messages = robot.altered(messages, topics.target('right'), broken, 0.9, 1.0)
    work = job(write_bag(tmp_path / 'bag', messages))
    _, frames = only(work)
    assert all(np.isfinite(frame.desired_world_from_ee).all() for frame in frames)
    notes = '\n'.join(work.report().notes)
    assert "left: 10 /apt/left/target messages ignored, first at 0.504 s: frame is 'table', expected" in notes
    assert 'right: 5 /apt/right/target messages ignored, first at 0.904 s: gripper opening is nan' in notes


def test_labels_that_the_bag_lacks_are_refused_with_those_that_it_has(robot, write_bag, job, only, tmp_path):
    bag = write_bag(tmp_path / 'bag', robot.messages(1.0))
    with pytest.raises(ConvertError, match=r'bag: cannot use --labels joints: the bag has no such '
                                           r'messages; choose from measured'):
        only(job(bag, labels=LabelMode.JOINTS))


def test_joints_place_the_end_effector_on_request_as_tf_does(robot, write_bag, job, only, tmp_path):
    bag = write_bag(tmp_path / 'bag', robot.messages(1.5))
    _, by_tf = only(job(bag))
    _, by_joints = only(job(bag, end_effector=EndEffector.JOINTS))
    for time_s, a, b in zip(times(robot, by_tf), by_tf, by_joints, strict=True):
        # Joint states are 3 ms younger, and the arm moves.
        np.testing.assert_allclose(a.world_from_ee, b.world_from_ee, atol=0.01)
        np.testing.assert_allclose(b.world_from_ee[0],
                                   robot.world_from_ee('left', known_at(time_s, STATE_S, 0.003)), atol=1e-6)


def test_joints_place_the_end_effector_where_tf_lacks_it_and_the_report_says_so(robot, write_bag, job, only, tmp_path,
                                                                               change):
    mounted = change({f'cameras.cam_{side}_wrist.ee_from_camera': {'translation': [0.02, 0.0, 0.05]}
                      for side in ('left', 'right')})
    messages = robot.without(robot.without(robot.messages(1.0), '/tf'), '/tf_static')
    work = job(write_bag(tmp_path / 'bag', messages), mounted)
    _, frames = only(work)
    assert any('TF lacks its end-effector' in note for note in work.report().notes)
    expected = robot.world_from_ee('left', known_at(times(robot, frames)[3], STATE_S, 0.003))
    np.testing.assert_allclose(frames[3].world_from_ee[0], expected, atol=1e-6)


def test_tf_that_lacks_the_end_effector_is_an_error_where_joints_cannot_help(robot, write_bag, job, only, tmp_path,
                                                                            change):
    bag = write_bag(tmp_path / 'bag', robot.without(robot.messages(1.0), '/tf'))
    with pytest.raises(ConvertError, match=r"bag: TF has no pose of the end-effector of arm 'left' in the first 3 s.*"
                                           r'was never published.*--ee-from joints'):
        only(job(bag, change({'arms.left.chain': None, 'arms.right.chain': None})))
    with pytest.raises(ConvertError, match='TF has no pose'):
        only(job(bag, end_effector=EndEffector.TF))


def test_the_prompt_in_force_is_stored_and_later_ones_become_subtasks(robot, write_bag, job, only, tmp_path):
    messages = robot.in_order([*robot.messages(2.0), robot.word(topics.ACTIVE_PROMPT, 0.9, 'pick the cube'),
                               robot.word(topics.ACTIVE_PROMPT, 1.25, 'now put it down')])
    bag = write_bag(tmp_path / 'bag', messages)
    facts, frames = only(job(bag, split=SegmentationMode.BAG))
    assert facts.prompts == ()
    assert [part.description for part in facts.subtasks] == ['pick the cube', 'now put it down']
    assert times(robot, frames)[facts.subtasks[1].start] == pytest.approx(1.3)
    facts, _ = only(job(write_bag(tmp_path / 'mute', robot.messages(1.0, prompt=None)), prompt='tidy up'))
    assert facts.prompts == ('tidy up',)


def test_the_hash_tells_recordings_apart_and_not_their_containers(robot, write_bag, job, only, tmp_path):
    messages = robot.messages(1.0)
    first, _ = only(job(write_bag(tmp_path / 'a', messages)))
    second, _ = only(job(write_bag(tmp_path / 'b', messages, storage=StoragePlugin.SQLITE3,
                                    compression=CompressionMode.MESSAGE)))
    darker = robot.altered(messages, 'cam_low/camera/color/image_rect_raw', lambda image:
                           replace(image, data=image.data - 1), 0.5, 0.6)
    third, _ = only(job(write_bag(tmp_path / 'c', darker)))
    assert first.source_hash == second.source_hash != third.source_hash


def _raw(robot, image, encoding):
    """Encode an image without the library that reads it."""
    rgb = image.data.reshape(image.height, image.width, 3)
    if encoding.startswith('bayer'):
        packed = np.zeros(rgb.shape[:2], np.uint8)
        for place, letter in enumerate(encoding[6:10]):
            packed[place // 2::2, place % 2::2] = rgb[place // 2::2, place % 2::2, 'rgb'.index(letter)]
    else:
        packed = {'bgr8': rgb[..., ::-1], 'rgba8': np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
                  'rgb16': rgb.astype('<u2') * 257}[encoding]
    data = np.ascontiguousarray(packed).reshape(image.height, -1).view(np.uint8)
    return replace(image, encoding=encoding, step=data.shape[1], data=data.reshape(-1))


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'rgb16', 'bayer_rggb8', 'bayer_gbrg8', 'jpeg', 'png'])
def test_red_stays_left_and_blue_right_through_every_way_to_record_them(encoding, robot, write_bag, job, only,
                                                                        tmp_path):
    messages = robot.messages(0.8, compressed=encoding in ('jpeg', 'png'))
    if encoding == 'png':
        def again(message):
            _, data = cv2.imencode('.png', cv2.imdecode(message.data, cv2.IMREAD_COLOR))
            return replace(message, format='png', data=data.ravel())
        messages = robot.altered(messages, '/compressed', again)
    elif encoding != 'jpeg':
        messages = robot.altered(messages, 'image_rect_raw', lambda image: _raw(robot, image, encoding))
    _, frames = only(job(write_bag(tmp_path / 'bag', messages)))
    for camera, view in frames[-1].views.items():
        # Patches of the chart, away from their borders, against the chart itself.
        image_s = known_at(times(robot, frames)[-1], 0.1, 0.007 * list(robot.contract.cameras).index(camera))
        expected = letterbox(robot.pixels(camera, image_s), np.eye(3), robot.image_size).rgb
        for column in (4, 16, 27):
            np.testing.assert_allclose(view.rgb[16, column].astype(int), expected[16, column], atol=12, err_msg=camera)
