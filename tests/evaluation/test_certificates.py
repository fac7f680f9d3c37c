"""Certificates agree with closed forms, with enumeration, and with attacks that cannot break them."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.support.commands import staanet
from tests.support.models import LinearVictim
from tests.support.speech import RATE, clip, tone

from staanet import storage
from staanet.core import Clip
from staanet.errors import InvalidInput
from staanet.evaluation import certificates
from staanet.evaluation.certificates import Votes
from staanet.transforms import noise as noises
from staanet.transforms.noise import Ablation, Gaussian


@pytest.mark.parametrize(
    "length, seen, changed", [(10, 3, 2), (500, 100, 7), (48_000, 9_600, 12), (9, 9, 1)]
)
def test_delta_is_the_hypergeometric_one(length, seen, changed):
    none_seen = stats.hypergeom(length, changed, seen).pmf(0)
    assert noises.hit_probability(length, seen, changed) == pytest.approx(1 - none_seen, rel=1e-9)


@pytest.mark.parametrize("length, keep", [(11, 0.3), (400, 0.25), (48_000, 0.3)])
@pytest.mark.parametrize("votes", [0.51, 0.7, 0.95, 1.0])
def test_the_radius_of_ablation_is_the_last_that_the_theorem_allows(length, keep, votes):
    noise = Ablation(keep=keep)
    rho, seen = int(noise.radius(votes, length)), noise.kept_samples(length)
    assert votes - noises.hit_probability(length, seen, rho) > 0.5
    assert votes - noises.hit_probability(length, seen, rho + 1) <= 0.5


def test_lines_between_samples_are_those_of_numpy():
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.stack(
        [
            torch.randperm(50, generator=torch.Generator().manual_seed(s))[:7].sort().values
            for s in range(3)
        ]
    )
    wanted = [np.interp(np.arange(50), p, row[p]) for p, row in zip(places.numpy(), x.numpy())]
    assert np.allclose(noises.interpolate(x, places), wanted)


def test_what_ablation_shows_depends_on_the_samples_seen_alone():
    noise, x = Ablation(keep=0.2), torch.randn(1, 100)
    shown = noise(x, torch.Generator().manual_seed(3))
    unseen = (shown != x)[0]
    assert int((~unseen).sum()) >= noise.kept_samples(100)
    other = torch.where(unseen, torch.randn(1, 100), x)
    assert torch.equal(noise(other, torch.Generator().manual_seed(3)), shown)


def on_a_line(distance: float, length: int = 400) -> tuple[LinearVictim, torch.Tensor]:
    """A linear victim and a clip at that L2 distance from its boundary."""
    weight = torch.randn(length, generator=torch.Generator().manual_seed(1))
    across = torch.randn(length, generator=torch.Generator().manual_seed(2))
    along = weight / weight.norm()
    return LinearVictim(weight), distance * along + 0.01 * (across - across @ along * along)


@pytest.mark.parametrize("distance", [0.02, 0.05, 0.1])
def test_a_linear_victim_is_certified_nearly_to_its_boundary_and_never_beyond(distance):
    victim, x = on_a_line(distance)
    found = certificates.certify(
        victim, Gaussian(sigma=0.05), x, Votes(votes=20_000, batch_size=2_000, alpha=1e-4)
    )
    assert found.answer == 0 and found.radius <= distance
    # as near as so many votes can tell
    agree = stats.norm.cdf(distance / 0.05)
    least = 0.05 * stats.norm.ppf(agree - 8 * math.sqrt(agree * (1 - agree) / 20_000) - 6e-4)
    assert found.radius >= least


def test_certificates_are_wrong_no_more_often_than_alpha():
    """With alpha far from 0 on a victim whose boundary is known, the share beyond it is alpha's."""
    victim, x = on_a_line(0.04, length=40)
    beyond = sum(
        certificates.certify(
            victim, Gaussian(sigma=0.05), x, Votes(votes=200, alpha=0.1, seed=seed)
        ).radius
        > 0.04
        for seed in range(300)
    )
    assert beyond <= stats.binom(300, 0.1).ppf(0.999)
    assert beyond > 0  # else the bound is not tight, or the test sees nothing


def test_a_clip_on_the_boundary_gets_no_answer():
    victim, x = on_a_line(0.0)
    found = certificates.certify(victim, Gaussian(sigma=0.05), x, Votes(votes=100))
    assert found.answer == certificates.ABSTAINED and found.radius == 0


@pytest.mark.parametrize("noise", [Gaussian(sigma=0.05), Ablation(keep=0.3)])
def test_attacks_inside_the_radius_never_succeed(noise):
    victim, broken = on_a_line(0.3)[0], 0
    for seed in range(6):
        drawn = torch.Generator().manual_seed(seed)
        x = (0.3 * torch.randn(400, generator=drawn) + 0.02 * victim.weight).clamp(-0.9, 0.9)
        found = certificates.certify(victim, noise, x, Votes(votes=300, seed=seed))
        if found.radius == 0:
            continue
        x_adv = certificates.attack_inside(victim, noise, x, found, steps=20)
        if isinstance(noise, Ablation):
            assert 0 < int((x_adv != x).sum()) <= found.radius
        else:
            assert 0.99 * found.radius <= float((x_adv - x).norm()) <= found.radius
            assert (victim.weight @ x_adv) * (
                victim.weight @ x
            ) > 0  # exactly: the smoothed is linear
        broken += certificates.certify(
            victim, noise, x_adv, Votes(votes=300, seed=seed)
        ).answer not in (found.answer, -1)
    assert broken == 0


def test_the_attack_inside_would_break_what_is_not_certified():
    """The same attack, given twice the true distance, crosses: it is able to."""
    victim, x = on_a_line(0.05)
    beyond = certificates.Certificate(answer=0, radius=0.1, agreement=1.0)
    x_adv = certificates.attack_inside(victim, Gaussian(sigma=0.05), x, beyond, steps=20)
    assert certificates.certify(victim, Gaussian(sigma=0.05), x_adv, Votes(votes=200)).answer == 1


def test_no_change_of_so_many_samples_turns_an_enumerated_vote():
    """T = 7, k = 3: every subset is counted, and every corner of every L0 ball tried."""
    victim = LinearVictim(torch.tensor([1.0, -2.0, 0.5, 1.5, 3.0, -1.0, 2.0]))
    subsets = torch.tensor(list(itertools.combinations(range(7), 3)))

    def share(x):
        shown = noises.interpolate(x.expand(len(subsets), -1), subsets)
        return float((victim(shown).argmax(dim=1) == 0).double().mean())

    noise, tried = Ablation(keep=3 / 7), 0
    for seed in range(40):
        x = torch.rand(7, generator=torch.Generator().manual_seed(seed)) - 0.3
        if share(x) <= 0.5 or (rho := int(noise.radius(share(x), 7))) == 0:
            continue
        tried += 1
        for places in itertools.combinations(range(7), rho):
            for signs in itertools.product((-1.0, 1.0), repeat=rho):
                x_adv = x.clone()
                x_adv[list(places)] = torch.tensor(signs)
                assert share(x_adv) > 0.5
    assert tried > 5


def test_the_smoothed_view_is_the_mean_and_passes_gradients(linear):
    x = torch.randn(2, 1600, requires_grad=True)
    source = certificates.Smoothed(linear, Gaussian(sigma=0.1), draws=5, seed=3)
    drawn = torch.Generator().manual_seed(3)
    noisy = torch.stack([x[0] + 0.1 * row for row in torch.randn(5, 1600, generator=drawn)])
    assert torch.allclose(source(x)[0].exp(), linear(noisy).softmax(dim=1).mean(dim=0), atol=1e-6)
    source(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    short = source(torch.cat([x[:1, :900], x[:1, 900:]], dim=1)[:, :1600], torch.tensor([900]))
    assert torch.allclose(short, source(x[:1, :900]), atol=1e-6)


def test_the_curve_never_rises_and_starts_at_the_accuracy():
    rng = np.random.default_rng(0)
    rows = [
        {"right": bool(rng.random() < 0.7), "radius": float(rng.random()), "speaker": f"s{i % 5}"}
        for i in range(90)
    ]
    points = certificates.certified_accuracy(rows)
    shares = [p["certified_accuracy"] for p in points]
    assert shares[0] == np.mean([r["right"] for r in rows])
    assert shares == sorted(shares, reverse=True) and len(points) <= 40
    assert all(p["low"] <= p["certified_accuracy"] <= p["high"] for p in points)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(sigma=0),
        lambda: Ablation(keep=1.5),
        lambda: Votes(alpha=0.6),
        lambda: Votes(votes=0),
    ],
)
def test_what_cannot_be_is_told(make):
    with pytest.raises(InvalidInput):
        make()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of tones and a victim trained on them for a moment, by the library."""
    from staanet import training
    from staanet.victims import build_victim

    root = tmp_path_factory.mktemp("certify")
    for label, hz in (("high", 1500.0), ("low", 200.0)):
        for s in range(6):
            path = root / "tones" / label / f"s{s}" / "0.wav"
            path.parent.mkdir(parents=True)
            from staanet import audio

            storage.write_bytes(path, audio.encode(tone(0.3, hz * (1 + 0.02 * s), s), RATE))
    clips = [
        clip(0.3, hz, s, id=f"{label}{s}", label=label, speaker=f"s{s}")
        for s in range(6)
        for label, hz in (("high", 1500.0), ("low", 200.0))
    ]
    training.seed_weights(0)
    victim = build_victim("zhao19", ("high", "low"))
    schedule = training.Schedule(steps=40, batch_size=4, seconds=0.25, evaluate_every=20, seed=1)
    training.train_victim(victim, clips, clips, schedule, root / "fit")
    victim.save_pretrained(root / "victim")
    return root


@pytest.mark.parametrize("method", ["smoothing", "ablation"])
def test_the_command_writes_curve_picture_and_json_and_is_done_when_done(trained, tmp_path, method):
    given = [
        "certify",
        f"folder:{trained / 'tones'}",
        "--part",
        "all",
        "--victim",
        trained / "victim",
        "--method",
        method,
        "--sigma",
        0.01,
        "--keep",
        0.5,
        "--votes",
        60,
        "--guesses",
        10,
        "--clips",
        4,
        "--attack-steps",
        3,
        "--out",
        "c",
    ]
    done = staanet(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "certified accuracy" in done.stdout and "0 of" in done.stdout
    told = json.loads((tmp_path / "c" / "certificate.json").read_text())
    assert told["clips"] == 4 and told["broken"] == 0 and told["method"] in ("gaussian", "ablation")
    assert (tmp_path / "c" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "c" / "certificates.csv").read_text().splitlines()) == 5
    assert not (tmp_path / "c" / "journal.jsonl").exists()
    again = staanet(*given, "--json", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["curve"] == told["curve"]
    other = staanet(*given, "--votes", 70, cwd=tmp_path)
    assert other.returncode == 3 and "Choose another --out" in other.stderr


def test_a_stopped_certification_goes_on_with_the_next_clip(trained, tmp_path):
    from staanet import pipeline
    from staanet.victims import load_victim

    victim = load_victim(trained / "victim")
    clips = [clip(0.3, 200 + 100 * n, n, id=f"c{n}", label="low", speaker="s") for n in range(3)]

    class StoppedError(Exception):
        pass

    def stop(what, done, total, figures):
        if done == 2:
            raise StoppedError

    def run(out, progress=lambda *a: None):
        return pipeline.certify(
            victim,
            clips,
            out,
            noise=Gaussian(sigma=0.01),
            votes=Votes(votes=40, guesses=10),
            context=pipeline.Context(quarantine=pipeline.Quarantine(), progress=progress),
        )

    with pytest.raises(StoppedError):
        run(tmp_path / "half", stop)
    assert len(storage.Journal(tmp_path / "half" / "journal.jsonl").records()) == 2
    assert run(tmp_path / "half") == run(tmp_path / "whole")


@pytest.mark.parametrize(
    "given, said",
    [
        (["--method", "smoothign"], "Did you mean 'smoothing'"),
        (["--sigma", 0], "sigma: input should be greater than 0 (got 0.0)"),
        (["--alpha", 0.7], "alpha: input should be less than 0.5 (got 0.7)"),
    ],
)
def test_mistakes_are_told_in_a_line(trained, tmp_path, given, said):
    done = staanet(
        "certify",
        f"folder:{trained / 'tones'}",
        "--victim",
        trained / "victim",
        "--out",
        "c",
        *given,
        cwd=tmp_path,
    )
    assert done.returncode == 3 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "c").exists()


def test_a_clip_of_another_rate_is_not_certified(linear):
    with pytest.raises(InvalidInput):
        certificates.certify_clip(linear, Gaussian(), Clip("a", tone(0.1, 300), 8_000), Votes())
