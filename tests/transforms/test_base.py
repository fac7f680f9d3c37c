"""What every transform promises: shape, range, padding, gradient, and its text."""

from __future__ import annotations

import pytest
import torch
from tests.support.waveforms import generator, speechlike

from staanet.errors import InvalidInput
from staanet.transforms import TRANSFORMS, Transform, parse_transform, straight_through

NAMES = sorted(TRANSFORMS)


@pytest.mark.parametrize("name", NAMES)
def test_shape_range_padding_and_the_clip_alone(name):
    transform = parse_transform(name)
    x, lengths = speechlike(1600, 1111)
    x[0, 100:140] = 1.0  # loud enough for ringing and noise to leave [-1, 1]
    found = transform(x, lengths, generator())
    assert isinstance(transform, Transform)
    assert found.shape == x.shape and found.dtype == x.dtype
    assert found.abs().max() <= 1 and not found[1, 1111:].any()
    if not transform.is_random:  # a draw depends on the order of the rows; Defended sees to that
        alone = transform(x[1:, :1111], None)
        assert torch.allclose(found[1:, :1111], alone, atol=1e-6)
        assert torch.equal(found, transform(x, lengths))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_is_finite_on_sound_and_on_silence(name):
    transform = parse_transform(name)
    for x in (speechlike(800)[0], torch.zeros(1, 800)):
        x.requires_grad_()
        transform(x, None, generator()).square().sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", [n for n in NAMES if TRANSFORMS[n].has_exact_gradient])
def test_an_exact_gradient_is_the_slope(name):
    transform = parse_transform(name)
    x = speechlike(200, dtype=torch.float64)[0]
    weight = torch.randn(1, 200, generator=generator(1), dtype=torch.float64)

    def function(y):
        return (weight * transform(y, None, generator())).sum()

    (gradient,) = torch.autograd.grad(function(x.requires_grad_()), x)
    step = 1e-7 * torch.randn(1, 200, generator=generator(2), dtype=torch.float64)
    found = float(function(x.detach() + step) - function(x.detach() - step)) / 2
    assert found == pytest.approx(float((gradient * step).sum()), rel=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if not TRANSFORMS[n].has_exact_gradient])
def test_what_rounds_passes_the_gradient_of_the_identity(name):
    x = speechlike(800)[0].requires_grad_()
    weight = torch.randn(1, 800, generator=generator())
    (weight * parse_transform(name)(x)).sum().backward()
    assert torch.equal(x.grad, weight)


def test_straight_through_passes_gradcheck_where_it_is_the_identity():
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: straight_through(y, y.clone()), (x,))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back(name):
    transform = parse_transform(name)
    assert parse_transform(str(transform)) == transform


@pytest.mark.parametrize(
    "text, said",
    [
        ("medain:3", "Did you mean 'median'"),
        ("median:4", "even"),
        ("median:x", "whole number"),
        ("median:3,5", "1 settings"),
        ("median:widht=3", "Did you mean 'width'"),
        ("quantise:1", "from 2 to 16"),
        ("bandpass:3400-300", "empty"),
        ("noise:nan", "not a number"),
        ("gsm:3", "0 settings"),
        ("mp4", "Did you mean 'mp3'?"),
        ("", "unknown transform ''"),
        ("mp3:", "kbps is ''"),
        ("mp3:loud", "whole number"),
        ("mp3:64.5", "whole number"),
        ("mp3:9000", "from 8 to 320"),
        ("gain:nan", "not a number"),
        ("gain:70", "from -60 to 60"),
        ("rir:inf", "not a number"),
        ("resample:0", "hz is 0"),
        ("median:", "whole number"),
    ],
)
def test_a_wrong_setting_is_told(text, said):
    with pytest.raises(InvalidInput) as error:
        parse_transform(text)
    assert said in str(error.value) and error.value.remedy


@pytest.mark.parametrize(
    "text, command",
    [("adversarial:runs/hard", "staanet harden"), ("detector:residual", "staanet detect")],
)
def test_what_is_no_transformation_names_the_command_that_makes_it(text, command):
    with pytest.raises(InvalidInput) as error:
        parse_transform(text)
    assert command in error.value.remedy and "no transform of the input" in str(error.value)


@pytest.mark.parametrize("time", [1, 2, 16, 17, 30])
def test_the_shortest_clips_pass_through_every_defence(time):
    for name in NAMES:
        found = parse_transform(name)(torch.full((1, time), 0.1), None, generator())
        assert found.shape == (1, time) and torch.isfinite(found).all(), name
