import math

import pytest
import torch

from apt_policy.model.attention import Attention, attend, prope, rope, visibility


def softmax_attention(q, k, v, allowed):
    """In float64, row by row; the oracle."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])):
        b, h, row = index.tolist()
        seen = allowed[b, row].nonzero()[:, 0]
        if len(seen):
            logits = (k[b, h, seen].double() @ q[b, h, row].double()) / math.sqrt(q.shape[-1])
            out[b, h, row] = logits.softmax(0) @ v[b, h, seen].double()
    return out


def random_qkv(rows=5, columns=7, head_dim=8):
    random = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, rows, head_dim, generator=random),
            torch.randn(2, 3, columns, head_dim, generator=random),
            torch.randn(2, 3, columns, head_dim, generator=random))


def test_a_row_with_nothing_to_see_gives_zero():
    q, k, v = random_qkv()
    allowed = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    allowed[0, 3] = allowed[1, 0] = False
    out = attend(q, k, v, visibility(allowed))
    assert torch.all(out[0, :, 3] == 0) and torch.all(out[1, :, 0] == 0)
    assert torch.allclose(out.double(), softmax_attention(q, k, v, allowed), atol=1e-6)


def test_a_whole_batch_with_nothing_to_see_gives_zero_and_no_nan_gradient():
    q, k, v = (t.requires_grad_() for t in random_qkv())
    out = attend(q, k, v, visibility(torch.zeros(2, 5, 7, dtype=torch.bool)))
    assert torch.all(out == 0)
    out.sum().backward()
    assert all(torch.all(t.grad == 0) for t in (q, k, v))


@pytest.mark.parametrize('rows', [1, 5], ids=['one row for all', 'row by row'])
def test_masks_are_those_of_a_plain_softmax(rows):
    q, k, v = random_qkv()
    allowed = torch.ones(2, rows, 7, dtype=torch.bool)
    allowed[0, :, 4:] = False
    out = attend(q, k, v, visibility(allowed))
    assert torch.allclose(out.double(), softmax_attention(q, k, v, allowed.expand(2, 5, 7)), atol=1e-6)


def test_nothing_hidden_needs_no_mask():
    assert visibility(torch.ones(2, 1, 7, dtype=torch.bool)).allowed is None


@pytest.mark.parametrize('head_dim', [8, 16, 64])
def test_rope_turns_interleaved_pairs_of_the_second_half(head_dim):
    positions = torch.tensor([[0, 3, 41]])
    q, k, v = (torch.randn(1, 3, 2, head_dim) for _ in range(3))
    turned_q, turned_k, same_v = rope(positions, head_dim).encode_qkv(q, k, v)
    half = head_dim // 2
    for got, given in ((turned_q, q), (turned_k, k)):
        expected = given.double().clone()
        for token, position in enumerate(positions[0].tolist()):
            for i in range(half // 2):
                angle = position * 1e4 ** (-2 * i / half)
                x0, x1 = given[0, token, :, half + 2 * i].double(), given[0, token, :, half + 2 * i + 1].double()
                expected[0, token, :, half + 2 * i] = x0 * math.cos(angle) - x1 * math.sin(angle)
                expected[0, token, :, half + 2 * i + 1] = x0 * math.sin(angle) + x1 * math.cos(angle)
        assert torch.allclose(got.double(), expected, atol=1e-5)
    assert torch.equal(same_v, v)


def test_rope_logits_depend_on_distance_alone():
    q, k = torch.randn(1, 1, 2, 16), torch.randn(1, 1, 2, 16)
    logits = [(rope(torch.tensor([[a]]), 16).encode_qkv(q, q, q)[0]
               * rope(torch.tensor([[b]]), 16).encode_qkv(k, k, k)[1]).sum(-1) for a, b in ((7, 2), (105, 100))]
    assert torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize('head_dim', [8, 16, 64])
def test_prope_multiplies_groups_of_four_of_the_first_half(head_dim, random_poses):
    poses = random_poses(1, 3)
    q, k, v, o = (torch.randn(1, 6, 2, head_dim) for _ in range(4))
    encoding = prope(poses)
    results = (*encoding.encode_qkv(q, k, v), encoding.decode_output(o))
    half = head_dim // 2
    for got, given, matrix in zip(results, (q, k, v, o), (
            lambda p: p.inverse(), lambda p: p.T, lambda p: p.T, lambda p: p.inverse().T), strict=True):
        assert torch.equal(got[..., half:], given[..., half:])
        for token in range(6):
            turn = matrix(poses[0, token // 2].double())
            for group in range(half // 4):
                part = slice(4 * group, 4 * group + 4)
                expected = given[0, token, :, part].double() @ turn
                assert torch.allclose(got[0, token, :, part].double(), expected, atol=1e-5)


def test_prope_attention_depends_on_relative_poses_alone(random_poses):
    poses, moved_by = random_poses(1, 6, seed=1), random_poses(1, 1, seed=2)
    q, k, v = (torch.randn(1, 6, 2, 16) for _ in range(3))
    outputs = []
    for frame in (poses, moved_by @ poses):
        encoding = prope(frame)
        turned = (t.transpose(1, 2) for t in encoding.encode_qkv(q, k, v))
        out = attend(*turned, visibility(torch.ones(1, 1, 6, dtype=torch.bool)))
        outputs.append(encoding.decode_output(out.transpose(1, 2)))
    assert torch.allclose(*outputs, atol=1e-4)


def test_queries_and_keys_are_normed_before_they_are_turned():
    attention = Attention(32, 2)
    x = torch.randn(1, 3, 32)
    with torch.no_grad():
        attention.q_norm.weight.fill_(2.0)
        q, k, v = attention.project(x, rope(torch.zeros(1, 3, dtype=torch.long), 16))
    assert torch.allclose(q.square().mean(-1), torch.tensor(4.0), atol=1e-3)
    assert torch.allclose(k.square().mean(-1), torch.tensor(1.0), atol=1e-3)
    raw = attention.to_qkv(x).view(1, 3, 3, 2, 16)[:, :, 2].transpose(1, 2)
    assert torch.equal(v, raw)
