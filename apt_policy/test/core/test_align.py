"""Observations assembled from real messages, and holds that name what is wrong."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import Placement
from apt_policy.core.geometry import pose_to_quaternion
from apt_policy.core.sample import Hold, HoldReason, Observation
from apt_policy.core.streams import Arrival, TimeBase
from apt_policy.core.transforms import TransformBuffer

CAMERAS = ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')


def _hold(outcome, reason: HoldReason, *parts: str) -> None:
    assert isinstance(outcome, Hold), outcome
    assert outcome.reason is reason, outcome
    # Everything that keeps an observation from being made comes from one stream, in text and as a field.
    assert outcome.stream is not None and f'{outcome.stream}: ' in outcome.detail, outcome
    for part in parts:
        assert part in outcome.detail, outcome


def test_an_observation_holds_every_camera_and_arm_as_of_the_tick(robot):
    robot.run(until_s=2.0)
    robot.say_images(2.001, value=200)
    seen = robot.assembler.snapshot(robot.ns(2.0005), 'stack the cubes')
    assert isinstance(seen, Observation)
    assert seen.prompt == 'stack the cubes'
    assert seen.stamp_ns == robot.ns(2.0005)
    assert len(seen.views) == 4
    assert len(seen.history) == 1
    for view in seen.views:
        assert view.rgb.shape == (256, 256, 3)
        assert view.mask.sum() == 256 * 192
        assert (view.rgb[view.mask] == 7).all()
        assert view.stamp_ns <= seen.stamp_ns
        np.testing.assert_allclose(view.intrinsics, [[240, 0, 128], [0, 240, 128], [0, 0, 1]])
    for name, arm in zip(('left', 'right'), seen.arms, strict=True):
        np.testing.assert_allclose(arm.world_from_ee, robot.world_from_ee(name, 2.0), atol=1e-9)
        assert arm.gripper == pytest.approx(0.5)


def test_fixed_cameras_stand_where_the_contract_says_and_wrist_cameras_where_tf_says_at_their_stamp(robot):
    robot.run(until_s=2.0)
    seen = robot.assembler.snapshot(robot.ns(2.0), '')
    for name, view in zip(CAMERAS, seen.views, strict=True):
        camera = robot.contract.cameras[name]
        if camera.tf_anchor is None:
            expected = camera.world_from_camera.matrix
        else:
            expected = robot.world_from_ee(camera.tf_anchor, view.stamp_ns / 1e9) @ robot.mount
        np.testing.assert_allclose(view.world_from_camera, expected, atol=1e-6)


def test_a_wrist_camera_that_tf_does_not_know_hangs_on_its_arm_as_the_contract_says(robot):
    translation, quaternion = pose_to_quaternion(robot.mount)
    mount = Placement(translation=tuple(translation), quaternion_xyzw=tuple(quaternion))
    cameras = {name: replace(camera, frame='unknown_to_tf', ee_from_camera=mount) if camera.tf_anchor else camera
               for name, camera in robot.contract.cameras.items()}
    robot.assembler = ObservationAssembler(replace(robot.contract, cameras=cameras), robot.transforms)
    robot.run(until_s=2.0)
    views = dict(zip(cameras, robot.assembler.snapshot(robot.ns(2.0), '').views, strict=True))
    view = views['cam_left_wrist']
    expected = robot.world_from_ee('left', view.stamp_ns / 1e9) @ robot.mount
    np.testing.assert_allclose(view.world_from_camera, expected, atol=1e-6)


def test_a_wrist_image_newer_than_tf_gives_way_to_one_whose_camera_pose_is_known(robot):
    robot.run(until_s=2.0)
    robot.say_images(2.03, value=99)
    high, _, left, _ = robot.assembler.snapshot(robot.ns(2.04), '').views
    assert high.stamp_ns == robot.ns(2.03)
    assert (high.rgb[high.mask] == 99).all()
    assert left.stamp_ns <= robot.ns(2.0)
    assert (left.rgb[left.mask] == 7).all()


def test_the_pose_of_the_arm_is_interpolated_at_a_tick_between_two_transforms(robot):
    robot.run(until_s=2.0)
    seen = robot.assembler.snapshot(robot.ns(1.993), '')
    np.testing.assert_allclose(seen.arms[0].world_from_ee, robot.world_from_ee('left', 1.993), atol=1e-6)


def test_openings_are_clipped_and_interpolated(robot):
    robot.run(until_s=2.0, without=('left joints',))
    robot.assembler.add_joint_state('left', robot.joints('left', 1.98, opening=0.2), 0)
    robot.assembler.add_joint_state('left', robot.joints('left', 2.00, opening=0.6), 0)
    assert robot.assembler.arm_states(robot.ns(1.99))[0].gripper == pytest.approx(0.4)
    robot.assembler.add_joint_state('left', robot.joints('left', 2.01, opening=1.07), 0)
    assert robot.assembler.arm_states(robot.ns(2.01))[0].gripper == 1.0


def test_history_looks_back_in_steps_and_ends_in_the_present(change, robot_of):
    robot = robot_of(change({'history': 3}))
    robot.run(until_s=2.0)
    seen = robot.assembler.snapshot(robot.ns(2.0), '')
    assert len(seen.history) == 3
    for back, states in zip((0.2, 0.1, 0.0), seen.history, strict=True):
        np.testing.assert_allclose(states[1].world_from_ee, robot.world_from_ee('right', 2.0 - back),
                                   atol=1e-6)


def test_history_that_is_not_there_yet_is_a_hold_and_not_a_guess(change, robot_of):
    robot = robot_of(change({'history': 3}))
    robot.run(until_s=1.15)
    _hold(robot.assembler.snapshot(robot.ns(1.15), ''), HoldReason.MISSING_STREAM, 'left joint_states',
          'after it')


def test_cameras_that_are_switched_off_leave_their_place_empty(robot, aloha):
    assembler = ObservationAssembler(aloha, robot.transforms, cameras=['cam_right_wrist', 'cam_high'])
    robot.assembler = assembler
    robot.contract = aloha
    for name in ('cam_high', 'cam_right_wrist'):
        assembler.add_camera_info(name, robot.info())
    robot.say_state(1.99)
    robot.say_state(2.0)
    robot.say_images(2.0, without=('cam_low', 'cam_left_wrist'))
    seen = assembler.snapshot(robot.ns(2.0), '')
    assert [view is not None for view in seen.views] == [True, False, False, True]


def test_wrong_names_are_refused_at_construction_beside_the_valid_ones(aloha):
    with pytest.raises(ValueError, match="cameras has 'cam_top', .* not define; it has cam_high, cam_low"):
        ObservationAssembler(aloha, TransformBuffer(), cameras=['cam_top', 'cam_high'])
    with pytest.raises(ValueError, match=r"time_bases has 'leg', .* it has .*cam_high.*left, right"):
        ObservationAssembler(aloha, TransformBuffer(), time_bases={'leg': TimeBase.RECEIVE})
    with pytest.raises(ValueError, match=r"no camera of cam_low is .* arm 'left'; add one of cam_left_wrist"):
        ObservationAssembler(aloha, TransformBuffer(), cameras=['cam_low'])


@pytest.mark.parametrize(('silent', 'named'), [
    ('cam_low', 'cam_low: no message yet'), ('cam_low info', 'cam_low: no camera_info yet on cam_low/'),
    ('right joints', 'right joint_states: no message yet'),
    ('right tf', 'TF follower_right/base_link -> follower_right/ee_gripper_link: ')])
def test_a_stream_that_never_came_is_named(silent, named, robot):
    robot.run(until_s=2.0, without=(silent,))
    _hold(robot.assembler.snapshot(robot.ns(2.0), ''), HoldReason.MISSING_STREAM, named)


@pytest.mark.parametrize(('dead', 'named', 'limit'), [
    ('cam_low', 'cam_low: 0.3', 'limit 0.25 s'), ('left joints', 'left joint_states: 0.3', 'limit 0.1 s'),
    ('left tf', 'TF follower_left/base_link -> follower_left/ee_gripper_link: 0.3', 'limit 0.1 s')])
def test_a_stream_that_died_is_named_with_age_and_limit_and_may_revive(dead, named, limit, robot):
    robot.run(until_s=1.5)
    robot.run(until_s=1.8, since_s=1.51, without=(dead,))
    _hold(robot.assembler.snapshot(robot.ns(1.8), ''), HoldReason.STALE_STREAM, named, limit)
    robot.run(until_s=2.0, since_s=1.81)
    assert isinstance(robot.assembler.snapshot(robot.ns(2.0), ''), Observation)


def test_wrist_images_that_tf_cannot_keep_up_with_are_a_hold_that_says_by_how_much(change, robot_of):
    robot = robot_of(change({'arms.left.max_age_s': 9.0, 'arms.right.max_age_s': 9.0}))
    robot.run(until_s=1.5)
    for stamp in (1.6, 1.7, 1.8):
        robot.say_images(stamp)
    _hold(robot.assembler.snapshot(robot.ns(1.8), ''), HoldReason.STALE_STREAM,
          'cam_left_wrist_color_optical_frame: 0.300 s older',
          'no image of the last 0.25 s')


def test_bad_input_is_a_hold_that_names_stream_and_fault(robot):
    robot.run(until_s=2.0)
    cases = [
        (lambda: robot.assembler.add_image('cam_low', robot.image(2.01, encoding='rgb7'), 0),
         "cam_low: image encoding 'rgb7' is not supported"),
        (lambda: robot.assembler.add_image('cam_low', robot.image(2.02, width=32), 0),
         'cam_low: image is 32x48, its camera_info on cam_low/camera/color/camera_info describes 64x48'),
        (lambda: robot.assembler.add_camera_info('cam_low', robot.info(k=np.zeros(9))),
         'cam_low: camera info has K'),
        (lambda: robot.assembler.add_joint_state('right', robot.joints('right', 2.02, elbow=np.nan), 0),
         "right joint_states: joint 'elbow' has position nan")]
    for spoil, named in cases:
        spoil()
        _hold(robot.assembler.snapshot(robot.ns(2.03), ''), HoldReason.BAD_INPUT, named)


def test_a_joint_state_without_the_gripper_names_it(robot):
    robot.run(until_s=2.0)
    message = robot.joints('left', 2.01)
    message.name = [name.replace('left_finger', 'other') for name in message.name]
    robot.assembler.add_joint_state('left', message, 0)
    _hold(robot.assembler.snapshot(robot.ns(2.01), ''), HoldReason.BAD_INPUT, "lacks 'left_finger'")


def test_a_transform_that_is_not_finite_is_a_hold_whoever_delivers_it(aloha, robot):
    class Broken:
        """A source without the buffer's checks."""

        def lookup(self, target, source, stamp_ns):
            return np.full((4, 4), np.nan)

        def latest_common_ns(self, target, source):
            return 0

        def clear(self):
            """Nothing to forget."""

    assembler = ObservationAssembler(aloha, Broken())
    assembler.add_joint_state('left', robot.joints('left', 2.0), 0)
    _hold(assembler.arm_states(robot.ns(2.0)), HoldReason.BAD_INPUT, 'TF follower_left', 'not finite')


def test_a_clock_that_jumps_back_is_reported_and_everything_starts_afresh(robot):
    robot.run(until_s=5.0, since_s=4.0)
    assert isinstance(robot.assembler.snapshot(robot.ns(5.0), ''), Observation)
    assert robot.assembler.add_joint_state('left', robot.joints('left', 0.5), 0) is Arrival.CLOCK_JUMP
    ages = {report.stream: report.age_s for report in robot.assembler.ages(robot.ns(0.52))}
    assert ages['left joint_states'] == pytest.approx(0.02)
    assert ages['right joint_states'] == ages['cam_high'] == -1.0
    _hold(robot.assembler.snapshot(robot.ns(0.5), ''), HoldReason.CLOCK_JUMP, 'left jumped back')
    _hold(robot.assembler.snapshot(robot.ns(5.0), ''), HoldReason.STALE_STREAM)
    robot.run(until_s=1.0, since_s=0.51)
    assert isinstance(robot.assembler.snapshot(robot.ns(1.0), ''), Observation)
    # The jump is over: what is missing now has another reason.
    robot.assembler.clear()
    _hold(robot.assembler.snapshot(robot.ns(1.0), ''), HoldReason.MISSING_STREAM)


def test_unstamped_messages_are_refused_with_the_cure_unless_receive_time_counts(robot, aloha):
    robot.run(until_s=2.0, without=('cam_low',))
    assert robot.assembler.add_image('cam_low', robot.image(0.0), robot.ns(2.0)) is Arrival.UNSTAMPED
    _hold(robot.assembler.snapshot(robot.ns(2.0), ''), HoldReason.MISSING_STREAM,
          'cam_low: 1 messages without a stamp', 'time base of this stream to receive')
    other = ObservationAssembler(aloha, robot.transforms, time_bases={'cam_low': TimeBase.RECEIVE})
    assert other.add_image('cam_low', robot.image(0.0), robot.ns(2.0)) is Arrival.STORED


def test_a_stream_from_the_future_is_named_as_such(robot):
    robot.run(until_s=2.0, without=('cam_low',))
    robot.assembler.add_image('cam_low', robot.image(9.0), 0)
    _hold(robot.assembler.snapshot(robot.ns(2.0), ''), HoldReason.MISSING_STREAM,
          'cam_low', '7.000 s after it')


def test_storing_does_not_look_into_an_image_and_looking_decodes_it_once(robot):
    robot.run(until_s=2.0)
    bad = robot.image(2.005, encoding='rgb7')
    assert robot.assembler.add_image('cam_high', bad, 0) is Arrival.STORED
    robot.assembler.add_image('cam_high', robot.image(2.01), 0)
    first = robot.assembler.snapshot(robot.ns(2.01), '').views[0]
    assert robot.assembler.snapshot(robot.ns(2.02), '').views[0] is first


def test_new_intrinsics_count_for_the_image_that_is_already_there(robot):
    robot.run(until_s=2.0)
    robot.assembler.snapshot(robot.ns(2.0), '')
    robot.assembler.add_camera_info('cam_high', robot.info(k=(30.0, 0, 32, 0, 30, 24, 0, 0, 1)))
    view = robot.assembler.snapshot(robot.ns(2.0), '').views[0]
    assert view.intrinsics[0, 0] == pytest.approx(120)


def test_every_stream_is_reported_with_age_limit_and_rates(robot):
    robot.run(until_s=4.0, without=('cam_low',))
    reports = {report.stream: report for report in robot.assembler.ages(robot.ns(4.0))}
    assert set(reports) == {
        *CAMERAS, 'left joint_states', 'right joint_states',
        *(f'TF follower_{arm}/base_link -> {end}' for arm in ('left', 'right')
          for end in (f'follower_{arm}/ee_gripper_link', f'cam_{arm}_wrist_color_optical_frame'))}
    assert [name for name, report in reports.items() if not report.ok] == ['cam_low']
    assert reports['cam_low'].age_s == -1.0
    assert reports['cam_high'].rate_hz == pytest.approx(30, abs=0.6)
    assert reports['cam_high'].max_age_s == 0.25
    assert reports['cam_high'].expected_hz == 30.0
    assert reports['left joint_states'].rate_hz == pytest.approx(100, abs=1)
    late = {report.stream: report for report in robot.assembler.ages(robot.ns(4.5))}
    assert not any(report.ok for report in late.values())
    assert late['left joint_states'].age_s == pytest.approx(0.5)


def test_callbacks_and_snapshots_may_run_in_two_threads(robot):
    robot.run(until_s=2.0)
    outcomes: list[Observation | Hold] = []
    done = threading.Event()
    now = [robot.ns(2.0)]

    def watch() -> None:
        while not done.is_set():
            outcomes.append(robot.assembler.snapshot(now[0], ''))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(1, 60):
        stamp = 2.0 + step / 100
        robot.say_state(stamp)
        robot.say_images(stamp, value=step)
        now[0] = robot.ns(stamp)
    done.set()
    watcher.join(timeout=20)
    assert not watcher.is_alive()
    outcomes.append(robot.assembler.snapshot(now[0], ''))
    seen = [outcome for outcome in outcomes if isinstance(outcome, Observation)]
    assert seen
    assert all(view.stamp_ns <= each.stamp_ns for each in seen for view in each.views)
    # Time runs faster here than a snapshot takes, so a tick may be overtaken; nothing else may be amiss.
    assert all('after it' in hold.detail for hold in outcomes if isinstance(hold, Hold))
