"""Maxima in one pass are those of a convolution and a pooling, gradients and winners too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from staanet.nn import conv_maxpool
from staanet.nn.conv_maxpool import max_unpool

SHAPES = [
    # clips, samples, channels, kernel, pool, channels out
    (2, 1003, 5, 8, 10, 2),
    (1, 200, 4, 3, 4, 1),
    (2, 50, 3, 4, 3, 2),
    (1, 97, 2, 9, 2, 3),
    (1, 7, 3, 1, 7, 1),
]


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.double).requires_grad_()


@pytest.fixture(autouse=True, params=[3, 10_000])
def small_and_large_pieces(request, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(conv_maxpool, "FORWARD_FRAMES", request.param)
    monkeypatch.setattr(conv_maxpool, "BACKWARD_FRAMES", request.param)


@pytest.mark.parametrize("batch, time, channels, kernel, pool, out", SHAPES)
def test_forwards_they_are_a_convolution_and_a_pooling(batch, time, channels, kernel, pool, out):
    x, weight, bias = drawn(batch, time), drawn(channels, kernel), drawn(channels)
    padding = (kernel - 1) // 2
    found, argmax = conv_maxpool.conv_maxpool(x, weight, bias, padding, pool)
    wanted, index = F.max_pool1d(
        F.conv1d(x[:, None], weight[:, None], bias, padding=padding), pool, return_indices=True
    )
    assert torch.allclose(found, wanted.transpose(1, 2))
    places = (index - pool * torch.arange(index.shape[2])).transpose(1, 2)
    assert torch.equal(argmax.long(), places)
    pull = torch.randn_like(found)
    ours = torch.autograd.grad((found * pull).sum(), (x, weight, bias))
    exact = torch.autograd.grad((wanted.transpose(1, 2) * pull).sum(), (x, weight, bias))
    assert all(torch.allclose(a, b) for a, b in zip(ours, exact))


@pytest.mark.parametrize("batch, time, channels, kernel, pool, out", SHAPES)
def test_backwards_it_is_a_transposed_convolution(batch, time, channels, kernel, pool, out):
    steps = time // pool
    values, weight = drawn(batch, steps, channels), drawn(channels, out, kernel)
    argmax = torch.randint(0, pool, values.shape)
    spread = max_unpool(
        values.transpose(1, 2)[:, :, None], argmax.transpose(1, 2)[:, :, None], pool
    )
    exact = F.conv_transpose1d(spread[:, :, 0], weight)
    found = conv_maxpool.unpool_conv_transpose(values, argmax.to(torch.uint8), weight, pool)
    assert torch.allclose(found, exact)
    pull = torch.randn_like(found)
    ours = torch.autograd.grad((found * pull).sum(), (values, weight))
    assert all(
        torch.allclose(a, b)
        for a, b in zip(ours, torch.autograd.grad((exact * pull).sum(), (values, weight)))
    )
