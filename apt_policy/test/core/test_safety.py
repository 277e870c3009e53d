"""What the safety filter lets through: limits as properties over random sequences."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.geometry import angle_between, make_pose
from apt_policy.core.safety import Clamp, SafeTarget, SafetyFilter
from apt_policy.core.sample import ArmState, Hold, HoldReason

PERIOD_NS = 20_000_000
PERIOD_S = 0.02
# Inside the left arm's box of the shipped contract.
HOME = np.array([-0.2, 0.5, 0.2])
LINEAR, ANGULAR, GRIPPER = 0.25, 1.5, 4.0


def _pose(offset=HOME, turn=(0.0, 0.0, 0.0)) -> np.ndarray:
    return make_pose(Rotation.from_rotvec(turn).as_matrix(), offset)


def _state(offset=HOME, gripper=0.5, turn=(0.0, 0.0, 0.0)) -> ArmState:
    return ArmState(world_from_ee=_pose(offset, turn), gripper=gripper)


def _at(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    return HOME + np.array([x, y, z])


@pytest.fixture
def safety(aloha) -> SafetyFilter:
    return SafetyFilter(aloha)


@pytest.fixture
def moving(safety) -> SafetyFilter:
    """At home since the instant 0."""
    safety.executed('left', SafeTarget(world_from_ee=_pose(), gripper=0.5), 0)
    return safety


def _hold(outcome, reason, *parts):
    assert isinstance(outcome, Hold), outcome
    assert outcome.reason is reason, outcome
    assert all(part in outcome.detail for part in parts), outcome


def test_random_targets_never_exceed_a_speed_and_never_leave_the_box(safety, aloha, rng):
    box = aloha.arms['left'].workspace
    last, now_ns = SafeTarget(world_from_ee=_pose(), gripper=0.5), 0
    measured = _state()
    seen = Clamp.NONE
    for _ in range(300):
        step_ns = int(rng.integers(1, 10 * PERIOD_NS))
        now_ns += step_ns
        wanted = make_pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1, 3))
        if now_ns == step_ns:
            wanted = _pose(_at(x=0.02))
        got = safety.check('left', wanted, rng.uniform(-0.5, 1.5), measured=measured, now_ns=now_ns)
        if isinstance(got, Hold):
            continue
        allowed_s = min(step_ns / 1e9, 2 * PERIOD_S) if seen else PERIOD_S
        before, after = last.world_from_ee, got.world_from_ee
        assert np.linalg.norm(after[:3, 3] - before[:3, 3]) <= LINEAR * allowed_s + 1e-9
        assert angle_between(before[:3, :3], after[:3, :3]) <= ANGULAR * allowed_s + 1e-9
        assert abs(got.gripper - last.gripper) <= GRIPPER * allowed_s + 1e-9
        assert (after[:3, 3] >= box.lower).all()
        assert (after[:3, 3] <= box.upper).all()
        assert 0.0 <= got.gripper <= 1.0
        safety.executed('left', got, now_ns)
        last, measured = got, ArmState(world_from_ee=got.world_from_ee, gripper=got.gripper)
        seen |= got.clamps
    assert all(clamp in seen for clamp in Clamp), seen


def test_what_came_out_goes_through_unchanged(moving, rng):
    for _ in range(50):
        wanted = make_pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-1, 1, 3))
        once = moving.check('left', wanted, rng.uniform(-1, 2), measured=None, now_ns=PERIOD_NS)
        twice = moving.check('left', once.world_from_ee, once.gripper, measured=None, now_ns=PERIOD_NS)
        assert twice.clamps is Clamp.NONE
        np.testing.assert_array_equal(twice.world_from_ee, once.world_from_ee)
        assert twice.gripper == once.gripper


def test_a_target_at_every_limit_passes_unchanged(moving):
    wanted = _pose(_at(z=LINEAR * PERIOD_S), turn=(ANGULAR * PERIOD_S, 0, 0))
    got = moving.check('left', wanted, 0.5 + GRIPPER * PERIOD_S, measured=None, now_ns=PERIOD_NS)
    assert got.clamps is Clamp.NONE
    np.testing.assert_array_equal(got.world_from_ee, wanted)


def test_a_target_on_the_edge_of_the_box_passes_unchanged(safety, aloha):
    edge = aloha.arms['left'].workspace.upper
    got = safety.check('left', _pose(edge), 1.0, measured=_state(edge, gripper=1.0), now_ns=1)
    assert got.clamps is Clamp.NONE
    np.testing.assert_array_equal(got.world_from_ee, _pose(edge))


def test_fast_targets_are_followed_straight_at_the_limits(moving):
    got = moving.check('left', _pose(_at(x=0.06, z=0.08), turn=(0, 0, 0.9)), 0.0, measured=None,
                       now_ns=PERIOD_NS)
    assert got.clamps is Clamp.LINEAR_SPEED | Clamp.ANGULAR_SPEED | Clamp.GRIPPER_SPEED
    way = LINEAR * PERIOD_S
    expected = _pose(_at(x=0.6 * way, z=0.8 * way), turn=(0, 0, ANGULAR * PERIOD_S))
    np.testing.assert_allclose(got.world_from_ee, expected, atol=1e-12)
    assert got.gripper == pytest.approx(0.5 - GRIPPER * PERIOD_S)


def test_a_target_outside_of_the_box_is_moved_to_its_nearest_point(safety):
    start = np.array([0.02, 0.79, 0.2])
    got = safety.check('left', _pose(start + 0.02), 0.5, measured=_state(start), now_ns=1)
    assert Clamp.WORKSPACE in got.clamps
    direction = got.world_from_ee[:3, 3] - start
    nearest = np.array([0.03, 0.80, 0.22]) - start
    np.testing.assert_allclose(direction / np.linalg.norm(direction), nearest / np.linalg.norm(nearest))


def test_an_arm_that_starts_outside_of_the_box_is_led_in_at_the_speed_limit(safety):
    outside = np.array([-0.2, 0.5, 0.01])
    got = safety.check('left', _pose(outside), 0.5, measured=_state(outside), now_ns=1)
    np.testing.assert_allclose(got.world_from_ee[:3, 3], outside + [0, 0, LINEAR * PERIOD_S])


def test_an_opening_outside_of_its_range_is_clamped(moving):
    moving.executed('left', SafeTarget(world_from_ee=_pose(), gripper=1.0), 0)
    got = moving.check('left', _pose(), 1.3, measured=None, now_ns=PERIOD_NS)
    assert got.gripper == 1.0
    assert got.clamps is Clamp.GRIPPER_RANGE


@pytest.mark.parametrize('spoil', ['pose', 'gripper'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_is_a_hold(spoil, value, moving):
    pose, gripper = _pose(), 0.5
    if spoil == 'pose':
        pose[1, 3] = value
    else:
        gripper = value
    _hold(moving.check('left', pose, gripper, measured=None, now_ns=PERIOD_NS), HoldReason.NON_FINITE, 'left')


def test_what_is_not_a_rotation_is_a_hold(moving):
    pose = _pose()
    pose[:3, :3] *= 1.1
    _hold(moving.check('left', pose, 0.5, measured=None, now_ns=PERIOD_NS), HoldReason.BAD_INPUT, 'rigid')


@pytest.mark.parametrize(('offset', 'turn', 'passes'), [
    (0.099, 0.0, True), (0.101, 0.0, False), (0.0, 0.49, True), (0.0, 0.51, False)])
def test_a_first_target_must_lie_near_the_measured_pose(offset, turn, passes, safety):
    outcome = safety.check('left', _pose(_at(y=offset), turn=(0, turn, 0)), 0.5, measured=_state(), now_ns=1)
    if passes:
        assert isinstance(outcome, SafeTarget)
    else:
        _hold(outcome, HoldReason.FAR_FROM_CURRENT, 'left: first target is', 'limits are 0.1 m and 0.5 rad')


def test_a_first_target_starts_slowly_from_the_measured_pose(safety):
    got = safety.check('left', _pose(_at(y=0.09)), 0.5, measured=_state(), now_ns=10**18)
    np.testing.assert_allclose(got.world_from_ee, _pose(_at(y=LINEAR * PERIOD_S)), atol=1e-12)


def test_without_a_measured_pose_a_first_target_is_a_hold(safety):
    _hold(safety.check('left', _pose(), 0.5, measured=None, now_ns=1), HoldReason.MISSING_STREAM, 'left')
    bad = ArmState(world_from_ee=np.full((4, 4), np.nan), gripper=0.5)
    _hold(safety.check('left', _pose(), 0.5, measured=bad, now_ns=1), HoldReason.BAD_INPUT, 'measured')


def test_checking_changes_nothing_until_the_target_is_executed(moving):
    wanted = _pose(_at(z=0.1))
    first = moving.check('left', wanted, 0.5, measured=None, now_ns=PERIOD_NS)
    again = moving.check('left', wanted, 0.5, measured=None, now_ns=PERIOD_NS)
    np.testing.assert_array_equal(first.world_from_ee, again.world_from_ee)
    moving.executed('left', first, PERIOD_NS)
    further = moving.check('left', wanted, 0.5, measured=None, now_ns=2 * PERIOD_NS)
    assert further.world_from_ee[2, 3] == pytest.approx(HOME[2] + 2 * LINEAR * PERIOD_S)


def test_a_short_gap_never_buys_more_than_two_periods(moving):
    got = moving.check('left', _pose(_at(z=0.2)), 0.5, measured=None, now_ns=9 * PERIOD_NS)
    assert got.world_from_ee[2, 3] == pytest.approx(HOME[2] + 2 * LINEAR * PERIOD_S)


def test_two_checks_in_one_instant_do_not_move_further(moving):
    got = moving.check('left', _pose(_at(z=0.2)), 0.5, measured=None, now_ns=0)
    np.testing.assert_allclose(got.world_from_ee, _pose(), atol=1e-12)


@pytest.mark.parametrize('now_ns', [11 * PERIOD_NS, 10**15, -1])
def test_after_a_long_gap_or_a_clock_that_stepped_back_the_next_target_is_a_first_one(now_ns, moving):
    far = _pose(_at(z=0.2))
    _hold(moving.check('left', far, 0.5, measured=_state(), now_ns=now_ns), HoldReason.FAR_FROM_CURRENT)
    near = moving.check('left', _pose(_at(z=0.05)), 0.5, measured=_state(), now_ns=now_ns)
    assert near.world_from_ee[2, 3] == pytest.approx(HOME[2] + LINEAR * PERIOD_S)


def test_after_a_gap_an_arm_that_sagged_goes_on_from_its_last_target_not_from_where_it_sagged_to(moving):
    sagged = _state(_at(z=-0.03))
    got = moving.check('left', _pose(), 0.5, measured=sagged, now_ns=10**12)
    np.testing.assert_allclose(got.world_from_ee, _pose(), atol=1e-12)


def test_after_a_gap_an_arm_that_was_moved_away_starts_from_where_it_is(moving):
    elsewhere = _state(_at(y=0.25))
    got = moving.check('left', _pose(_at(y=0.22)), 0.5, measured=elsewhere, now_ns=10**12)
    np.testing.assert_allclose(got.world_from_ee, _pose(_at(y=0.25 - LINEAR * PERIOD_S)), atol=1e-12)


def test_a_recheck_makes_every_arms_next_target_a_first_one(moving):
    moving.executed('right', SafeTarget(world_from_ee=_pose([0.2, 0.5, 0.2]), gripper=0.5), 0)
    moving.recheck()
    for arm in ('left', 'right'):
        outcome = moving.check(arm, _pose(), 0.5, measured=None, now_ns=PERIOD_NS)
        _hold(outcome, HoldReason.MISSING_STREAM, arm)


def test_arms_are_judged_apart(moving):
    _hold(moving.check('right', _pose(), 0.5, measured=_state([0.2, 0.5, 0.2]), now_ns=PERIOD_NS),
          HoldReason.FAR_FROM_CURRENT, 'right')


def test_unset_bounds_are_named_and_bind_nothing(change):
    free = SafetyFilter(change({
        'safety.linear_speed': None, 'safety.angular_speed': None, 'safety.gripper_speed': None,
        'arms.left.workspace': None}))
    assert len(free.warnings) == 4
    for part in ('linear_speed', 'angular_speed', 'gripper_speed', 'arms.left.workspace'):
        assert any(part in warning for warning in free.warnings)
    free.executed('left', SafeTarget(world_from_ee=_pose(), gripper=0.0), 0)
    wanted = _pose([5.0, 5.0, -5.0], turn=(1, 0, 0))
    got = free.check('left', wanted, 1.0, measured=None, now_ns=PERIOD_NS)
    assert got.clamps is Clamp.NONE
    np.testing.assert_allclose(got.world_from_ee, wanted)


def test_a_contract_with_all_bounds_set_warns_of_nothing(safety):
    assert safety.warnings == ()
