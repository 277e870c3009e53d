"""Conversion of faulty recordings."""

from dataclasses import replace

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from apt_policy.core.streams import TimeBase
from apt_training.convert.rosbag.config import SegmentationMode
from apt_training.convert.source import ConvertError, SkipReason

HIGH, LOW = 'cam_high/camera/color/image_rect_raw', 'cam_low/camera/color/image_rect_raw'


@pytest.fixture
def convert(write_bag, job, episodes_of, tmp_path):
    """Return a function that converts a bag: its episode or the reason to skip it, and the report."""
    def run(messages, **settings):
        work = job(write_bag(tmp_path / 'bag', messages), **settings)
        (found,) = episodes_of(work)
        return found, work.report()
    return run


def line(report, stream):
    return next(one for one in report.streams if one.stream == stream)


def test_missing_topics_and_wrong_types_are_all_named_at_once(robot, convert):
    messages = robot.without(robot.messages(1.0), LOW)
    text = robot.types.types['std_msgs/msg/String']
    messages = [replace(one, kind='std_msgs/msg/String', content=text(data='x'))
                if one.topic == '/follower_left/joint_states' else one for one in messages]
    with pytest.raises(ConvertError) as raised:
        convert(messages)
    said = str(raised.value)
    assert "bag does not fit the contract 'aloha'" in said
    assert f'/{LOW} (cam_low) is missing' in said
    assert ('/follower_left/joint_states (left joint_states) has type std_msgs/msg/String, expected '
            'sensor_msgs/msg/JointState') in said
    assert '--namespace' in said and '/follower_right/joint_states' in said


def test_a_camera_that_was_not_recorded_can_be_left_out(robot, convert):
    messages = robot.without(robot.messages(1.0), 'cam_low/camera/color/image_rect_raw')
    (facts, frames), _ = convert(messages, cameras=('cam_high', 'cam_left_wrist', 'cam_right_wrist'))
    assert facts.cameras == tuple(frames[0].views) == ('cam_high', 'cam_left_wrist', 'cam_right_wrist')


def test_a_namespace_stands_in_front_of_the_robots_topics(robot, convert):
    messages = [one if one.topic.startswith('/tf') else replace(one, topic=f'/cell{one.topic}')
                for one in robot.messages(1.0)]
    (_, frames), _ = convert(messages, namespace='cell')
    assert len(frames) == 9


def test_an_empty_topic_counts_as_missing(robot, write_bag, job, episodes_of, tmp_path):
    path = write_bag(tmp_path / 'bag', robot.without(robot.messages(1.0), HIGH, 0.0))
    with pytest.raises(ConvertError, match=r'cam_high\) is missing'):
        episodes_of(job(path))


def test_stamps_that_are_hours_off_are_refused_with_stream_time_and_remedy(robot, convert):
    messages = robot.altered(robot.messages(1.0), LOW, lambda one: robot.restamped(one, lambda at: at - 7200 * 10**9))
    with pytest.raises(ConvertError, match=r'bag: cam_low: stamps are 7200\.00\d s behind the '
                                           r'receive time, from the first message at 0\.011 s on: the clocks are not '
                                           r'synchronised.*--stamp-on-receipt cam_low'):
        convert(messages)


def test_a_stream_whose_stamps_are_off_can_count_from_its_arrival(robot, convert):
    messages = robot.altered(robot.messages(1.0), LOW, lambda one: robot.restamped(one, lambda at: at - 7200 * 10**9))
    (_, frames), report = convert(messages, receive=('cam_low',))
    assert len(frames) == 9 and line(report, 'cam_low').time_base == TimeBase.RECEIVE.value
    assert line(report, 'cam_high').time_base == TimeBase.HEADER.value


@pytest.mark.parametrize(('stamp', 'note'), [
    (lambda at: 0, 'cam_low: its stamps are zero, so its receive times are used'),
    (lambda at: at - 400_000_000, 'cam_low: its stamps are 0.404 s behind its receive times, so these are used'),
    (lambda at: at + 300_000_000, 'cam_low: its stamps are 0.296 s ahead of its receive times, so these are used')])
def test_stamps_that_are_missing_or_lag_are_replaced_by_arrival_and_the_report_says_so(stamp, note, robot, convert):
    messages = robot.altered(robot.messages(1.0), LOW, lambda one: robot.restamped(one, stamp))
    (_, frames), report = convert(messages)
    assert len(frames) == 9 and any(note in one for one in report.notes)


def test_transforms_whose_stamps_are_off_can_count_from_their_arrival(robot, convert):
    messages = robot.altered(robot.messages(1.0), '/tf', lambda one: robot.restamped(one, lambda at: at + 90 * 10**9))
    with pytest.raises(ConvertError, match=r'bag: tf: stamps are 89\.996 s ahead of'):
        convert(messages)


def test_a_recording_of_simulated_time_is_dated_by_its_stamps(robot, convert):
    shift = 1_600_000_000 * 10**9
    messages = [replace(one, content=robot.restamped(one.content, lambda at: at - shift))
                if hasattr(one.content, 'header') or hasattr(one.content, 'transforms') else one
                for one in robot.messages(1.0)]
    (_, frames), report = convert(messages)
    assert len(frames) == 9 and any('frames are dated by the stamps' in note for note in report.notes)
    assert frames[0].stamp_s == pytest.approx((robot.start_ns - shift) / 1e9 + 0.1, abs=0.01)


def test_a_recorded_simulated_clock_dates_the_recording(robot, write_bag, job, episodes_of, tmp_path):
    shift = 1_600_000_000 * 10**9
    # A simulation at half speed.
    messages = [replace(one, receive_ns=robot.start_ns + 2 * (one.receive_ns - robot.start_ns),
                        content=robot.restamped(one.content, lambda at: at - shift)
                        if hasattr(one.content, 'header') or hasattr(one.content, 'transforms') else one.content)
                for one in robot.messages(1.0)]
    ticking = robot.stream('/clock', 'rosgraph_msgs/msg/Clock', 100, 1.0, lambda at, t: robot.make(
        'rosgraph_msgs/msg/Clock', clock=robot.stamp(at - shift + 4_000_000)))
    clock = [replace(one, receive_ns=robot.start_ns + 2 * (one.receive_ns - robot.start_ns) + 1) for one in ticking]
    (found,) = episodes_of(job(write_bag(tmp_path / 'bag', robot.in_order([*messages, *clock]))))
    stamps = np.array([frame.stamp_s for frame in found[1]]) - (robot.start_ns - shift) / 1e9
    assert len(stamps) == 9
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-6)


def test_frames_without_a_stream_are_dropped_counted_and_explained(robot, convert):
    messages = robot.without(robot.messages(3.0), LOW, 1.0, 1.5)
    (_, frames), report = convert(messages)
    assert len(frames) < 29 and line(report, 'cam_low').drops > 0
    assert report.details['cam_low: stale_stream'] == line(report, 'cam_low').drops
    assert line(report, 'cam_low').gaps == 1
    assert line(report, 'cam_low').longest_gap_s == pytest.approx(0.6, abs=0.01)


def test_an_episode_with_too_many_drops_is_refused_with_each_stream_and_time(robot, convert):
    messages = robot.without(robot.messages(3.0), LOW, 1.0, 2.5)
    refused, _ = convert(messages)
    assert refused.kind is SkipReason.DROPS
    assert 'bag: episode 0: 0.000 s to 2.9' in str(refused)
    assert 'cam_low stale_stream' in str(refused) and 'first at 1.2' in str(refused)


def test_more_drops_are_taken_where_that_is_asked_for(robot, convert):
    (_, frames), _ = convert(robot.without(robot.messages(3.0), LOW, 1.0, 2.5), max_drops=0.9)
    assert len(frames) > 10


def test_a_gap_in_tf_is_explained_by_its_frames(robot, convert):
    refused, _ = convert(robot.without(robot.messages(3.0), '/tf', 1.0, 2.5))
    assert refused.kind is SkipReason.DROPS
    assert 'TF follower_left/base_link -> follower_left/ee_gripper_link stale_stream' in str(refused)
    assert 'first at 1.1' in str(refused)


def test_nan_in_joint_states_names_stream_joint_and_time(robot, convert):
    def spoil(state):
        position = state.position.copy()
        position[3] = np.nan
        return replace(state, position=position)

    refused, _ = convert(robot.altered(robot.messages(3.0), 'follower_left/joint_states', spoil, 1.0, 2.5))
    assert refused.kind is SkipReason.DROPS
    assert "left joint_states bad_input" in str(refused) and "first at 1.1" in str(refused)
    assert "joint 'forearm_roll' has position nan, expected a number" in str(refused)


def test_nan_in_tf_is_refused_with_frames_and_time(robot, convert):
    def spoil(message):
        first, *rest = message.transforms
        bad = replace(first.transform.translation, x=float('nan'))
        return replace(message, transforms=[replace(first, transform=replace(first.transform, translation=bad)), *rest])

    refused, report = convert(robot.altered(robot.messages(3.0), '/tf', spoil, 1.0, 2.5))
    assert refused.kind is SkipReason.DROPS
    note = next(note for note in report.notes if 'transforms refused' in note)
    assert "tf: 75 transforms refused, first at 1.004 s: transform 'follower_left/base_link' -> " in note
    assert 'must be finite' in note


def test_images_that_change_their_size_without_their_camera_info_are_named(robot, convert):
    small = robot.image('cam_low', robot.start_ns, 0.0, (24, 32))
    messages = robot.altered(robot.messages(3.0), LOW, lambda one: replace(small, header=one.header), 1.0, 2.5)
    refused, _ = convert(messages)
    assert refused.kind is SkipReason.DROPS
    assert 'cam_low: image is 32x24, its camera_info on cam_low/camera/color/camera_info describes 64x48' in str(
        refused)


def test_a_camera_that_changes_its_size_with_its_camera_info_is_followed_and_noted(robot, convert):
    small = robot.image('cam_low', robot.start_ns, 0.0, (24, 32))
    info = robot.camera_info('cam_low', robot.start_ns, (24, 32))
    messages = robot.altered(robot.messages(2.0), LOW, lambda one: replace(small, header=one.header), 1.0)
    messages = robot.altered(messages, 'cam_low/camera/color/camera_info',
                             lambda one: replace(info, header=one.header), 1.0)
    (_, frames), report = convert(messages)
    assert len(frames) >= 18
    np.testing.assert_allclose(frames[-1].views['cam_low'].intrinsics, frames[0].views['cam_low'].intrinsics, atol=1e-9)
    assert any('cam_low: 1 changes of the image size, first at 1.011 s: from 64x48 to 32x24' in note
               for note in report.notes)


def test_an_image_that_cannot_be_decoded_is_named(robot, convert):
    messages = robot.altered(robot.messages(3.0, compressed=True), f'{LOW}/compressed', lambda one: replace(
        one, data=one.data[:200]), 1.0, 2.5)
    refused, _ = convert(messages)
    assert 'cam_low: jpeg image of 200 bytes is truncated' in str(refused)


def test_frozen_images_are_counted(robot, convert):
    messages = robot.altered(robot.messages(2.0), LOW, lambda one: replace(
        robot.image('cam_low', robot.start_ns, 1.0), header=one.header), 1.0)
    (_, _), report = convert(messages)
    assert line(report, 'cam_low').frozen == 9 and line(report, 'cam_high').frozen == 0


def test_the_report_gives_rate_and_age_of_every_stream(robot, convert):
    _, report = convert(robot.messages(3.0))
    low = line(report, 'cam_low')
    assert low.messages == 30 and low.rate_hz == pytest.approx(10.0)
    assert low.age_p50_s == pytest.approx(0.093, abs=1e-3)
    assert line(report, 'left joint_states').rate_hz == pytest.approx(50.0)
    assert line(report, 'tf').age_p95_s == pytest.approx(0.02, abs=1e-3)


def test_bytes_that_are_no_message_are_left_out_and_noted(robot, types, write_bag, job, episodes_of, tmp_path,
                                                         spoil_message):
    path = spoil_message(write_bag(tmp_path / 'bag', robot.messages(2.0)), '/follower_left/joint_states')
    work = job(path, split=SegmentationMode.BAG)
    (found,) = episodes_of(work)
    assert len(found[1]) >= 18
    assert any('left joint_states: 1 /follower_left/joint_states messages ignored' in note
               for note in work.report().notes)


@pytest.fixture
def spoil_message(types, tmp_path):
    """Write a bag with a truncated message of a topic."""
    def spoil(path, topic):
        target = tmp_path / 'spoiled'
        with Reader(path) as source, Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            made = {one.topic: writer.add_connection(one.topic, one.msgtype, typestore=types)
                    for one in source.connections}
            seen = 0
            for one, at, raw in source.messages():
                seen += one.topic == topic
                writer.write(made[one.topic], at, raw[:30] if one.topic == topic and seen == 40 else raw)
        return target
    return spoil


def test_a_first_message_at_time_0_is_a_jump_of_the_clock_and_not_fifty_years_of_frames(robot, write_bag, job,
                                                                                       episodes_of, tmp_path):
    first, *rest = robot.messages(1.0)
    path = write_bag(tmp_path / 'bag', [replace(first, receive_ns=0), *rest])
    before, (_, frames) = episodes_of(job(path, split=SegmentationMode.BAG))
    assert before.kind is SkipReason.CLOCK_JUMP and 'the clock of the recording jumped' in str(before)
    assert len(frames) == 9
