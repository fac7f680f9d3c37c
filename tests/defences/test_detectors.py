"""Detectors score each clip by itself, thresholds keep their rate, and abstentions are counted apart."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from scipy import stats
from tests.support.commands import staanet
from tests.support.speech import RATE, tone

from staanet import audio, storage, training
from staanet.attacks import PGD, Random, craft_batch
from staanet.core import Budget, Untargeted, roc, silent
from staanet.defences import DetectorGated, Undetected
from staanet.defences.detectors import DETECTORS, Learned, build_detector, residuals
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.evaluation.detection import detection_figures
from staanet.results.adversarial_set import AdversarialSet
from staanet.training import adaptive, detectors
from staanet.victims import build_victim, load_victim

LABELS = ("high", "low")


@pytest.fixture(scope="module")
def victim():
    training.seed_weights(0)
    return build_victim("zhao19", LABELS).requires_grad_(False).eval()


def speech(seed: int, seconds: float = 0.4):
    """Two loud stretches and quiet between, in faint noise: what speech is to a detector."""
    time = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    envelope = (np.sin(2 * np.pi * 3 * time + seed) > 0) * 0.3
    wave = envelope * np.sin(2 * np.pi * (200 + 20 * seed) * time)
    return audio.snap(wave + 0.001 * rng.standard_normal(len(time)))


def clips(number: int, start: int = 0) -> list:
    from staanet.core import Clip

    return [
        Clip(f"c{s}", speech(s), RATE, LABELS[s % 2], f"s{s}") for s in range(start, start + number)
    ]


# ---------------------------------------------------------------- roc


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_the_rank_sum(seed):
    rng = np.random.default_rng(seed)
    clean, attacked = rng.integers(0, 6, 30), rng.integers(2, 8, 17)  # many ties
    u = stats.mannwhitneyu(attacked, clean).statistic / (30 * 17)
    assert roc.auroc(clean, attacked) == pytest.approx(u)
    points = roc.roc(clean, attacked)
    assert points[0] == (0, 0) and points[-1] == (1, 1) and points == sorted(points)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.1, 0.5])
def test_no_more_than_the_named_share_is_above_the_threshold(rate):
    scores = np.random.default_rng(0).normal(size=200)
    threshold = roc.threshold_at(scores, rate)
    assert np.mean(scores > threshold) <= rate
    lower = np.sort(scores[scores < threshold])
    assert np.mean(scores > lower[-1]) > rate  # and none lower would do


def test_what_has_no_curve_is_told():
    with pytest.raises(InvalidInput, match="0 clean"):
        roc.roc([], [1.0])
    with pytest.raises(InvalidInput, match="false-positive rate 1"):
        roc.threshold_at([1.0], 1.0)
    with pytest.raises(InvalidInput, match="without clean scores"):
        roc.threshold_at([], 0.1)


# ---------------------------------------------------------------- detectors


def test_residuals_are_those_of_the_least_squares_problem():
    x = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order, padded = 3, torch.nn.functional.pad(x, (3, 3))
    # windows over the clip and both paddings, as the autocorrelation sums them
    wide = torch.nn.functional.pad(x, (6, 6))
    rows = torch.stack(
        [wide[3 - k : 3 - k + 306] + wide[3 + k : 3 + k + 306] for k in (1, 2, 3)], 1
    )
    a = torch.linalg.lstsq(rows, torch.nn.functional.pad(x, (3, 3))).solution
    wanted = x - sum(
        a[k - 1] * (padded[3 - k : 303 - k] + padded[3 + k : 303 + k]) for k in (1, 2, 3)
    )
    assert torch.allclose(residuals(x, order), wanted, atol=1e-4)


def test_one_wrong_sample_stands_out_of_a_tone():
    x = torch.from_numpy(audio.to_float(tone(0.2, 300)))
    clicked = x.clone()
    clicked[1000] += 0.1
    disjoint_by = (residuals(clicked) - residuals(x)).abs()
    assert int(disjoint_by.argmax()) == 1000 and float(residuals(clicked).abs().argmax()) == 1000


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_clip_is_scored_alike_in_any_batch_and_the_score_has_a_gradient(victim, name):
    training.seed_weights(1)
    detector = build_detector(name).eval()
    pair = [c.waveform for c in clips(2)]
    short = pair[1][:5000]
    batch = torch.zeros(2, len(pair[0]))
    batch[0], batch[1, :5000] = pair[0], short
    together = detector(victim, batch, torch.tensor([len(pair[0]), 5000]))
    alone = torch.cat([detector(victim, pair[0][None]), detector(victim, short[None])])
    assert torch.allclose(together, alone, atol=1e-5)
    x = pair[0][None].clone().requires_grad_()
    detector(victim, x).sum().backward()
    assert torch.isfinite(x.grad).all() and float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", sorted(DETECTORS))
@pytest.mark.parametrize(
    "samples", [np.zeros(4000), np.full(4000, 0.1), np.eye(1, 4000, 2000)[0], np.ones(300)]
)
def test_silence_a_click_and_the_shortest_clip_have_a_finite_score(victim, name, samples):
    x = torch.from_numpy(samples.astype(np.float32))[None].requires_grad_()
    score = build_detector(name).eval()(victim, x)
    score.sum().backward()
    assert torch.isfinite(score).all() and torch.isfinite(x.grad).all()


def test_the_residual_detector_does_not_care_for_level(victim):
    x = clips(1)[0].waveform[None]
    detector = build_detector("residual")
    assert float(detector(victim, x)) == pytest.approx(float(detector(victim, 0.2 * x)), abs=1e-3)


def attacked(source, budget, some):
    return [craft_batch(Random(budget=budget), source, [one])[0] for one in some]


def test_sparse_noise_is_seen_by_residuals(victim):
    made = attacked(victim, Budget(epsilon=0.03, max_density=0.2), clips(10))
    target = detectors.gate_victim(
        victim, build_detector("residual"), clips(10, 20), false_positive_rate=0.1
    )
    told = detection_figures("random", target, made)
    assert told["auroc"] > 0.95 and told["detected"]["value"] > 0.9
    assert told["fooled_undetected"]["value"] <= told["fooled"]["value"]


def test_a_stopped_learned_detector_resumes_bit_for_bit(victim, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(what, done, total, figures):
        if what.startswith("train") and done == 5:
            raise StoppedError

    def train(folder, progress=silent):
        training.seed_weights(0)
        made = Learned(8)
        schedule = training.Schedule(
            steps=8, batch_size=2, seconds=0.3, learning_rate=5e-3, evaluate_every=4, noise_db=60.0
        )
        history = detectors.train_detector(
            made,
            victim,
            clips(4),
            clips(3, 10),
            schedule,
            folder,
            budget=Budget(epsilon=0.05, max_density=0.3),
            progress=progress,
        )
        return made, history

    whole, _ = train(tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(tmp_path / "half", stop)
    resumed, _ = train(tmp_path / "half")
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_a_learned_detector_learns(victim, tmp_path):
    training.seed_weights(0)
    schedule = training.Schedule(
        steps=40,
        batch_size=4,
        seconds=0.3,
        learning_rate=5e-3,
        evaluate_every=20,
        noise_db=60.0,
        speed=0.0,
    )
    history = detectors.train_detector(
        Learned(8),
        victim,
        clips(6),
        clips(6, 10),
        schedule,
        tmp_path,
        budget=Budget(epsilon=0.05, max_density=0.3),
    )
    assert history.best_score > 0.9


# ---------------------------------------------------------------- guarded victims


def test_the_aware_view_abstains_just_where_the_guarded_one_does(victim):
    some = clips(8)
    scores = detectors.detector_scores(build_detector("residual"), victim, some)
    target = DetectorGated(victim, build_detector("residual"), threshold=float(np.median(scores)))
    x = torch.stack([c.waveform for c in some])
    assert torch.equal(target.reject_class_view()(x).argmax(dim=1) == 2, target.abstains(x))
    assert target.abstains(x).any() and not target.abstains(x).all()
    assert torch.equal(target(x), victim(x)) and torch.equal(
        target.reject_class_view()(x)[:, :2], victim(x)
    )


def test_to_be_undetected_is_to_be_another_answer_that_is_given():
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    goal = Undetected(torch.arange(200) % 3)
    assert torch.equal(goal.achieved(logits), goal.margin(logits) < 0)
    without = torch.cat([logits[:, :3], torch.full((200, 1), -torch.inf)], dim=1)
    plain = Untargeted(torch.arange(200) % 3)
    assert torch.allclose(goal.margin(without), plain.margin(logits[:, :3]))


def test_who_knows_the_detector_is_seen_less(victim):
    some, budget = clips(3), Budget(epsilon=0.03, max_density=0.2)
    target = detectors.gate_victim(
        victim, build_detector("residual"), clips(10, 20), false_positive_rate=0.1
    )
    attack = adaptive.AdaptivePGD(budget=budget, steps=15)
    made = [craft_batch(attack, target, [one])[0] for one in some]
    blind = attacked(victim, budget, some)

    def score(pairs):
        x = torch.stack([torch.from_numpy(audio.to_float(p.adversarial)) for p in pairs])
        return float(target.detector_score(x).mean())

    assert score(made) < score(blind)
    assert all(budget.violations(p.clean.pcm16, p.adversarial) == [] for p in made)


def test_an_attack_on_loud_stretches_leaves_the_quiet_ones_alone(victim):
    x = torch.stack([c.waveform for c in clips(2)])
    lengths = torch.tensor([x.shape[1], 5000])
    x[1, 5000:] = 0
    loud = adaptive.LoudPartsOnly(victim, x, lengths, quiet=0.3)
    budget = Budget(epsilon=0.03, max_density=0.2)
    x_adv = PGD(budget=budget, steps=3)(
        loud, x, Untargeted(victim(x, lengths).argmax(dim=1)), lengths
    )
    assert torch.equal(x_adv[~loud.mask], x[~loud.mask]) and not torch.equal(x_adv, x)
    share = 1 - float(loud.mask[0].float().mean())
    assert 0.3 <= share < 0.4 and not loud.mask[1, 5000:].any()
    detector = build_detector("residual")
    blind = torch.where(loud.mask, x_adv, x)
    assert torch.equal(detector(victim, x_adv, lengths), detector(victim, blind, lengths))


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_guarded_victim_comes_back_from_its_folder(victim, tmp_path, name):
    training.seed_weights(2)
    target = DetectorGated(
        victim, build_detector(name).eval(), threshold=0.25, scale=2.0, false_positive_rate=0.05
    )
    target.save_pretrained(tmp_path / "g")
    again = load_victim(tmp_path / "g")
    x = torch.stack([c.waveform for c in clips(2)])
    assert isinstance(again, DetectorGated) and again.name == f"zhao19+{name}" and again.may_abstain
    assert torch.equal(again.detector_score(x), target.detector_score(x)) and torch.equal(
        again(x), target(x)
    )
    card = json.loads((tmp_path / "g" / "card.json").read_text())
    card["settings"]["threshold"] = 99.0
    (tmp_path / "g" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InvalidInput, match="sha256"):
        load_victim(tmp_path / "g")


def test_a_matrix_counts_abstentions_apart(victim):
    some = clips(6)
    made = AdversarialSet(
        attacked(victim, Budget(epsilon=0.05, max_density=0.3), some),
        {"attack": "random", "source": "zhao19"},
    )
    scores = detectors.detector_scores(build_detector("residual"), victim, some)
    never = DetectorGated(victim, build_detector("residual"), threshold=99.0, name="never")
    always = DetectorGated(victim, build_detector("residual"), threshold=-99.0, name="always")
    half = DetectorGated(
        victim, build_detector("residual"), threshold=float(np.median(scores)), name="half"
    )
    matrix = transfer_matrix([made], [victim, never, always, half])
    plain = matrix.cell("random", "zhao19", "zhao19")
    assert "abstention" not in plain
    for name, clean in (("never", 0.0), ("always", 1.0), ("half", 0.5)):
        cell = matrix.cell("random", "zhao19", name)
        assert cell["fooling_rate"] == plain["fooling_rate"]  # with and without: both are told
        told = cell["abstention"]
        assert told["clean"]["value"] == clean
        assert told["fooling_rate_answered"]["value"] <= cell["fooling_rate"]["value"]
    assert (
        matrix.cell("random", "zhao19", "always")["abstention"]["fooling_rate_answered"]["value"]
        == 0
    )
    assert (
        matrix.cell("random", "zhao19", "never")["abstention"]["fooling_rate_answered"]
        == plain["fooling_rate"]
    )
    flagged = [f.split(":")[0] for f in matrix.summary["flags"] if "knew its detector" in f]
    assert sorted(flagged) == ["always", "half", "never"]
    json.dumps(matrix.summary, allow_nan=False)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def world(victim, tmp_path_factory):
    root = tmp_path_factory.mktemp("detect")
    victim.save_pretrained(root / "victim")
    for one in clips(12):
        storage.write_bytes(
            root / "speech" / one.label / one.speaker / "0.wav", audio.encode(one.pcm16, RATE)
        )
    return root


def test_the_command_guards_judges_and_says_what_is_not_adaptive(world, tmp_path):
    corpus = f"folder:{world / 'speech'}"
    made = staanet(
        "attack",
        corpus,
        "--attack",
        "random",
        "--source",
        world / "victim",
        "--epsilon",
        0.03,
        "--max-density",
        0.2,
        "--out",
        "a",
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    given = ["detect", corpus, "--victim", world / "victim", "--against", "a", "--out", "g"]
    done = staanet(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "non-adaptive" in done.stdout and "AUROC" in done.stdout
    again = staanet(*given, "--adaptive-clips", 1, "--generator-steps", 2, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["adaptive"] and len(told["attacks"]) == 3
    rows = list(csv.DictReader((tmp_path / "g" / "roc.csv").open()))
    assert {row["attack"] for row in rows} == {a["attack"] for a in told["attacks"]}
    assert (tmp_path / "g" / "roc.png").read_bytes().startswith(b"\x89PNG")
    judged = staanet(
        "evaluate", "a", "--target", "g", "--target", world / "victim", "--out", "r", cwd=tmp_path
    )
    assert judged.returncode == 0, judged.stderr
    cells = json.loads((tmp_path / "r" / "summary.json").read_text())["cells"]
    assert ["abstention" in c for c in cells] == [True, False]


@pytest.mark.parametrize(
    "given, code, said",
    [
        (["--detector", "residul"], 3, "Did you mean 'residual'"),
        (["--false-positive-rate", 1.5], 3, "false_positive_rate: input should be less than 1"),
        (["--against", "nosuch"], 3, "nosuch: no such folder"),
    ],
)
def test_mistakes_are_told_in_a_line(world, tmp_path, given, code, said):
    done = staanet(
        "detect",
        f"folder:{world / 'speech'}",
        "--victim",
        world / "victim",
        "--out",
        "g",
        *given,
        cwd=tmp_path,
    )
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "g").exists()
