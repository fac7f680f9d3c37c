"""A defended victim is a victim: saved, exported, attacked through its transforms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.onnx_files import make_black_box
from tests.support.speech import RATE, clip
from tests.support.waveforms import generator, speechlike

from staanet import audio, pipeline, sanity
from staanet.attacks import ATTACKS, PGD, craft, craft_batch
from staanet.attacks.loss import AttackTask
from staanet.core import Budget, Clip, Untargeted
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.transforms import TRANSFORMS, parse_transform
from staanet.victims import build_victim, load_victim

LABELS = ("anger", "joy", "fear")
NAMES = sorted(TRANSFORMS)


def network(name: str = "emo18") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_victim(name, LABELS).requires_grad_(False).eval()


@pytest.mark.parametrize(
    "chain",
    [["lowpass:1500"], ["bandpass:300-3400", "quantise:6"], ["resample:8000"], ["average:5"]],
)
def test_a_victim_behind_filters_is_exported_with_them(tmp_path, chain):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from staanet.victims.export import export_onnx

    victim = Defended(network(), [parse_transform(text) for text in chain])
    outer = Defended(victim, [parse_transform("lowpass:6000")])
    for number, one in enumerate((victim, outer)):
        path = tmp_path / f"{number}.onnx"
        assert export_onnx(one, path) < 1e-3
        x, again = 0.1 * torch.randn(2, 16_001, generator=generator()), load_victim(f"onnx:{path}")
        assert torch.allclose(again(x), one(x), atol=5e-5)
    assert not torch.allclose(victim(x), network()(x), atol=1e-4)


@pytest.mark.parametrize(
    "text, why",
    [("noise:20", "draws at random"), ("median:3", "no counterpart"), ("mulaw", "no counterpart")],
)
def test_a_defence_that_cannot_be_exported_is_named(tmp_path, text, why):
    from staanet.victims.export import export_onnx

    with pytest.raises(InvalidInput) as error:
        export_onnx(Defended(network(), [parse_transform(text)]), tmp_path / "v.onnx")
    assert why in str(error.value) and text in str(error.value) and not list(tmp_path.iterdir())


def test_a_filter_that_keeps_all_is_refused_at_the_victim_s_rate():
    for text in ("lowpass:8000", "bandpass:300-8000", "resample:16000"):
        with pytest.raises(InvalidInput) as error:
            Defended(network(), [parse_transform(text)])
        assert "16000 Hz" in str(error.value)


@pytest.mark.parametrize(
    "chain", [["median:3"], ["mp3:64", "lowpass:3000"], ["noise:20", "random_gain:3"]]
)
def test_a_saved_defended_victim_is_the_same_function(chain, tmp_path):
    victim = Defended(network(), [parse_transform(text) for text in chain])
    victim.save_pretrained(tmp_path / "v")
    again = load_victim(tmp_path / "v")
    x, lengths = speechlike(8000, 5000)
    assert torch.equal(victim(x, lengths), again(x, lengths))
    assert again.name == "+".join(["emo18", *(text.split(":")[0] for text in chain)])
    assert isinstance(again, Defended) and not again.training and again.labels == LABELS
    assert not any(p.requires_grad for p in again.parameters())
    assert again.sha256 != again.inner.sha256


def test_a_defence_within_a_defence_is_kept_too(tmp_path):
    victim = Defended(
        Defended(network(), [parse_transform("noise:30")]), [parse_transform("median:3")]
    )
    victim.save_pretrained(tmp_path / "v")
    again = load_victim(tmp_path / "v")
    x = speechlike(8000)[0]
    assert torch.equal(victim(x), again(x)) and again.name == "emo18+noise+median"
    assert again.randomised


def test_a_changed_chain_or_inner_victim_is_refused(tmp_path):
    Defended(network(), [parse_transform("median:3")]).save_pretrained(tmp_path / "v")
    card = json.loads((tmp_path / "v" / "card.json").read_text())
    card["settings"]["chain"] = ["median:5"]
    (tmp_path / "v" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InvalidInput) as error:
        load_victim(tmp_path / "v")
    assert "sha256" in str(error.value)
    Defended(network(), [parse_transform("median:3")]).save_pretrained(tmp_path / "w")
    network("zhao19").save_pretrained(tmp_path / "w" / "inner")
    with pytest.raises(InvalidInput) as error:
        load_victim(tmp_path / "w")
    assert "sha256" in str(error.value)


def test_a_black_box_is_defended_with_its_copy_inside_and_attacked_by_queries(tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from staanet.victims.export import export_onnx

    export_onnx(network(), tmp_path / "m.onnx")
    make_black_box(tmp_path / "m.onnx")
    box = load_victim(f"onnx:{tmp_path / 'm.onnx'}")
    made = pipeline.defend(box, ["median:3"], tmp_path / "d", context=pipeline.Context())
    (tmp_path / "m.onnx").unlink()
    again = load_victim(tmp_path / "d")
    x = speechlike(8000)[0]
    assert torch.equal(made(x), again(x)) and not again.differentiable
    with pytest.raises(InvalidInput) as error:
        again(x.requires_grad_())
    assert "black box" in str(error.value)
    static = craft(ATTACKS["random"](budget=Budget(epsilon=0.03)), again.inner, [clip(0.2)])
    static.save(tmp_path / "static")
    found = pipeline.adapt(
        [tmp_path / "static"],
        [again],
        tmp_path / "a",
        clips=40,
        context=pipeline.Context(quarantine=pipeline.Quarantine()),
    )
    assert [place.name for place in found] == ["sparse_rs__m+median"]
    with (tmp_path / "d" / "inner" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidInput):
        load_victim(tmp_path / "d")


@pytest.mark.parametrize("name", NAMES)
def test_batch_padding_and_repetition_change_nothing(name):
    victim = Defended(network(), [parse_transform(name)])
    x, lengths = speechlike(8000, 5001)
    with torch.inference_mode():
        both = victim(x, lengths)
        assert torch.equal(both, victim(x, lengths))
        assert torch.allclose(both[1:], victim(x[1:, :5001]), atol=1e-4)
        assert torch.isfinite(victim(torch.zeros(1, 8000))).all()


@pytest.mark.parametrize("text", ["median:3", "quantise:6", "noise:20", "repair:8"])
def test_the_probes_pass_on_an_honest_defence(text):
    victim = Defended(network(), [parse_transform(text)])
    clips = [clip(0.3, 200 + 60 * n, n) for n in range(3)]
    checks = [
        sanity.eval_mode(victim, clips),
        sanity.deterministic(victim, clips),
        sanity.gives_logits(victim, clips),
        sanity.gradients(victim, clips),
    ]
    assert [c.verdict for c in checks] == ["pass"] * 4, checks


def test_a_defence_that_hides_the_gradient_is_found():
    class Rounds:
        name, is_random, has_exact_gradient = "rounds", False, True

        def __call__(self, x, lengths=None, generator=None, *, sample_rate=16_000):
            return (x * 64).round() / 64

    victim = Defended(network(), [Rounds()])
    check = sanity.gradients(victim, [clip(0.3)])
    assert check.verdict == "fail" and "zero everywhere" in check.explanation


def test_a_mean_over_draws_steadies_the_gradient_and_the_answer():
    weight = torch.randn(1600, generator=generator())
    victim = Defended(LinearVictim(weight), [parse_transform("random_gain:12")])
    x, goal = 0.1 * torch.randn(1, 1600, generator=generator(1)), Untargeted(0)

    def spread(draws):
        found = [
            AttackTask(victim.with_eot(draws, seed=s), x, goal, None).gradient(x) for s in range(24)
        ]
        return float(torch.stack(found).var(dim=0).mean())

    assert spread(16) < spread(1) / 6  # independent draws: a sixteenth, up to chance
    answers = [float(victim.with_eot(n, seed=3)(x)[0, 0]) for n in (1, 400)]
    true = 12 * math.log(10) / 20  # E[10^(g/20)] for g even in +-12 dB is sinh(a) / a
    wanted = float(victim.inner(x)[0, 0]) * math.sinh(true) / true
    assert abs(answers[1] - wanted) < abs(wanted) * 0.1


def test_an_adaptive_attack_on_a_linear_victim_reaches_its_closed_form_through_the_defence():
    weight = torch.randn(1600, generator=generator()).sign()
    inner = LinearVictim(weight)
    victim = Defended(inner, [parse_transform("average:3")])
    x = 0.1 * torch.randn(1, 1600, generator=generator(1)).clamp(-3, 3)
    through = torch.nn.functional.avg_pool1d(weight[None], 3, 1, 1)[0]  # the average is symmetric
    least = float((x[0] @ through).abs() / through.abs().sum())
    samples = audio.snap(x[0].numpy())
    fooled = {}
    for factor in (0.95, 1.05):
        attack = PGD(budget=Budget(epsilon=factor * least), steps=60)
        made = craft_batch(attack, victim, [Clip("a", samples, RATE)])
        fooled[factor] = sanity.Probe(victim, [made[0].clean]).fooled_by(made)[0]
    assert fooled == {0.95: False, 1.05: True}
