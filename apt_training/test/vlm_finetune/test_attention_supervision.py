"""Loss of the attention supervision, against numbers worked out from the attention of a model."""

import math

import pytest
import torch
from torch.nn import functional as F

from apt_policy.model.config import TAP_STRIDE, TrainingStage
from apt_policy.model.fusion import block_kind
from apt_policy.model.scene import BlockKind
from apt_policy.model.vlm.tiny import tiny_config, tiny_model, tiny_tokenizer
from apt_training.vlm_finetune.attention_supervision import AttentionSupervision, supervised_layer

TOKENS = 12


@pytest.fixture
def model():
    return tiny_model(tiny_config(tiny_tokenizer()))


@pytest.fixture
def attention(model):
    """Untrained supervision after a forward pass over two rows of tokens."""
    attention = AttentionSupervision(model)
    model(input_ids=torch.arange(2 * TOKENS).view(2, TOKENS) % 200)
    return attention


def layer_of(model):
    return model.model.language_model.layers[supervised_layer(len(model.model.language_model.layers))]


def attention_of(model):
    """(B, heads, L, L) of the layer that points, computed from its own projections."""
    layer = layer_of(model)
    seen = []
    hook = layer.self_attn.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    model(input_ids=torch.arange(2 * TOKENS).view(2, TOKENS) % 200)
    hook.remove()
    attend, (cos, sin) = layer.self_attn, seen[0]['position_embeddings']

    def heads(norm, project):
        x = norm(project(seen[0]['hidden_states']).unflatten(-1, (-1, attend.head_dim))).transpose(1, 2)
        half = attend.head_dim // 2
        return x * cos[:, None] + torch.cat([-x[..., half:], x[..., :half]], -1) * sin[:, None]

    query, key = heads(attend.q_norm, attend.q_proj), heads(attend.k_norm, attend.k_proj)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.transpose(2, 3) * attend.head_dim ** -0.5
    future = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
    return F.softmax(scores.masked_fill(future, -torch.inf), -1)


def test_the_loss_is_the_logarithm_of_the_attention_share_plus_the_distance_in_decimetres(model, attention):
    asked = torch.tensor([[0, 9], [1, 11], [1, 5]])
    shown = torch.zeros(3, TOKENS, dtype=torch.bool)
    shown[0, [1, 2]] = shown[1, 4] = True
    meant_at = torch.full((3, 3), torch.nan)
    meant_at[2] = torch.tensor([0.1, -0.2, 0.3])
    loss = attention.loss(asked, shown, meant_at)
    with torch.no_grad():
        attention = attention_of(model)
    heads = attention.shape[1] // 2
    first, second = attention[0, :heads, 9, 1:3].sum(-1), attention[1, :heads, 11, 4]
    looked = -(first.log().mean() + second.log().mean()) / 2
    assert loss.item() == pytest.approx(looked.item() + 1 + 2 + 3, rel=1e-4)


def test_a_position_is_predicted_from_the_layer_s_output(model):
    attention = AttentionSupervision(model)
    torch.nn.init.normal_(attention.place.weight)
    given = []
    layer_of(model).register_forward_hook(lambda *call: given.append(call[-1]))
    model(input_ids=torch.arange(2 * TOKENS).view(2, TOKENS) % 200)
    x = given[0][1, 7]
    expected = (x / x.pow(2).mean().sqrt()) @ attention.place.weight.T - 10 * torch.tensor([0.1, 0.2, 0.3])
    shown = torch.zeros(1, TOKENS, dtype=torch.bool)
    loss = attention.loss(torch.tensor([[1, 7]]), shown, torch.tensor([[0.1, 0.2, 0.3]]))
    assert loss.item() == pytest.approx(expected.abs().sum().item(), rel=1e-4)


@pytest.mark.parametrize('layers', [10, 28, 36])
def test_the_layer_that_points_is_a_tap_behind_which_actions_read_language(layers):
    tap, rest = divmod(supervised_layer(layers), TAP_STRIDE)
    last = len(range(0, layers, TAP_STRIDE)) - 1
    assert rest == 0 and tap < last and block_kind(TrainingStage.VLA, tap + 1) is BlockKind.READING


def test_no_attention_on_the_target_has_a_large_and_finite_loss(attention):
    shown = torch.zeros(1, TOKENS, dtype=torch.bool)
    shown[0, 11] = True
    loss = attention.loss(torch.tensor([[0, 3]]), shown, torch.full((1, 3), torch.nan))
    assert loss.item() == pytest.approx(-math.log(1e-6))


def test_no_question_has_a_loss_of_nothing_and_finite_gradients(attention):
    nobody = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, TOKENS, dtype=torch.bool), torch.zeros(0, 3)
    loss = attention.loss(*nobody)
    loss.backward()
    assert loss.item() == 0 and torch.equal(attention.place.weight.grad, torch.zeros_like(attention.place.weight))


def test_a_detached_model_attends_as_before(model):
    before = model.model.language_model.config._attn_implementation
    attention = AttentionSupervision(model)
    attention.attach(model)
    assert model.model.language_model.config._attn_implementation == 'eager' and model.pointer is attention.place
    attention.detach(model)
    model(input_ids=torch.zeros(1, 4, dtype=torch.long))
    assert model.model.language_model.config._attn_implementation == before and not hasattr(model, 'pointer')
    assert not attention._attention and not attention._outputs
