import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from apt_policy.core.actions import pack_state
from apt_training.evaluate.metrics import (
    HorizonErrorAccumulator,
    best_samples,
    errors_to_dict,
    mean_over_horizon,
    state_errors,
)


def state(translation=(0.0, 0.0, 0.0), turn_deg=0.0, gripper=0.0):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', turn_deg, degrees=True).as_matrix()
    pose[:3, 3] = translation
    return pack_state(pose, gripper)


def batch(states, shape):
    return np.broadcast_to(states, (*shape, 17))


def test_the_error_of_a_known_displacement_is_that_displacement():
    errors = state_errors(state((0.3, 0.0, 0.4), turn_deg=30.0, gripper=0.75), state(gripper=0.25))
    assert errors.position == pytest.approx(0.5)
    assert errors.rotation == pytest.approx(30.0)
    assert errors.gripper == pytest.approx(0.5)


@pytest.mark.parametrize('turn_deg', [1e-6, 1.0, 90.0, 179.0, 180.0])
def test_rotation_error_is_the_angle_of_the_turn(turn_deg):
    assert state_errors(state(turn_deg=turn_deg), state()).rotation == pytest.approx(turn_deg, rel=1e-6)


def test_errors_do_not_depend_on_the_frame_they_are_measured_in():
    random = np.random.default_rng(0)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = Rotation.random(rng=random).as_matrix(), (1.0, -2.0, 3.0)
    first, second = state((0.1, 0.2, 0.3), 20.0), state((0.0, 0.1, 0.0), -35.0)

    def moved(one):
        return np.concatenate([(world @ one[:16].reshape(4, 4)).ravel(), one[16:]])

    here, there = state_errors(first, second), state_errors(moved(first), moved(second))
    assert there.position == pytest.approx(here.position)
    assert there.rotation == pytest.approx(here.rotation)


def test_means_over_the_horizon_are_those_of_closed_forms():
    sums = HorizonErrorAccumulator(horizon=3, arms=1)
    # Two samples, off by 10 and 30 mm along x in growing steps; the arm stays at the origin.
    label = np.stack([state((0.1 * step, 0.0, 0.0)) for step in range(3)])[None, :, None]
    off = [np.stack([state((0.1 * step + offset * step, 0.0, 0.0)) for step in range(3)]) for offset in (0.03, 0.01)]
    sums.update(np.stack(off)[None, :, :, None], label, state()[None, None], [[True]])
    errors = sums.compute()
    assert errors.mean.position[:, 0] == pytest.approx([0.0, 0.02, 0.04])
    assert errors.best.position[:, 0] == pytest.approx([0.0, 0.01, 0.02])
    assert errors.hold.position[:, 0] == pytest.approx([0.0, 0.1, 0.2])
    assert mean_over_horizon(errors.mean, errors.observations)['position'] == pytest.approx(0.02)


def test_the_best_sample_is_chosen_by_position_over_the_valid_arms_together():
    predicted = np.empty((1, 2, 1, 2, 17))
    predicted[0, 0, 0] = [state((0.01, 0.0, 0.0)), state((9.0, 0.0, 0.0))]
    predicted[0, 1, 0] = [state((0.02, 0.0, 0.0)), state((0.0, 0.0, 0.0))]
    errors = state_errors(predicted, state())
    assert best_samples(errors, np.array([[True, True]])).tolist() == [1]
    assert best_samples(errors, np.array([[True, False]])).tolist() == [0]


def test_batches_add_up_to_what_one_batch_gives():
    random = np.random.default_rng(1)
    predicted = np.array([[[[state(random.normal(size=3), random.uniform(0, 180), random.uniform())
                             for _ in range(2)] for _ in range(4)] for _ in range(3)] for _ in range(5)])
    label, now = batch(state((0.1, 0.0, 0.0)), (5, 4, 2)), batch(state(), (5, 2))
    valid = np.array([[True, True], [True, False], [False, True], [True, True], [True, False]])
    whole, parts = HorizonErrorAccumulator(4, 2), HorizonErrorAccumulator(4, 2)
    whole.update(predicted, label, now, valid)
    for part in (slice(0, 2), slice(2, 5)):
        parts.update(predicted[part], label[part], now[part], valid[part])
    for kind in ('mean', 'best', 'hold'):
        for name in ('position', 'rotation', 'gripper'):
            expected = getattr(getattr(whole.compute(), kind), name)
            assert getattr(getattr(parts.compute(), kind), name) == pytest.approx(expected)
    assert whole.compute().observations.tolist() == [4, 3]


def test_an_arm_that_no_observation_has_counts_nowhere_even_where_it_is_nan():
    predicted = np.stack([batch(state((0.2, 0.0, 0.0)), (1, 2, 3)), np.full((1, 2, 3, 17), np.nan)], axis=3)
    sums = HorizonErrorAccumulator(3, 2)
    sums.update(predicted, batch(state(), (1, 3, 2)), batch(state(), (1, 2)), [[True, False]])
    errors = sums.compute()
    assert mean_over_horizon(errors.mean, errors.observations)['position'] == pytest.approx(0.2)
    assert list(errors_to_dict(errors.mean, ('left', 'right'))['position']) == ['left']


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match='observation 1 .* not finite'):
        HorizonErrorAccumulator(1, 1).update(np.stack([batch(state(), (1, 1, 1)), np.full((1, 1, 1, 17), np.inf)]),
                                             batch(state(), (2, 1, 1)), batch(state(), (2, 1)), [[True], [True]])


def test_no_batch_has_no_mean():
    with pytest.raises(ValueError, match='nothing to average'):
        HorizonErrorAccumulator(2, 1).compute()
