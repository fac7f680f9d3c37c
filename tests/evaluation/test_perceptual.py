"""The perceptual panel: best for equal clips, worse with noise, and a reason where there is no score."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import soundfile
from tests.support.speech import RATE, real_speech, tone

from staanet import audio
from staanet.evaluation import perceptual
from staanet.evaluation.perceptual import METRICS, Score, panel, versions

BEST = {
    "pesq_wb": 4.64,
    "stoi": 1.0,
    "zimtohrli_mos": 5.0,
    "dnsmos_change": 0.0,
    "masked_excess": 0.0,
}
OWN = (
    "masked_excess",
    "masked_excess_db",
)  # need no package, know any rate and length; less is better
PACKAGE = {"pesq_wb": "pesq", "stoi": "pystoi", "zimtohrli_mos": "zimtohrli"}


def noisy(clean: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(clean))
    level = math.sqrt(np.square(clean.astype(float)).mean()) * 10 ** (-snr_db / 20)
    return audio.snap((clean + level * noise) / audio.FULL_SCALE)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """The first clip of 4.6 to 5 s: DNSMOS hears it in one window, and judges it quickly."""
    for path in sorted((real_speech("emodb") / "wav").glob("*.wav")):
        if 4.6 * RATE < soundfile.info(path).frames < 5 * RATE:
            return audio.load_samples(path, RATE)
    pytest.skip("EMO-DB without a clip of 4.6 to 5 s")


@pytest.fixture(scope="module")
def panels(speech) -> list[dict[str, Score]]:
    """The clip beside itself, and beside more and more noise."""
    return [panel(speech, noisy(speech, snr), RATE) for snr in (math.inf, 40, 20, 5)]


def scored(name: str, score: Score) -> float:
    needed = [PACKAGE[name]] if name in PACKAGE else ["speechmos", "onnxruntime"]
    needed = [] if name in OWN else needed
    absent = [package for package in needed if versions()[package] is None]
    if absent:
        assert score.value is None and "not installed" in score.reason
        pytest.skip(f"{', '.join(absent)} not installed (extra perceptual)")
    assert score.value is not None, score.reason
    return score.value


@pytest.mark.parametrize("name", sorted({*METRICS} - {*OWN}))
def test_equal_clips_are_best_and_noise_is_heard(name, panels):
    scores = [scored(name, heard[name]) for heard in panels]
    if name in BEST:
        assert scores[0] == pytest.approx(BEST[name], abs=0.01)
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[3]


def test_more_noise_is_above_the_masking_threshold_in_more_bins(panels):
    shares = [heard["masked_excess"].value for heard in panels]
    assert shares[0] == 0 and shares == sorted(shares) and 0.1 < shares[3] <= 1
    assert panels[0]["masked_excess_db"] == Score(
        None, "nothing of the change is above the masking threshold"
    )
    excess = [heard["masked_excess_db"].value for heard in panels[1:]]
    assert excess == sorted(excess) and excess[0] > 0


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_the_masked_excess_needs_no_package_and_knows_no_gain(rate, monkeypatch):
    for package in perceptual.PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    clean = tone(1, 300, level=0.1)
    loud, soft = noisy(clean, 0), noisy(clean, 10)
    one, other = panel(clean, loud, rate, OWN), panel(clean, soft, rate, OWN)
    assert tuple(one) == OWN
    for name in OWN:
        assert one[name].value > other[name].value > 0
        assert panel(2 * clean, 2 * loud, rate, OWN)[name].value == pytest.approx(
            one[name].value, rel=1e-3
        )


def test_the_same_clips_get_the_same_scores(speech, panels):
    perceptual._dnsmos_overall.cache_clear()
    assert panel(speech, noisy(speech, 20), RATE) == panels[2]


def quiet_steps(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-1, 2, length).astype(np.int16)


@pytest.mark.parametrize(
    "clean, adversarial, said",
    [
        (np.zeros(RATE, np.int16), tone(1, 300), "clean clip: digital silence"),
        (tone(1, 300), np.full(RATE, 5, np.int16), "adversarial clip: constant"),
        (np.zeros(0, np.int16), np.zeros(0, np.int16), "0 samples"),
        (tone(1, 300), tone(0.5, 300), "16000 samples in one clip, 8000 in the other"),
    ],
)
def test_a_clip_without_sound_has_a_reason_and_no_score(clean, adversarial, said):
    for score in panel(clean, adversarial, RATE).values():
        assert score.value is None and said in score.reason


@pytest.mark.parametrize("length", [3, 10, 400, 1600, 3999])
def test_a_short_clip_has_a_reason_and_does_not_crash(length):
    clip = tone(1, 300)[:length]
    for name, score in panel(clip, noisy(clip, 20), RATE).items():
        if name == "masked_excess":
            assert score.value is not None and math.isfinite(score.value)
        if name in OWN:
            continue
        assert score.value is None, name
        assert "too short" in score.reason or "not installed" in score.reason


@pytest.mark.parametrize(
    "seconds, name, said",
    [
        (25, "pesq_wb", "too long"),
        (70, "zimtohrli_mos", "too long"),
        (70, "dnsmos_ovrl", "too long"),
    ],
)
def test_a_long_clip_never_reaches_code_that_would_crash(seconds, name, said):
    clip = quiet_steps(seconds * RATE)
    score = perceptual._score(METRICS[name], clip, clip, RATE)
    assert score.value is None and (said in score.reason or "not installed" in score.reason)


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_another_rate_has_a_reason_where_the_model_does_not_know_it(rate):
    clip = tone(3, 300)
    scores = panel(clip, noisy(clip, 20), rate)
    for name in ("pesq_wb", "dnsmos_ovrl", "dnsmos_change"):
        assert scores[name].value is None
        assert "wrong rate" in scores[name].reason or "not installed" in scores[name].reason


@pytest.mark.parametrize("package", sorted(PACKAGE.values()))
def test_an_absent_package_is_a_reason(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    clip = tone(1, 300)
    name = next(n for n, p in PACKAGE.items() if p == package)
    score = perceptual._score(METRICS[name], clip, noisy(clip, 20), RATE)
    assert score.value is None and "pip install 'staanet[perceptual]'" in score.reason


def test_an_absent_wheel_of_dnsmos_is_a_reason(monkeypatch):
    pytest.importorskip("onnxruntime", reason="extra perceptual")
    perceptual._dnsmos_session.cache_clear()
    perceptual._dnsmos_overall.cache_clear()
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    clip = tone(1, 300)
    score = perceptual._score(METRICS["dnsmos_ovrl"], clip, noisy(clip, 20), RATE)
    assert score.value is None and "--no-deps speechmos" in score.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, "raise"])
def test_a_failing_judge_gives_a_reason_never_nan(bad, monkeypatch):
    def judge(clean, adversarial, rate):
        if bad == "raise":
            raise RuntimeError("no\nway")
        return bad

    monkeypatch.setattr(perceptual, "METRICS", {"judge": judge})
    score = panel(tone(1, 300), tone(1, 300, 1), RATE)["judge"]
    assert score.value is None and score.reason and "\n" not in score.reason


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_clip_a_score_is_finite_or_has_a_reason(seed, monkeypatch):
    quick = {name: METRICS[name] for name in PACKAGE}
    monkeypatch.setattr(perceptual, "METRICS", quick)
    rng = np.random.default_rng(seed)
    clip = rng.integers(-1, 2, int(rng.integers(4000, 40_000))).astype(np.int16)
    clip[:: int(rng.integers(2, 999))] = rng.integers(-32_768, 32_767)
    for score in panel(clip, noisy(clip, 10), RATE).values():
        assert (score.value is None) == bool(score.reason)
        assert score.value is None or math.isfinite(score.value)
