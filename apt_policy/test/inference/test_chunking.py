import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from apt_policy.core.geometry import angle_between, interpolate_pose
from apt_policy.core.sample import ArmState, Hold, HoldReason, Target
from apt_policy.inference.chunking import ChunkExecutor, ChunkMode, ensemble_weights
from apt_policy.inference.trajectory import Poses

MS = 1_000_000
TICK_NS = 20 * MS


def _line(make, rows=8, step=0.1, y=0.0):
    """Both arms along x, ``step`` metres a row, from the origin."""
    return [[make.pose(x=step * (k + 1), y=y)] * 2 for k in range(rows)]


def _run(executor, first_ns, last_ns):
    ticks = [executor.target(t) for t in range(first_ns, last_ns + 1, TICK_NS)]
    assert all(isinstance(tick, Target) for tick in ticks), [t for t in ticks if isinstance(t, Hold)][:1]
    return np.array([tick.world_from_ee for tick in ticks]), np.array([tick.gripper for tick in ticks])


def _largest_steps(poses):
    moved = np.linalg.norm(np.diff(poses[..., :3, 3], axis=0), axis=-1)
    return moved.max(), angle_between(poses[:-1, ..., :3, :3], poses[1:, ..., :3, :3]).max()


@pytest.mark.parametrize('mode', ChunkMode)
def test_a_plan_is_interpolated_like_scipy_between_its_rows(make, mode):
    rng = np.random.default_rng(0)
    present = tuple(ArmState(world_from_ee=make.pose(0.1, 0.2, 0.3, (0.3, 0, 0.1)), gripper=opening)
                    for opening in (0.2, 0.9))
    poses, gripper = make.walk(rng, start=present[0].world_from_ee)
    executor = ChunkExecutor(mode=mode)
    assert executor.add_chunk(make.planned(poses, gripper, arms=present), now_ns=0)
    times = np.arange(9) * make.step_ns
    for now_ns in (0, 33 * MS, 100 * MS, 250 * MS, 799 * MS, 800 * MS):
        target = executor.target(now_ns)
        assert target.due_ns == now_ns
        for arm in range(2):
            knots = np.concatenate([present[arm].world_from_ee[None], poses[:, arm]])
            turn = Slerp(times, Rotation.from_matrix(knots[:, :3, :3]))(now_ns).as_matrix()
            place = [np.interp(now_ns, times, knots[:, axis, 3]) for axis in range(3)]
            opening = np.interp(now_ns, times, [present[arm].gripper, *gripper[:, arm]])
            np.testing.assert_allclose(target.world_from_ee[arm, :3, :3], turn, atol=1e-12)
            np.testing.assert_allclose(target.world_from_ee[arm, :3, 3], place, atol=1e-12)
            np.testing.assert_allclose(target.gripper[arm], opening, atol=1e-12)


def test_steps_that_passed_during_inference_are_skipped_and_none_is_replayed(make):
    executor = ChunkExecutor(blend_s=0.0)
    executor.add_chunk(make.planned(_line(make)), now_ns=430 * MS)
    poses, _ = _run(executor, 430 * MS, 800 * MS)
    np.testing.assert_allclose(poses[:, 0, 0, 3], np.arange(430, 801, 20) / 1000, atol=1e-12)


def test_nothing_planned_and_plan_over_are_different_holds(make):
    executor = ChunkExecutor()
    assert executor.target(0).reason is HoldReason.NO_CHUNK
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    assert isinstance(executor.target(800 * MS), Target)
    over = executor.target(1300 * MS)
    assert over.reason is HoldReason.CHUNK_EXPIRED and '0.50 s' in over.detail


def test_a_chunk_of_another_epoch_is_dropped(make):
    executor = ChunkExecutor()
    executor.clear(5)
    assert not executor.add_chunk(make.planned(_line(make), epoch=4), now_ns=0)
    assert not executor.add_chunk(make.planned(_line(make), epoch=6), now_ns=0)
    assert executor.add_chunk(make.planned(_line(make), epoch=5), now_ns=0)
    assert executor.target(0).epoch == 5
    executor.clear(6)
    assert executor.target(0).reason is HoldReason.NO_CHUNK


@pytest.mark.parametrize('mode', ChunkMode)
def test_a_late_older_chunk_never_replaces_a_newer(make, mode):
    executor = ChunkExecutor(mode=mode, blend_s=0.0)
    executor.add_chunk(make.planned(_line(make, y=0.2), stamp_ns=200 * MS), now_ns=300 * MS)
    before = executor.target(400 * MS).world_from_ee
    assert not executor.add_chunk(make.planned(_line(make), stamp_ns=100 * MS), now_ns=310 * MS)
    assert not executor.add_chunk(make.planned(_line(make), stamp_ns=200 * MS), now_ns=310 * MS)
    np.testing.assert_array_equal(executor.target(400 * MS).world_from_ee, before)


@pytest.mark.parametrize('mode', ChunkMode)
@pytest.mark.parametrize('inference_ms', [20, 60, 150, 330])
def test_no_step_at_a_chunk_boundary_is_much_larger_than_the_motion_itself(make, mode, inference_ms):
    rng = np.random.default_rng(1)
    executor = ChunkExecutor(mode=mode, blend_s=0.2)
    origin = Poses.from_arm_states(make.observation().arms)
    poses, waiting = [], None
    for now_ns in range(0, 2000 * MS, TICK_NS):
        if waiting is not None and now_ns >= waiting.chunk.stamp_ns + inference_ms * MS:
            first = not poses
            assert executor.add_chunk(waiting, now_ns=now_ns)
            if first:
                executor.blend_from(origin, now_ns=now_ns)
            waiting = None
        if waiting is None:
            # Every plan is wrong by up to 5 cm and 0.3 rad in its own way.
            offset = make.pose(*rng.uniform(-0.05, 0.05, 3), rotvec=rng.uniform(-0.17, 0.17, 3))
            due_s = now_ns / 1e9 + 0.1 * np.arange(1, 13)
            rows = np.array([[make.pose(z=0.2 * due) @ offset] * 2 for due in due_s])
            prefix = executor.committed_prefix(now_ns, delay_ns=inference_ms * MS)
            if prefix is not None:
                head = len(prefix.gripper)
                rows[:head] = prefix.world_from_ee
                share = np.minimum(np.arange(1, len(rows) - head + 1) / 4, 1.0)[:, None]
                rows[head:] = interpolate_pose(rows[head - 1] @ make.pose(z=0.02), rows[head:], share)
            present = (ArmState(world_from_ee=make.pose(z=0.2 * now_ns / 1e9), gripper=0.0),) * 2
            waiting = make.planned(rows, stamp_ns=now_ns, prefix=prefix, arms=present)
        target = executor.target(now_ns)
        if isinstance(target, Target):
            poses.append(target.world_from_ee)
    moved, turned = _largest_steps(np.array([origin.to_matrices()[0][0], *poses]))
    # The motion itself makes 4 mm a tick. Plans differ by 0.17 m and 0.6 rad at most, and a smoothstep
    # over 0.2 s passes on at most 0.15 of that a tick.
    assert moved < 0.004 + 0.15 * 0.17 and turned < 0.15 * 0.6
    assert len(poses) > 75


def test_a_boundary_without_blending_would_jump(make):
    """The bound of the test above can fail."""
    executor = ChunkExecutor(blend_s=0.0)
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    before = executor.target(180 * MS)
    executor.add_chunk(make.planned(_line(make, y=0.1), stamp_ns=10 * MS), now_ns=200 * MS)
    step = executor.target(200 * MS).world_from_ee - before.world_from_ee
    assert np.linalg.norm(step[0, :3, 3]) > 0.09


def test_blending_starts_where_the_arm_was_and_ends_on_the_new_plan(make):
    executor = ChunkExecutor(blend_s=0.2)
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    was = executor.target(300 * MS).world_from_ee
    executor.add_chunk(make.planned(_line(make, y=0.1), stamp_ns=200 * MS), now_ns=300 * MS)
    np.testing.assert_allclose(executor.target(300 * MS).world_from_ee, was, atol=1e-12)
    half = executor.target(400 * MS).world_from_ee
    np.testing.assert_allclose(half[0, :3, 3], [(0.4 + 0.2) / 2, 0.05, 0], atol=1e-9)
    after = executor.target(500 * MS).world_from_ee
    np.testing.assert_allclose(after[0, :3, 3], [0.3, 0.1, 0], atol=1e-12)


def test_the_first_chunk_blends_in_from_where_the_arms_stand(make):
    standing = (ArmState(world_from_ee=make.pose(y=-0.05, rotvec=(0, 0, 0.2)), gripper=1.0),) * 2
    executor = ChunkExecutor(blend_s=0.2)
    executor.add_chunk(make.planned(_line(make, step=0.01)), now_ns=200 * MS)
    executor.blend_from(Poses.from_arm_states(standing), now_ns=200 * MS)
    poses, gripper = _run(executor, 200 * MS, 440 * MS)
    np.testing.assert_allclose(poses[0, 0], standing[0].world_from_ee, atol=1e-12)
    assert gripper[0, 0] == 1.0 and gripper[-1, 0] == 0.0
    np.testing.assert_allclose(poses[-1, 0], make.pose(x=0.044), atol=1e-12)
    moved, turned = _largest_steps(poses)
    assert moved < 0.15 * 0.06 + 0.002 and turned < 0.15 * 0.2 + 1e-9


def test_the_ensemble_is_the_weighted_mean_of_the_newest_chunks(make):
    rng = np.random.default_rng(2)
    executor = ChunkExecutor(mode=ChunkMode.TEMPORAL_ENSEMBLE, blend_s=0.0, ensemble_size=3)
    plans = [make.planned(*make.walk(rng, rows=12), stamp_ns=k * make.step_ns) for k in range(5)]
    for plan in plans:
        executor.add_chunk(plan, now_ns=plan.chunk.stamp_ns)
    now_ns = 7 * make.step_ns
    target = executor.target(now_ns)
    rows = [(plan.chunk, 7 - k - 1) for k, plan in enumerate(plans)][-3:]
    weights = np.array([0.1, 0.55, 1.0])
    np.testing.assert_allclose(ensemble_weights(3), weights)
    for arm in range(2):
        poses = np.array([chunk.world_from_ee[row, arm] for chunk, row in rows])
        np.testing.assert_allclose(target.world_from_ee[arm, :3, 3],
                                   weights @ poses[:, :3, 3] / weights.sum(), atol=1e-12)
        mean = Rotation.from_matrix(poses[:, :3, :3]).mean(weights=weights).as_matrix()
        np.testing.assert_allclose(target.world_from_ee[arm, :3, :3], mean, atol=1e-9)
        opening = weights @ [chunk.gripper[row, arm] for chunk, row in rows] / weights.sum()
        np.testing.assert_allclose(target.gripper[arm], opening, atol=1e-12)


def test_a_chunk_of_the_ensemble_that_ends_is_faded_out(make):
    executor = ChunkExecutor(mode=ChunkMode.TEMPORAL_ENSEMBLE, blend_s=0.1, ensemble_size=2)
    executor.add_chunk(make.planned(_line(make, rows=4, step=0.0, y=0.5)), now_ns=0)
    executor.add_chunk(make.planned(_line(make, rows=9, step=0.0), stamp_ns=100 * MS), now_ns=100 * MS)
    poses, _ = _run(executor, 100 * MS, 900 * MS)
    assert poses[14, 0, 1, 3] == pytest.approx(0.5 * 0.1 / 1.1)
    assert poses[-1, 0, 1, 3] == 0.0
    assert _largest_steps(poses)[0] < 0.5 * 0.2 * 1.5


@pytest.mark.parametrize('mode', [ChunkMode.NEWEST_BLEND, ChunkMode.TEMPORAL_ENSEMBLE])
def test_only_real_time_chunking_commits(make, mode):
    executor = ChunkExecutor(mode=mode)
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    assert executor.committed_prefix(100 * MS, delay_ns=200 * MS) is None


def test_the_committed_head_is_what_will_be_executed_at_the_next_chunks_rows(make):
    executor = ChunkExecutor(mode=ChunkMode.REAL_TIME)
    assert executor.committed_prefix(0, delay_ns=200 * MS) is None
    rng = np.random.default_rng(3)
    executor.add_chunk(make.planned(*make.walk(rng)), now_ns=0)
    head = executor.committed_prefix(130 * MS, delay_ns=250 * MS)
    assert head.gripper.shape == (3, 2) and head.valid_arms.all()
    for row in range(3):
        due = executor.target((130 + 100 * (row + 1)) * MS)
        np.testing.assert_allclose(head.world_from_ee[row], due.world_from_ee, atol=1e-12)
        np.testing.assert_allclose(head.gripper[row], due.gripper, atol=1e-12)


def test_no_more_is_committed_than_is_planned(make):
    executor = ChunkExecutor(mode=ChunkMode.REAL_TIME)
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    assert len(executor.committed_prefix(0, delay_ns=5000 * MS).gripper) == 7
    assert len(executor.committed_prefix(550 * MS, delay_ns=5000 * MS).gripper) == 2
    assert executor.committed_prefix(760 * MS, delay_ns=5000 * MS) is None


def test_the_committed_head_is_executed_whatever_the_new_chunk_says_there(make):
    executor = ChunkExecutor(mode=ChunkMode.REAL_TIME, blend_s=0.1)
    executor.add_chunk(make.planned(_line(make)), now_ns=0)
    head = executor.committed_prefix(100 * MS, delay_ns=200 * MS)
    fixed, _ = _run(executor, 260 * MS, 300 * MS)
    executor.add_chunk(make.planned(_line(make, y=0.1), stamp_ns=100 * MS, prefix=head), now_ns=260 * MS)
    poses, _ = _run(executor, 260 * MS, 600 * MS)
    np.testing.assert_allclose(poses[:3], fixed, atol=1e-12)
    assert poses[4, 0, 1, 3] > 0.01 and poses[-1, 0, 1, 3] == pytest.approx(0.1)


def test_an_absent_arm_is_not_moved_and_its_target_is_marked(make):
    one = (ArmState(world_from_ee=make.pose(), gripper=0.5), None)
    poses = np.array(_line(make))
    poses[:, 1] = np.nan
    executor = ChunkExecutor(mode=ChunkMode.TEMPORAL_ENSEMBLE, blend_s=0.0)
    executor.add_chunk(make.planned(poses, valid=(True, False), arms=one), now_ns=0)
    target = executor.target(100 * MS)
    assert target.valid_arms.tolist() == [True, False]
    np.testing.assert_allclose(target.world_from_ee[0], make.pose(x=0.1), atol=1e-12)
    assert np.isnan(target.world_from_ee[1]).all() and np.isnan(target.gripper[1])
    executor.add_chunk(make.planned(poses, stamp_ns=20 * MS, valid=(True, False), arms=one), now_ns=100 * MS)
    assert np.isnan(executor.target(100 * MS).world_from_ee[1]).all()
    # It comes back: the older chunks have no say in it, the present arm is still an average.
    executor.add_chunk(make.planned(_line(make, y=0.1), stamp_ns=50 * MS), now_ns=100 * MS)
    target = executor.target(200 * MS)
    assert target.valid_arms.all()
    assert target.world_from_ee[1, 1, 3] == pytest.approx(0.1)
    assert target.world_from_ee[0, 1, 3] == pytest.approx(0.1 * 1.0 / (0.1 + 0.55 + 1.0))


@pytest.mark.parametrize(('arguments', 'named'), [
    ({'blend_s': -0.1}, 'blend_s'), ({'blend_s': float('nan')}, 'blend_s'),
    ({'ensemble_size': 0}, 'ensemble_size')])
def test_arguments_out_of_range_are_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=named):
        ChunkExecutor(**arguments)
