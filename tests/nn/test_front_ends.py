"""Differentiable front ends equal the transformers library's, and so do their gradients."""

from __future__ import annotations

import pytest
import torch
from tests.support.waveforms import speechlike

from staanet.victims.hugging_face import build_front_end

lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")

EXTRACTORS = {
    "whisper": lambda: lib.WhisperFeatureExtractor(chunk_length=1),
    "whisper_v3": lambda: lib.WhisperFeatureExtractor(feature_size=128, chunk_length=2),
    "ast": lambda: lib.ASTFeatureExtractor(max_length=128, num_mel_bins=64),
    "ast_raw": lambda: lib.ASTFeatureExtractor(max_length=50, num_mel_bins=128, do_normalize=False),
    "wav2vec2": lib.Wav2Vec2FeatureExtractor,
}
LENGTHS = (400, 9_000, 30_000)  # one frame, padded, cut


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_it_equals_the_library_on_short_long_quiet_and_silent_clips(name):
    extractor = EXTRACTORS[name]()
    front_end = build_front_end(extractor)
    clips = [speechlike(length)[0][0] for length in LENGTHS]
    for clip in [*clips, 1e-3 * clips[1], 0 * clips[1]]:
        features = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
        theirs = next(iter(features.values()))
        assert front_end(clip[None]).shape == theirs.shape
        assert torch.allclose(front_end(clip[None]), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ast", "whisper"])
def test_its_gradient_is_that_of_finite_differences(name):
    front_end = build_front_end(EXTRACTORS[name]())
    front_end.filters = front_end.filters.double()
    x = speechlike(1_000, dtype=torch.float64)[0].requires_grad_()
    weights = torch.randn(front_end(x).shape, dtype=x.dtype, generator=torch.manual_seed(0))

    def score(x):
        return (weights * front_end(x)).sum()

    (gradient,) = torch.autograd.grad(score(x), x)
    for index in (0, 311, 555, 801):
        step = torch.zeros_like(x).index_fill_(1, torch.tensor(index), 1e-6)
        with torch.no_grad():
            slope = (score(x + step) - score(x - step)) / 2e-6
        assert gradient[0, index] == pytest.approx(float(slope), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["ast", "whisper"])
def test_silence_has_a_finite_gradient(name):
    x = torch.zeros(1, 1_000, requires_grad=True)
    build_front_end(EXTRACTORS[name]())(x).sum().backward()
    assert torch.isfinite(x.grad).all()
