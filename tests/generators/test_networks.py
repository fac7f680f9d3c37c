"""The network is the published one, aligned with its input, and blind to padding."""

from __future__ import annotations

import pytest
import torch

from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.registry import GENERATORS, build_generator, load_generator, save_generator
from staanet.generators.wave_u_net import WaveUNet


def test_the_paper_network_has_the_published_size():
    generator = build_generator("paper")
    assert sum(weight.numel() for weight in generator.parameters()) == 50_681_858
    widths = [down.before_skip.conv.out_channels for down in generator.downs]
    assert [*widths, generator.position.bottleneck.conv.out_channels] == [
        32,
        64,
        128,
        256,
        512,
        1024,
    ]


@pytest.mark.parametrize("name", sorted(GENERATORS))
@pytest.mark.parametrize("time", [1, 5, 4096, 5001])
def test_any_length_comes_out_as_it_went_in(name, time):
    if name == "paper" and time > 4096:
        pytest.skip("one length is enough for the large network")
    torch.manual_seed(0)
    generator = build_generator(name).eval()
    with torch.inference_mode():
        magnitude, position = generator(torch.randn(2, time) * 0.1)
    assert magnitude.shape == position.shape == (2, time)
    assert (magnitude.abs() <= 1).all() and (position >= 0).all() and (position <= 1).all()
    assert torch.isfinite(magnitude).all() and torch.isfinite(position).all()


def peak_shift(generator: Generator, place: int, time: int = 16_384) -> int:
    """Where the output reacts most to an impulse at ``place``, less ``place``."""
    quiet = torch.randn(1, time, generator=torch.Generator().manual_seed(1)) * 0.01
    loud = quiet.clone()
    loud[0, place] += 1.0
    with torch.inference_mode():
        difference = (generator(loud).magnitude - generator(quiet).magnitude).abs()[0]
    total = torch.nn.functional.avg_pool1d(difference[None, None], 9, 1, 4)[0, 0]
    return int(total.argmax()) - place


@pytest.mark.parametrize("place", [3000, 3001, 8191, 12_345])
def test_output_is_aligned_with_input_sample_by_sample(place):
    shifts = []
    for seed in range(5):  # untrained weights may by chance react more strongly beside the impulse
        torch.manual_seed(seed)
        shifts.append(abs(peak_shift(build_generator("small").eval(), place)))
    assert sorted(shifts)[2] <= 20  # a few kernels; the published code is off by 6140


def test_frame_j_of_a_coarser_level_is_centred_on_frame_4j():
    generator = build_generator("small")
    down, up = generator.downs[0].shrink.conv, generator.magnitude.ups[-1].stretch.conv
    for conv in (down, up):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
        conv.weight.data[0, 0, 0, 2] = 1.0  # the middle of the kernel alone
    x = torch.arange(1.0, 101.0).reshape(1, 1, 1, 100).repeat(1, 16, 1, 1)
    with torch.no_grad():
        coarse = down(x)
        assert torch.equal(coarse[0, 0, 0], torch.arange(1.0, 101.0, 4.0))
        fine = up(coarse)[0, 0, 0]
    assert torch.equal(fine[::4], coarse[0, 0, 0]) and fine.sum() == coarse[0, 0].sum()


@pytest.mark.parametrize("fold, step", [(1, 16), (16, 256)])
def test_speech_that_comes_later_is_changed_later_by_as_much(fold, step):
    torch.manual_seed(0)
    generator = WaveUNet(features=16, levels=3, fold=fold, gain=2.0).eval()
    x = torch.zeros(1, 16_384)
    x[0, 8000:8100] = torch.randn(100, generator=torch.Generator().manual_seed(2)) * 0.1
    with torch.inference_mode():
        before, after = generator(x), generator(torch.roll(x, step, dims=1))
    near = slice(6000, 10_000)  # away from the ends, where zeros are padded
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(torch.roll(a, step, dims=1)[:, near], b[:, near], atol=1e-3)


@pytest.mark.parametrize("name", ["small", "compact", "backward_net"])
def test_a_padded_batch_gives_what_single_clips_give(name):
    torch.manual_seed(0)
    generator = build_generator(name).eval()
    for layer in getattr(generator, "skip", []):  # they begin at zero
        torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(layer.bias, std=0.1)
    lengths = [3000, 5001, 4096, 100]
    clips = [torch.randn(1, n) * 0.1 + 0.05 for n in lengths]
    batch = torch.zeros(4, max(lengths))
    for row, one in enumerate(clips):
        batch[row, : one.shape[1]] = one
    with torch.inference_mode():
        together = generator(batch, torch.tensor(lengths))
        for row, one in enumerate(clips):
            for whole, single in zip(together, generator(one), strict=True):
                assert torch.allclose(whole[row, : lengths[row]], single[0], atol=2e-4)


@pytest.mark.parametrize("name", ["small", "compact"])
def test_an_untrained_generator_moves_samples_by_most_of_epsilon_and_never_saturates(name):
    torch.manual_seed(0)
    generator = build_generator(name).eval()
    x = torch.randn(4, 8192) * 0.1
    with torch.inference_mode():
        assert generator(x).magnitude.abs().mean() > 0.6
        generator.magnitude.output.weight.mul_(1000)  # an output that has grown out of hand
        grown = generator(x).magnitude.abs()
    assert (grown < 0.99).float().mean() > 0.2


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7])
@pytest.mark.parametrize("name", ["small", "compact", "backward_net"])
def test_a_built_in_density_is_kept_in_every_clip_alone_and_padded(name, density):
    torch.manual_seed(0)
    generator = build_generator(name, density).eval()
    lengths = torch.tensor([3000, 5001])
    x = torch.randn(2, 5001) * 0.1
    x[0, 3000:] = 0
    with torch.inference_mode():
        mask = generator(x, lengths).mask()
    for row, length in enumerate(lengths):
        assert int(mask[row, :length].sum()) == int(density * length)


def test_the_paper_network_has_no_built_in_density():
    assert build_generator("paper", 0.2).density is None and build_generator("paper").gain is None


def test_silence_gives_finite_numbers_and_a_finite_gradient():
    torch.manual_seed(0)
    generator = build_generator("small").train()
    magnitude, position = generator(torch.zeros(1, 4096))
    (magnitude.sum() + position.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["small", "backward_net"])
def test_a_saved_generator_is_the_same_function(name, tmp_path):
    torch.manual_seed(0)
    generator = build_generator(name).eval()
    save_generator(generator, tmp_path / "g", note="kept")
    x = torch.randn(1, 4000) * 0.1
    with torch.inference_mode():
        for a, b in zip(generator(x), load_generator(tmp_path / "g")(x), strict=True):
            assert torch.equal(a, b)


def test_a_mistyped_network_is_named():
    with pytest.raises(InvalidInput, match="Did you mean 'small'"):
        try:
            build_generator("smal")
        except InvalidInput as error:
            raise InvalidInput(str(error)) from None
