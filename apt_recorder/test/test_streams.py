"""Selection of the recorded streams, and the problems that are reported."""

import struct

import pytest
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from apt_policy.core import cdr, topics
from apt_policy.core.stream_spec import Need
from apt_policy.ros import encode
from apt_policy.ros.stamps import to_time
from apt_recorder.stream_monitor import PublisherInfo, StreamMonitor, find_problems
from apt_recorder.streams import SelectionError, recorded_streams

S = 10**9


def stamped(stamp_ns):
    return struct.pack('<BBBBiI', 0, 1, 0, 0, *divmod(stamp_ns, S)) + bytes(8)


@pytest.fixture
def specs(contract):
    return {spec.label: spec for spec in recorded_streams(contract)}


@pytest.fixture
def monitor(specs):
    """Return a function that makes the monitor of a stream that has a publisher."""
    def make(label, *, min_rate=0.8, check_age=True, publishers=1):
        monitor = StreamMonitor(specs[label], min_rate=min_rate, check_age=check_age)
        monitor.publishers = publishers * (PublisherInfo(node='/driver', type_name=specs[label].type_name),)
        return monitor
    return make


def flow(monitor, *, rate_hz, seconds, late_s=0.0, begin_ns=100 * S):
    """Feed a steady stream and return the time of its end [ns]."""
    for count in range(round(rate_hz * seconds)):
        now_ns = begin_ns + round(count / rate_hz * S)
        monitor.record_arrival(stamped(now_ns - round(late_s * S)), now_ns, None)
    return begin_ns + round(seconds * S)


def test_all_topics_of_the_contract_are_recorded(contract, specs):
    recorded = {spec.topic for spec in specs.values()}
    for camera in contract.cameras.values():
        assert {camera.image_topic, camera.info_topic} <= recorded
    for name, arm in contract.arms.items():
        assert {arm.joint_states_topic, arm.joint_group_topic, arm.joint_single_topic, topics.target(name),
                topics.target_pose(name), topics.target_gripper(name)} <= recorded
    assert {'/tf', '/tf_static', '/clock', contract.prompt_topic, topics.ACTIVE_PROMPT, topics.EPISODE} <= recorded


def test_a_camera_that_is_left_out_takes_its_calibration_with_it(contract, specs):
    kept = {spec.label for spec in recorded_streams(contract, without=['cam_low', 'clock'])}
    assert specs.keys() - kept == {'cam_low', 'cam_low info', 'clock'}


def test_leaving_out_what_does_not_exist_is_refused(contract):
    with pytest.raises(SelectionError, match=r"cannot leave out 'cam_lwo': no such stream; choose from .*cam_low"):
        recorded_streams(contract, without=['cam_lwo'])


def test_a_stream_as_the_contract_says_is_well(monitor, specs):
    healthy = monitor('cam_high')
    now_ns = flow(healthy, rate_hz=specs['cam_high'].rate_hz, seconds=3.0)
    assert healthy.problem(now_ns) == ''


@pytest.mark.parametrize(('publishers', 'error_text'), [
    (0, 'cam_high/camera/color/image_rect_raw has no publisher'),
    (1, 'no message received on cam_high/camera/color/image_rect_raw, which /driver publishes')])
def test_a_silent_stream_is_named_with_its_publishers(monitor, publishers, error_text):
    silent = monitor('cam_high', publishers=publishers)
    assert error_text in silent.problem(100 * S)
    assert find_problems([silent], 100 * S)[0].startswith('cam_high: ')


def test_a_slow_stream_is_named_with_both_rates(monitor):
    slow = monitor('cam_high')
    now_ns = flow(slow, rate_hz=5.0, seconds=3.0)
    assert 'Hz, expected 15 Hz by the contract' in slow.problem(now_ns)
    tolerant = monitor('cam_high', min_rate=0.3)
    assert tolerant.problem(flow(tolerant, rate_hz=5.0, seconds=3.0)) == ''


def test_a_stream_that_stopped_is_silent_then_stopped(monitor):
    stopped = monitor('left joints')
    now_ns = flow(stopped, rate_hz=50.0, seconds=3.0)
    assert not stopped.has_stopped(now_ns)
    assert 'for 3.0 s' in stopped.problem(now_ns + 3 * S)
    assert stopped.has_stopped(now_ns + 3 * S)


@pytest.mark.parametrize(('late_s', 'error_text'), [(0.6, '0.60 s old'), (-0.6, '-0.60 s old')])
def test_wrong_stamps_are_reported_unless_they_are_ignored(monitor, late_s, error_text):
    late = monitor('cam_high')
    now_ns = flow(late, rate_hz=15.0, seconds=3.0, late_s=late_s)
    assert error_text in late.problem(now_ns) and '--stamp-on-receipt cam_high' in late.problem(now_ns)
    ignored = monitor('cam_high', check_age=False)
    assert ignored.problem(flow(ignored, rate_hz=15.0, seconds=3.0, late_s=late_s)) == ''


def test_messages_without_a_stamp_are_reported(monitor):
    unstamped = monitor('cam_high')
    for count in range(60):
        unstamped.record_arrival(stamped(0), 100 * S + count * S // 15, None)
    assert 'have no stamp' in unstamped.problem(104 * S - S // 15)


def test_a_publisher_of_another_type_is_named_even_where_nothing_is_needed(monitor, specs):
    for label in ('cam_high', 'episode'):
        wrong = monitor(label)
        wrong.publishers = (PublisherInfo(node='/driver', type_name='sensor_msgs/msg/CompressedImage'),)
        expected = f'as sensor_msgs/msg/CompressedImage, expected {specs[label].type_name} by the contract'
        assert expected in wrong.problem(100 * S)


def test_optional_streams_need_no_publisher(monitor, specs):
    for label, spec in specs.items():
        if spec.need.recorder in (Need.OPTIONAL, Need.ONCE_BEGUN):
            assert monitor(label, publishers=0).problem(100 * S) == ''


def test_a_simulated_clock_that_stops_has_stopped(monitor):
    clock = monitor('clock')
    assert not clock.has_stopped(100 * S)
    now_ns = flow(clock, rate_hz=100.0, seconds=1.0)
    assert clock.has_stopped(now_ns + 10 * S)


def test_lost_messages_are_counted_by_sequence_numbers(monitor):
    counted = monitor('cam_high')
    for sequence in (4, 5, 7, 8, 12, 1, 2):
        counted.record_arrival(stamped(100 * S), 100 * S, sequence)
    assert counted.lost == 4
    several = monitor('tf', publishers=2)
    for sequence in (4, 9):
        several.record_arrival(stamped(100 * S), 100 * S, sequence)
    assert several.lost == 0


def test_messages_within_one_tick_of_a_simulated_clock_all_count(monitor):
    joints = monitor('left joints')
    for tick in range(300):
        for _ in range(2):
            joints.record_arrival(stamped(100 * S), 100 * S + tick * S // 25, None)
    assert joints.rate_hz(100 * S + 299 * S // 25) == pytest.approx(50.0, rel=0.05)


def test_the_beginning_of_a_message_is_read_as_ros_reads_it():
    header = JointState(header=encode.header(1_234_567_890_123, 'base'), name=['a'])
    assert cdr.decode_leading_stamp_ns(serialize_message(header)) == 1_234_567_890_123
    assert cdr.decode_leading_stamp_ns(serialize_message(Clock(clock=to_time(5_000_000_007)))) == 5_000_000_007
    for text in ('', 'put the cube: into the tray', 'Würfel'):
        assert cdr.decode_string(serialize_message(String(data=text))) == text
        assert cdr.encode_string(text).rstrip(b'\0') == serialize_message(String(data=text)).rstrip(b'\0')
    assert cdr.decode_string(b'\0\1\0\0\xff\0\0\0abc') is None and cdr.decode_leading_stamp_ns(b'\0\1') is None
