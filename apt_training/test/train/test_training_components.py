"""Optimizer groups, seeds, averages, guards and metrics against values worked out by hand."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from apt_training.train.config import ConfigError, EmaConfig, OptimConfig
from apt_training.train.ema import ExponentialMovingAverage
from apt_training.train.initialize import build_new_policy
from apt_training.train.metrics import RunMetricLogger, TrainingMetrics, read_metrics
from apt_training.train.objective import Objective, micro_batch_seed
from apt_training.train.optim import learning_rate_factor, make_optimizer, parameter_groups, set_learning_rate
from apt_training.train.randomness import restore_random_state, save_random_state, seed_everything
from apt_training.train.trainer import NonFiniteLossError, NonFiniteLossGuard


@pytest.fixture(scope='module')
def objective(synthetic):
    return Objective(build_new_policy(synthetic.make_config({'iterations': 1, 'stage': '1', 'vlm_mode': 'full'}),
                                      torch.device('cpu')))


def test_every_learning_weight_is_in_one_group_and_biases_norms_and_gates_do_not_decay(objective):
    groups = {group['name']: group for group in parameter_groups(objective, OptimConfig(lr=1e-4, vlm_lr=1e-5))}
    placed = [id(p) for group in groups.values() for p in group['params']]
    assert sorted(placed) == sorted(id(p) for p in objective.parameters() if p.requires_grad)
    stack = objective.policy.expert.dp_head.traj_context_attn
    still = {id(p) for p in groups['expert, no decay']['params']}
    assert {id(stack.gate), id(objective.policy.expert.dp_head.arm_id_embed)} <= still
    assert {id(p) for p in objective.policy.expert.parameters() if p.ndim == 1} <= still
    assert groups['expert']['weight_decay'] == 1e-2 and groups['vlm']['weight_decay'] == 1e-10
    assert groups['vlm']['lr'] == 1e-5 and groups['vlm, no decay']['weight_decay'] == 0


def test_the_rate_climbs_to_its_full_value_and_stays(objective):
    climbs = OptimConfig(warmup=4)
    assert [learning_rate_factor(i, climbs, 2000) for i in (0, 1, 3, 4, 1999)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert learning_rate_factor(0, OptimConfig(warmup=0), 1) == 1.0
    config = OptimConfig(lr=1e-4, vlm_lr=1e-5)
    optimizer = make_optimizer(parameter_groups(objective, config))
    for factor in (0.5, 0.25):
        set_learning_rate(optimizer, config, factor)
        assert {group['name'][:3]: group['lr'] for group in optimizer.param_groups} == {
            'exp': 1e-4 * factor, 'vlm': 1e-5 * factor}


def test_the_rate_may_fall_at_the_end():
    config = OptimConfig(warmup=2, cooldown=0.4)
    assert [learning_rate_factor(i, config, 10) for i in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert learning_rate_factor(0, config, 2) == 0.5, 'shorter than both'
    with pytest.raises(ConfigError, match='optim.cooldown is 500; expected a share of the iterations, 0 to 1'):
        OptimConfig(cooldown=500)


def test_a_run_resumed_with_another_learning_rate_has_that_rate(objective):
    begun = make_optimizer(parameter_groups(objective, OptimConfig(lr=1e-3)))
    gone_on = make_optimizer(parameter_groups(objective, OptimConfig(lr=1e-4)))
    gone_on.load_state_dict(begun.state_dict())
    set_learning_rate(gone_on, OptimConfig(lr=1e-4), 1.0)
    assert gone_on.param_groups[0]['lr'] == 1e-4


def test_seeds_of_micro_batches_differ_and_repeat():
    seeds = {micro_batch_seed(seed, index) for seed in range(3) for index in range(1000)}
    assert len(seeds) == 3000 and all(0 <= seed < 2**63 for seed in seeds)


def test_several_noise_samples_are_the_mean_over_noise_of_one_observation(objective, synthetic):
    """With a head that predicts 0 the loss is the mean of the drawn noise itself."""
    micro_batch = synthetic.synthetic_micro_batch(2, seed=0)
    many = Objective(objective.policy, noise_samples=64)(micro_batch, seed=3).detach()
    # E|noise| = sqrt(2 / pi); 64 draws x 2 samples x 2 arms x 4 states.
    assert many[1:].tolist() == pytest.approx([(2 / torch.pi) ** 0.5] * 3, rel=0.05)
    assert float(many[0]) == pytest.approx(float(many[1] * 30 + many[2] * 10 + many[3] * 10))


def test_noise_samples_share_one_run_of_the_vlm(objective, synthetic):
    calls = []
    hook = objective.policy.vlm.register_forward_hook(lambda *_: calls.append(1))
    Objective(objective.policy, noise_samples=8)(synthetic.synthetic_micro_batch(2, seed=0), seed=0)
    hook.remove()
    assert len(calls) == 1


def test_the_average_begins_as_a_copy_and_follows():
    average = ExponentialMovingAverage(EmaConfig(decay=0.75, start=3))
    assert not average.is_active(2) and average.is_active(3) and average.weights is None
    for value in (1.0, 3.0, 3.0):
        average.update({'w': torch.tensor([value])})
    assert average.weights['w'].item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 3)


def test_the_average_equals_a_linear_interpolation_to_the_bit():
    average = ExponentialMovingAverage(EmaConfig(decay=0.9995, start=0))
    weights = [{'a': torch.randn(7, 5), 'b': torch.randn(3).bfloat16()} for _ in range(20)]
    expected = {name: value.float().clone() for name, value in weights[0].items()}
    average.update(weights[0])
    for step in weights[1:]:
        average.update(step)
        for name, value in step.items():
            expected[name].lerp_(value.float(), 1.0 - 0.9995)
    assert all(torch.equal(average.weights[name], value) for name, value in expected.items())


def test_non_finite_losses_end_the_run_only_in_a_row_and_name_their_samples():
    guard = NonFiniteLossGuard(3)
    for _ in range(2):
        guard.record_non_finite(['a/1.h5:3'])
    guard.record_finite()
    guard.record_non_finite(['b/2.h5:4'])
    guard.record_non_finite([])
    with pytest.raises(NonFiniteLossError, match=r'(?s)3 batches in a row.*a/9.h5:1\n  b/2.h5:4'):
        guard.record_non_finite(['a/9.h5:1'])
    assert guard.total == 5


def test_a_run_of_bad_batches_stops_and_saves_nothing_broken(train_here, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r'(?s)3 batches in a row had no finite loss.*invented/batch_4:0'):
        train_here(folder=tmp_path / 'run', iterations=10, save_every=1, bad=[2, 3, 4])
    assert (tmp_path / 'run' / 'latest').read_text() == 'iter_000002\n'


def test_random_states_come_back(tmp_path):
    seed_everything(5)
    save_random_state(tmp_path / 'state.pt')
    drawn = [(random.random(), np.random.rand(), torch.rand(1).item()) for _ in range(2)]
    restore_random_state(tmp_path / 'state.pt')
    assert [(random.random(), np.random.rand(), torch.rand(1).item()) for _ in range(2)] == drawn


METRICS = TrainingMetrics(losses={'total': 1.0}, rate=1e-4, gradient_norm=2.0, samples_per_s=3.0, data_wait=0.1,
                          bad_batches=0, gpu_memory_gb=0.0, gates={'block_00': 0.5})


def test_a_resumed_run_removes_the_metrics_after_its_checkpoint(tmp_path, capfd):
    for start, logged in ((0, (1, 2, 3)), (2, (3, 4))):
        metric_logger = RunMetricLogger(tmp_path, name='run', start=start, iterations=4)
        for iteration in logged:
            metric_logger.log(iteration, METRICS)
        metric_logger.close()
    assert [entry['iteration'] for entry in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert list(Path(tmp_path).glob('events.out.tfevents.*'))
    assert 'run 4/4: loss 1.000' in capfd.readouterr().err
