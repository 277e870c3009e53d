"""Which streams are recorded, and what is said of those that are not well."""

import struct

import pytest
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from apt_policy.core import topics
from apt_policy.core.stream_spec import Need
from apt_policy.ros import encode
from apt_policy.ros.stamps import to_time
from apt_recorder import cdr
from apt_recorder.streams import SelectionError, streams_of
from apt_recorder.watch import Publisher, StreamWatch, complaints

S = 10**9


def stamped(stamp_ns):
    return struct.pack('<BBBBiI', 0, 1, 0, 0, *divmod(stamp_ns, S)) + bytes(8)


@pytest.fixture
def specs(contract):
    return {spec.label: spec for spec in streams_of(contract)}


@pytest.fixture
def watch(specs):
    """The watch of a stream whose publisher is there."""
    def make(label, *, min_rate=0.8, check_age=True, publishers=1):
        watch = StreamWatch(specs[label], min_rate=min_rate, check_age=check_age)
        watch.publishers = publishers * (Publisher(node='/driver', kind=specs[label].type_name),)
        return watch
    return make


def flow(watch, *, rate_hz, seconds, late_s=0.0, begin_ns=100 * S):
    """A steady stream; returns the instant of its end."""
    for count in range(round(rate_hz * seconds)):
        now_ns = begin_ns + round(count / rate_hz * S)
        watch.take(stamped(now_ns - round(late_s * S)), now_ns, None)
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
    kept = {spec.label for spec in streams_of(contract, without=['cam_low', 'clock'])}
    assert specs.keys() - kept == {'cam_low', 'cam_low info', 'clock'}


def test_leaving_out_what_does_not_exist_is_refused(contract):
    with pytest.raises(SelectionError, match=r"no stream 'cam_lwo' to leave out; there are .*cam_low"):
        streams_of(contract, without=['cam_lwo'])


def test_a_stream_as_the_contract_says_is_well(watch, specs):
    healthy = watch('cam_high')
    now_ns = flow(healthy, rate_hz=specs['cam_high'].rate_hz, seconds=3.0)
    assert healthy.complaint(now_ns) == ''


@pytest.mark.parametrize(('publishers', 'complaint'), [
    (0, 'nobody publishes cam_high/camera/color/image_rect_raw'),
    (1, '/driver publishes cam_high/camera/color/image_rect_raw, but nothing arrives')])
def test_a_silent_stream_is_named_with_who_should_speak(watch, publishers, complaint):
    silent = watch('cam_high', publishers=publishers)
    assert complaint in silent.complaint(100 * S)
    assert complaints([silent], 100 * S)[0].startswith('cam_high: ')


def test_a_slow_stream_is_named_with_both_rates(watch):
    slow = watch('cam_high')
    now_ns = flow(slow, rate_hz=5.0, seconds=3.0)
    assert 'Hz, the contract says 15 Hz' in slow.complaint(now_ns)
    tolerant = watch('cam_high', min_rate=0.3)
    assert tolerant.complaint(flow(tolerant, rate_hz=5.0, seconds=3.0)) == ''


def test_a_stream_that_stopped_is_silent_then_dead(watch):
    stopped = watch('left joints')
    now_ns = flow(stopped, rate_hz=50.0, seconds=3.0)
    assert not stopped.died(now_ns)
    assert 'has been silent for 3.0 s' in stopped.complaint(now_ns + 3 * S)
    assert stopped.died(now_ns + 3 * S)


@pytest.mark.parametrize(('late_s', 'complaint'), [(0.6, '0.60 s old'), (-0.6, '-0.60 s old')])
def test_stamps_that_are_off_are_told_unless_they_do_not_count(watch, late_s, complaint):
    late = watch('cam_high')
    now_ns = flow(late, rate_hz=15.0, seconds=3.0, late_s=late_s)
    assert complaint in late.complaint(now_ns) and '--stamp-on-receipt cam_high' in late.complaint(now_ns)
    ignored = watch('cam_high', check_age=False)
    assert ignored.complaint(flow(ignored, rate_hz=15.0, seconds=3.0, late_s=late_s)) == ''


def test_messages_without_a_stamp_are_told(watch):
    unstamped = watch('cam_high')
    for count in range(60):
        unstamped.take(stamped(0), 100 * S + count * S // 15, None)
    assert 'carry no stamp' in unstamped.complaint(104 * S - S // 15)


def test_a_publisher_of_another_type_is_named_even_where_nothing_is_needed(watch, specs):
    for label in ('cam_high', 'episode'):
        wrong = watch(label)
        wrong.publishers = (Publisher(node='/driver', kind='sensor_msgs/msg/CompressedImage'),)
        expected = f'as sensor_msgs/msg/CompressedImage, the contract says {specs[label].type_name}'
        assert expected in wrong.complaint(100 * S)


def test_nobody_need_command_speak_or_simulate(watch, specs):
    for label, spec in specs.items():
        if spec.need.recorder in (Need.OPTIONAL, Need.ONCE_BEGUN):
            assert watch(label, publishers=0).complaint(100 * S) == ''


def test_a_simulated_clock_that_stops_is_dead(watch):
    clock = watch('clock')
    assert not clock.died(100 * S)
    now_ns = flow(clock, rate_hz=100.0, seconds=1.0)
    assert clock.died(now_ns + 10 * S)


def test_messages_that_never_came_are_counted_by_their_numbers(watch):
    counted = watch('cam_high')
    for sequence in (4, 5, 7, 8, 12, 1, 2):
        counted.take(stamped(100 * S), 100 * S, sequence)
    assert counted.lost == 4
    several = watch('tf', publishers=2)
    for sequence in (4, 9):
        several.take(stamped(100 * S), 100 * S, sequence)
    assert several.lost == 0


def test_messages_within_one_tick_of_a_simulated_clock_all_count(watch):
    joints = watch('left joints')
    for tick in range(300):
        for _ in range(2):
            joints.take(stamped(100 * S), 100 * S + tick * S // 25, None)
    assert joints.rate_hz(100 * S + 299 * S // 25) == pytest.approx(50.0, rel=0.05)


def test_the_beginning_of_a_message_is_read_as_ros_reads_it():
    header = JointState(header=encode.header(1_234_567_890_123, 'base'), name=['a'])
    assert cdr.leading_stamp_ns(serialize_message(header)) == 1_234_567_890_123
    assert cdr.leading_stamp_ns(serialize_message(Clock(clock=to_time(5_000_000_007)))) == 5_000_000_007
    for text in ('', 'put the cube: into the tray', 'Würfel'):
        assert cdr.string(serialize_message(String(data=text))) == text
        assert cdr.encoded_string(text).rstrip(b'\0') == serialize_message(String(data=text)).rstrip(b'\0')
    assert cdr.string(b'\0\1\0\0\xff\0\0\0abc') is None and cdr.leading_stamp_ns(b'\0\1') is None
