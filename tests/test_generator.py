"""The network is the published one, aligned with its input, and blind to padding."""

from __future__ import annotations

import pytest
import torch

from staanet.errors import InvalidInput
from staanet.generator import (
    GENERATORS,
    Generator,
    build_generator,
    load_generator,
    save_generator,
)


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
    assert sorted(shifts)[2] <= 8


def test_a_shift_by_one_coarsest_frame_moves_the_output_by_as_much():
    torch.manual_seed(0)
    generator = Generator(features=8, levels=3).eval()
    step, time = 16, 4096
    x = torch.zeros(1, time)
    x[0, 1000:1100] = torch.randn(100, generator=torch.Generator().manual_seed(2)) * 0.1
    with torch.inference_mode():
        before, after = generator(x), generator(torch.roll(x, step, dims=1))
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(torch.roll(a, step, dims=1)[:, 500:3500], b[:, 500:3500], atol=1e-4)


def test_a_padded_batch_gives_what_single_clips_give():
    torch.manual_seed(0)
    generator = build_generator("small").eval()
    lengths = [3000, 5001, 4096]
    clips = [torch.randn(1, n) * 0.1 + 0.05 for n in lengths]
    batch = torch.zeros(3, max(lengths))
    for row, one in enumerate(clips):
        batch[row, : one.shape[1]] = one
    with torch.inference_mode():
        together = generator(batch, torch.tensor(lengths))
        for row, one in enumerate(clips):
            for whole, single in zip(together, generator(one), strict=True):
                assert torch.allclose(whole[row, : lengths[row]], single[0], atol=2e-4)


def test_an_untrained_small_generator_moves_samples_by_most_of_epsilon():
    torch.manual_seed(0)
    with torch.inference_mode():
        magnitude = build_generator("small").eval()(torch.randn(4, 8192) * 0.1).magnitude
    assert magnitude.abs().mean() > 0.4


def test_silence_gives_finite_numbers_and_a_finite_gradient():
    torch.manual_seed(0)
    generator = build_generator("small").train()
    magnitude, position = generator(torch.zeros(1, 4096))
    (magnitude.sum() + position.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters() if p.grad is not None)


def test_a_saved_generator_is_the_same_function(tmp_path):
    torch.manual_seed(0)
    generator = build_generator("small").eval()
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
