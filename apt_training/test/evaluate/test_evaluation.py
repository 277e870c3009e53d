import numpy as np
import pytest
import torch

from apt_policy.core.actions import pack_state, unpack_state
from apt_policy.model.config import TrainingStage
from apt_policy.model.expert import Expert
from apt_policy.model.policy import predict_states
from apt_training.data.collate import collate
from apt_training.evaluate.evaluation import EvaluationConfig, evaluate, gate_statistics
from apt_training.evaluate.predict import FrameIndex, Predictor, choose_frames, load_batches
from apt_training.evaluate.probe import LanguageFollowing, ProbeAccumulator, swap_instructions

CPU = torch.device('cpu')
ARMS = ('left', 'right')


@pytest.fixture
def dataset(dataset_of, held_out):
    return dataset_of(sorted(held_out.glob('*.h5')))


@pytest.fixture
def run(make_policy, dataset):
    """An evaluation of a small policy."""
    def evaluate_with(stage=TrainingStage.VLA, frames=None, others=(), **changes):
        return evaluate(make_policy(stage), dataset, frames or choose_frames(dataset, 3),
                        config=EvaluationConfig(**{'samples': 3, 'batch_size': 4, **changes}), arms=ARMS, step_s=0.1,
                        others=others)
    return evaluate_with


def test_frames_are_chosen_evenly_and_never_twice(dataset):
    frames = choose_frames(dataset, 4)
    assert [index.frame for index in frames if index.episode == 0] == [1, 3, 6, 8]
    every = choose_frames(dataset, 100)
    assert [index.frame for index in every if index.episode == 2] == list(range(12))


def test_predictions_are_those_of_one_observation_alone_with_its_own_noise(make_policy, dataset):
    policy, frames = make_policy(), choose_frames(dataset, 3)
    [batch] = load_batches(dataset, frames, device=CPU, batch_size=16)
    predicted = Predictor(policy, samples=2, seed=5)(batch.inputs, batch.numbers)
    assert predicted.shape == (9, 2, 6, 2, 17)
    single = collate([dataset.sample_at(frames[4].episode, frames[4].frame)]).to(CPU)
    noise = torch.from_numpy(np.random.default_rng([5, 4]).standard_normal((2, 2, 6, 10), np.float32))
    alone = predict_states(policy.sampler(), policy.vlm(single.images), single.robot, noise)
    assert torch.allclose(predicted[4].float(), alone, rtol=1e-3, atol=1e-3)


def test_the_size_of_a_batch_changes_nothing(run):
    one, four = run(batch_size=1, probed=0).errors, run(batch_size=4, probed=0).errors
    assert one.mean.position == pytest.approx(four.mean.position, rel=1e-3)
    assert one.best.rotation == pytest.approx(four.best.rotation, rel=1e-2)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(run):
    assert run().to_dict() == run().to_dict()
    assert run(seed=1).to_dict()['overall'] != run().to_dict()['overall']


def test_errors_are_those_of_the_predictions_by_hand(make_policy, dataset, run):
    frames = [FrameIndex(episode=1, frame=2)]
    [batch] = load_batches(dataset, frames, device=CPU, batch_size=1)
    predicted = Predictor(make_policy(), samples=3, seed=0)(batch.inputs, batch.numbers)[0].numpy()
    label = dataset.sample_at(1, 2).future
    position = np.linalg.norm(predicted[..., [3, 7, 11]] - label[..., [3, 7, 11]], axis=-1)
    errors = run(frames=frames, probed=0).errors
    assert errors.mean.position == pytest.approx(position.mean(axis=0), rel=1e-5)
    assert errors.best.position == pytest.approx(position[position.mean(axis=(1, 2)).argmin()], rel=1e-5)
    now = unpack_state(dataset.sample_at(1, 2).history[-1])[0][:, :3, 3]
    assert errors.hold.position == pytest.approx(np.linalg.norm(label[..., [3, 7, 11]] - now, axis=-1), rel=1e-4)


def test_the_prior_ignores_the_instruction_and_that_is_measured(run):
    probe = run(TrainingStage.VA_PRIOR).probe
    assert probe.language_following is LanguageFollowing.IGNORES
    assert probe.floor['position'] > 0.1 and probe.moved['position'] < 1e-5 * probe.floor['position']
    assert probe.error_swapped['position'] == pytest.approx(probe.error_own['position'], rel=1e-4)


def test_a_vla_changes_its_plans_with_the_instruction(run):
    probe = run(TrainingStage.VLA).probe
    assert probe.language_following is not LanguageFollowing.IGNORES
    assert probe.instructions > 1 and probe.observations == 9


def test_only_as_many_observations_are_probed_as_asked_for(run):
    assert run(probed=4).probe.observations == 4


def test_instructions_given_are_swapped_in_instead_of_those_of_other_episodes(run):
    assert run(others=('wave', 'pick the cube')).probe.instructions == 2
    assert run(others=('wave',)).probe.instructions == 1


def test_a_single_instruction_cannot_be_probed_and_the_note_says_so(make_policy, dataset_of, held_out):
    dataset = dataset_of([held_out / 'episode_0.h5'])
    result = evaluate(make_policy(), dataset, choose_frames(dataset, 2), arms=ARMS, step_s=0.1,
                      config=EvaluationConfig(samples=2, batch_size=2))
    assert result.probe is None
    assert "no instruction other than 'pick the cube'" in result.probe_note and '--swap-with' in result.probe_note


def test_the_noise_floor_needs_two_samples():
    with pytest.raises(ValueError, match='samples is 1; the probe needs 2 or more'):
        EvaluationConfig(samples=1)


def test_without_noise_all_samples_are_the_same_and_nothing_is_probed(run):
    found = run(noise_scale=0.0)
    assert found.errors.best.position == pytest.approx(found.errors.mean.position, rel=1e-5)
    assert found.probe is None and 'no noise floor' in found.probe_note


def test_a_scale_of_noise_that_cannot_be_is_named():
    with pytest.raises(ValueError, match=r'noise_scale is 1.5; expected 0 '):
        EvaluationConfig(noise_scale=1.5)


def test_no_instruction_is_swapped_for_itself_and_the_seed_decides():
    own = ['a', 'b', 'c'] * 5
    swapped = swap_instructions(own, 'abc', range(15), seed=3)
    assert all(one != other for one, other in zip(own, swapped, strict=True))
    assert swapped == swap_instructions(own, 'abc', range(15), seed=3)
    assert swapped != swap_instructions(own, 'abc', range(15), seed=4)
    assert swapped[7:9] == swap_instructions(own[7:9], 'abc', range(7, 9), seed=3)


def test_the_probe_measures_a_known_displacement_against_a_known_floor():
    def state(x, gripper=0.0):
        pose = np.eye(4)
        pose[0, 3] = x
        return pack_state(pose, gripper)

    # Two samples 20 mm apart; another instruction moves both by 5 mm. The second arm does not count.
    own = np.array([[[[state(0.0), state(9.0)]], [[state(0.02), state(9.0)]]]])
    swapped = np.array([[[[state(0.005), state(1.0)]], [[state(0.025), state(1.0)]]]])
    sums = ProbeAccumulator()
    sums.update(own, swapped, np.array([[[state(0.0, 0.5), state(0.0)]]]), [[True, False]], ['other'])
    probe = sums.compute()
    assert probe.moved['position'] == pytest.approx(0.005) and probe.floor['position'] == pytest.approx(0.02)
    assert probe.ratio == pytest.approx(0.25) and probe.language_following is LanguageFollowing.WEAK
    assert probe.error_own['position'] == pytest.approx(0.01)
    assert probe.error_swapped['position'] == pytest.approx(0.015)
    assert probe.error_own['gripper'] == pytest.approx(0.5)


@pytest.mark.parametrize(('stage', 'rows', 'layers'), [
    (TrainingStage.VLA, [0, 1, 2], [0, 3, 6]), (TrainingStage.VA_PRIOR, [1], [3])])
def test_gates_are_read_from_the_rows_that_are_used(make_policy, stage, rows, layers):
    expert: Expert = make_policy(stage).expert
    gate = expert.dp_head.traj_context_attn.gate
    with torch.no_grad():
        gate.copy_(torch.arange(len(gate))[:, None].float().expand_as(gate))
        gate[:, 0] = 100.0
    levels = gate_statistics(expert)
    assert [level.vlm_layer for level in levels] == layers
    for level, row in zip(levels, rows, strict=True):
        usual = 1 / (1 + np.exp(-row))
        assert level.least == pytest.approx(usual) and level.greatest == pytest.approx(1.0)
        assert level.mean == pytest.approx((usual * (gate.shape[1] - 1) + 1) / gate.shape[1])
