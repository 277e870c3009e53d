import pytest
import torch
from torch import nn
from torch.nn import functional as F

from apt_policy.model.layers import GatedFeedForward
from apt_policy.model.packed import PackedFeedForward, PackedLinear, can_pack, gelu_tanh, pack

needs_onednn = pytest.mark.skipif(not can_pack(nn.Linear(2, 2)), reason='torch without oneDNN for x86')


@needs_onednn
@pytest.mark.parametrize('bias', [True, False])
def test_a_packed_layer_computes_what_the_plain_one_does(bias):
    plain, x = nn.Linear(48, 80, bias=bias), torch.randn(2, 33, 48)
    with torch.inference_mode():
        assert torch.allclose(PackedLinear(plain)(x), plain(x), atol=1e-5)


@needs_onednn
def test_a_packed_feed_forward_computes_what_the_plain_one_does():
    plain, x = GatedFeedForward(32), torch.randn(1, 66, 32)
    with torch.inference_mode():
        assert torch.allclose(PackedFeedForward(plain)(x), plain(x), atol=1e-5)


@needs_onednn
def test_packing_reaches_every_product_and_leaves_the_original_alone(small_config, random_expert):
    expert = random_expert(small_config())
    twin = pack(expert)
    assert any(isinstance(module, nn.Linear) for module in expert.modules())
    assert not any(isinstance(module, nn.Linear | GatedFeedForward) for module in twin.modules())
    assert twin.dp_head.arm_id_embed is expert.dp_head.arm_id_embed


def test_only_float32_on_the_cpu_is_packed():
    assert not can_pack(nn.Linear(2, 2).to(torch.bfloat16))
    assert not can_pack(nn.Linear(2, 2, device='meta'))


def test_gelu_by_sigmoid_is_the_tanh_form_and_leaves_its_input_alone():
    x = torch.linspace(-12, 12, 1001)
    given = x.clone()
    assert torch.allclose(gelu_tanh(x), F.gelu(x, approximate='tanh'), atol=1e-6)
    assert torch.equal(x, given)
