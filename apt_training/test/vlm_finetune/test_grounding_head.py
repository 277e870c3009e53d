"""Loss of the grounding head, against numbers worked out by hand."""

import math

import pytest
import torch

from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer
from apt_training.vlm_finetune.grounding_head import GroundingHead

WORDS, RARE = 2, -3.0


@pytest.fixture
def grounding():
    """Untrained head after a forward pass over an image of four tokens."""
    grounding = GroundingHead(tiny_model(tiny_config(tiny_tokenizer())), WORDS)
    with torch.no_grad():
        grounding.visual(torch.randn(16, 3 * 2 * 16 * 16), grid_thw=torch.tensor([[1, 4, 4]]))
    return grounding


def test_a_word_costs_its_cross_entropy_and_a_place_its_distance_in_decimetres(grounding):
    marks = torch.tensor([[True, False], [False, False], [True, True], [False, False]])
    places = torch.full((4, 3), torch.nan)
    places[0], places[2] = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.0, 0.0, 0.4])
    yes, no = math.log1p(math.exp(-RARE)), math.log1p(math.exp(RARE))
    assert grounding.loss(marks, places).item() == pytest.approx((3 * yes + 5 * no) / 4 + (1 + 2 + 3 + 4) / 2, rel=1e-5)


def test_without_places_only_words_cost(grounding):
    assert grounding.loss(torch.zeros(4, WORDS, dtype=torch.bool), None).item() == pytest.approx(
        WORDS * math.log1p(math.exp(RARE)), rel=1e-5)


def test_a_picture_that_shows_nothing_has_a_finite_loss_and_gradient(grounding):
    grounding.visual(torch.randn(16, 3 * 2 * 16 * 16), grid_thw=torch.tensor([[1, 4, 4]]))
    loss = grounding.loss(torch.zeros(4, WORDS, dtype=torch.bool), torch.full((4, 3), torch.nan))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(grounding.head.weight.grad).all()
