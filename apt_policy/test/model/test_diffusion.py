import math

import pytest
import torch

from apt_policy.model.config import Prediction
from apt_policy.model.diffusion import ActionPrefix, chunk_loss, denoise, make_scheduler


def unit_noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_twenty_steps_go_from_95_to_0():
    assert make_scheduler(100, 20).timesteps.tolist() == list(range(95, -1, -5))


def test_the_schedule_is_the_squared_cosine():
    def bar(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    expected, product = [], 1.0
    for i in range(100):
        product *= 1 - min(1 - bar((i + 1) / 100) / bar(i / 100), 0.999)
        expected.append(product)
    assert torch.allclose(make_scheduler(100, 20).alphas_cumprod.double(),
                          torch.tensor(expected, dtype=torch.float64), atol=1e-5)


def perfect_predictor(clean, scheduler, seen=None):
    """Knows the answer, so it predicts exactly the noise that is in its input."""
    def predict(x, step):
        if seen is not None:
            seen.append(x.clone())
        alpha = scheduler.alphas_cumprod[scheduler.timesteps[step]]
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
    return predict


@pytest.mark.parametrize('steps', [1, 7, 20])
def test_a_perfect_predictor_leads_to_the_clean_actions(steps):
    scheduler, clean = make_scheduler(100, steps), unit_noise(2, 2, 6, 10) * 0.3
    out = denoise(perfect_predictor(clean, scheduler), unit_noise(2, 2, 6, 10), scheduler)
    assert torch.allclose(out, clean, atol=1e-4)


@pytest.mark.parametrize('steps', [1, 7, 20])
def test_who_predicts_the_actions_themselves_leads_to_them_too(steps):
    scheduler, clean = make_scheduler(100, steps, Prediction.ACTIONS), unit_noise(2, 2, 6, 10) * 0.3
    out = denoise(lambda x, step: clean, unit_noise(2, 2, 6, 10), scheduler)
    assert torch.allclose(out, clean, atol=1e-5)


def test_no_noise_predicted_scales_the_input_up():
    scheduler, noise = make_scheduler(100, 20), unit_noise(1, 1, 4, 10)
    out = denoise(lambda x, step: torch.zeros_like(x), noise, scheduler)
    assert torch.allclose(out, noise / scheduler.alphas_cumprod[95].sqrt(), rtol=1e-4)


def test_held_actions_leave_unchanged_and_enter_every_step_at_its_noise_level():
    scheduler, noise = make_scheduler(100, 20), unit_noise(1, 2, 6, 10)
    prefix = ActionPrefix(actions=torch.full((1, 2, 2, 10), 0.7), arms=torch.tensor([[True, False]]))
    seen = []
    clean = torch.zeros(1, 2, 6, 10)
    out = denoise(perfect_predictor(clean, scheduler, seen), noise, scheduler, prefix)
    assert torch.equal(out[0, 0, :2], prefix.actions[0, 0])
    # Everything else goes its own way: the free arm, and what follows the prefix.
    assert torch.allclose(out[0, 1], clean[0, 1], atol=1e-4)
    assert torch.allclose(out[0, 0, 2:], clean[0, 0, 2:], atol=1e-4)
    for x, timestep in zip(seen, scheduler.timesteps, strict=True):
        alpha = scheduler.alphas_cumprod[timestep]
        expected = alpha.sqrt() * 0.7 + (1 - alpha).sqrt() * noise[0, 0, :2]
        assert torch.allclose(x[0, 0, :2], expected, atol=1e-6)


def test_the_loss_weighs_position_rotation_and_gripper():
    noise = torch.zeros(1, 1, 4, 10)
    predicted = noise.clone()
    predicted[..., :3], predicted[..., 3:9], predicted[..., 9] = 0.5, -0.25, 2.0
    loss = chunk_loss(predicted, noise, torch.tensor([[True]]))
    assert (float(loss.position), float(loss.rotation), float(loss.gripper)) == (0.5, 0.25, 2.0)
    assert float(loss.total) == 30 * 0.5 + 10 * 0.25 + 10 * 2.0


def test_absent_arms_do_not_count_in_the_loss():
    noise, predicted = unit_noise(2, 2, 4, 10), unit_noise(2, 2, 4, 10) * 0.5
    valid = torch.tensor([[True, False], [True, True]])
    loss = chunk_loss(predicted, noise, valid)
    present = (predicted - noise).abs()[valid]
    assert torch.isclose(loss.position, present[..., :3].mean())
    assert torch.isclose(loss.rotation, present[..., 3:9].mean())
    assert torch.isclose(loss.gripper, present[..., 9].mean())


def test_a_batch_without_any_arm_has_no_loss():
    loss = chunk_loss(unit_noise(1, 2, 4, 10), torch.zeros(1, 2, 4, 10), torch.zeros(1, 2, dtype=torch.bool))
    assert float(loss.total) == 0
