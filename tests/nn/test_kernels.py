"""Programs for a GPU answer as torch's own operators do; without one, Triton's interpreter runs them."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before its import
pytest.importorskip("triton", reason="a torch for CPUs comes without Triton")

from torch import nn  # noqa: E402

from staanet.nn import conv_maxpool, kernels  # noqa: E402


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize(
    "batch, channels, time", [(1, 32, 70), (2, 8, 5), (2, 32, 1), (1, 24, 2600), (1, 512, 20)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_are_normalised_as_torch_does(batch, channels, time, dtype):
    norm = nn.GroupNorm(channels // 8, channels).to(DEVICE)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + drawn(batch, channels, 1, time + 2)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)[..., :time]
    bias = drawn(channels, seed=1)
    with torch.no_grad():
        found = kernels.group_norm_relu(x, bias, norm)
        with_eot = F.relu(norm(x.float() + bias[:, None, None]))
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(
        found.float(), with_eot, atol=1e-4, rtol=0 if dtype == torch.float32 else 1e-2
    )


@pytest.mark.parametrize(
    "batch, channels, time, kernel, pool", [(2, 64, 500, 8, 10), (1, 5, 333, 6, 3)]
)
def test_the_first_features_are_convolved_and_pooled_as_on_a_cpu(
    batch, channels, time, kernel, pool
):
    padded, weight = drawn(batch, time), drawn(channels, kernel, seed=1)
    padded[0, 40:80] = 0.0  # ties: the first wins
    steps = (time - kernel + 1) // pool
    found = kernels.conv_maxpool(padded, weight, pool, steps)
    with_eot = conv_maxpool._conv_maxpool_in_pieces(padded.cpu(), weight.cpu(), pool, steps)
    assert torch.allclose(found[0].cpu(), with_eot[0], atol=1e-5)
    assert (found[1].cpu() == with_eot[1]).float().mean() > 0.999
    frames = padded[0].cpu().unfold(0, pool + kernel - 1, pool)
    silent = ~frames.any(dim=1)
    assert (
        silent.any() and not found[0][0].cpu()[silent].any() and not found[1][0].cpu()[silent].any()
    )


def test_what_is_not_a_number_wins_its_maximum():
    padded = drawn(1, 30)
    padded[0, 14] = torch.nan
    found, _ = kernels.conv_maxpool(padded, torch.ones(2, 1, device=DEVICE), 10, 3)
    assert torch.isnan(found[0, :, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize("out", [1, 2])
def test_the_way_back_through_winners_is_that_of_a_cpu(out):
    values, weight = drawn(2, 45, 6), drawn(6, out, 8, seed=1)
    argmax = torch.randint(0, 10, values.shape, generator=torch.Generator().manual_seed(2)).byte()
    found = kernels.unpool_rows(values, argmax.to(DEVICE), weight, 10).cpu()
    with_eot = conv_maxpool._unpool_rows(values.cpu(), argmax, weight.cpu(), 10)
    assert found.shape == with_eot.shape and torch.allclose(found, with_eot, atol=1e-5)


def test_a_program_that_is_tried_first_answers():
    assert kernels._compiles_on.__wrapped__(torch.device(DEVICE))


def test_they_are_asked_on_a_gpu_alone_and_where_no_gradient_is_wanted():
    norm, x = nn.GroupNorm(2, 16).to(DEVICE), drawn(1, 16, 1, 9)
    with torch.no_grad():
        assert kernels.is_available(x) == kernels.can_normalise(x, norm) == (DEVICE == "cuda")
    assert not kernels.can_normalise(x, norm)
