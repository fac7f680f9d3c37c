"""Each transformation against a slow reference; gradients; a defended victim is a victim; adaptive attacks."""

from __future__ import annotations

import json
import math
import tomllib

import numpy as np
import pytest
import torch
from tests.support.commands import staanet
from tests.support.models import LinearVictim
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, clip, real_speech, tone

from staanet import audio, config, pipeline, sanity, storage
from staanet.attacks import ATTACKS, PGD, craft, craft_batch
from staanet.attacks.gradient import margin_gradient
from staanet.core import Budget, Clip, Untargeted
from staanet.defences import DEFENCES, Defence, Defended, Repair, parse_defence, straight_through
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.report import tables
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.run_folder import RunFolder
from staanet.sanity import selfcheck
from staanet.transforms.channels import parse_channel
from staanet.victims import build_victim, load_victim

LABELS = ("anger", "joy", "fear")
NAMES = sorted(DEFENCES)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speechlike(
    *lengths: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tones in noise, padded to one batch."""
    x = torch.zeros(len(lengths), max(lengths), dtype=dtype)
    for row, length in enumerate(lengths):
        samples = tone(length / RATE, 250.0 + 90 * row, seed=row)[:length]
        x[row, :length] = torch.from_numpy(audio.to_float(samples)).to(dtype)
    return x, torch.tensor(lengths)


def sine(hz: float, seconds: float = 0.5) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)[None]


def level_db(x: torch.Tensor) -> float:
    """Of the middle half, where no edge is near."""
    quarter = x.shape[1] // 4
    return float(10 * torch.log10(x[:, quarter:-quarter].square().mean().clamp_min(1e-20)))


def network(name: str = "emo18") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_victim(name, LABELS).requires_grad_(False).eval()


# ---------------------------------------------------------------- what all of them promise


@pytest.mark.parametrize("name", NAMES)
def test_shape_range_padding_and_the_clip_alone(name):
    defence = parse_defence(name)
    x, lengths = speechlike(1600, 1111)
    x[0, 100:140] = 1.0  # loud enough for ringing and noise to leave [-1, 1]
    found = defence(x, lengths, drawn())
    assert isinstance(defence, Defence)
    assert found.shape == x.shape and found.dtype == x.dtype
    assert found.abs().max() <= 1 and not found[1, 1111:].any()
    if not defence.randomised:  # a draw depends on the order of the rows; Defended sees to that
        alone = defence(x[1:, :1111], None)
        assert torch.allclose(found[1:, :1111], alone, atol=1e-6)
        assert torch.equal(found, defence(x, lengths))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_is_finite_on_sound_and_on_silence(name):
    defence = parse_defence(name)
    for x in (speechlike(800)[0], torch.zeros(1, 800)):
        x.requires_grad_()
        defence(x, None, drawn()).square().sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", [n for n in NAMES if DEFENCES[n].exact])
def test_an_exact_gradient_is_the_slope(name):
    defence = parse_defence(name)
    x = speechlike(200, dtype=torch.float64)[0]
    weight = torch.randn(1, 200, generator=drawn(1), dtype=torch.float64)

    def function(y):
        return (weight * defence(y, None, drawn())).sum()

    (gradient,) = torch.autograd.grad(function(x.requires_grad_()), x)
    step = 1e-7 * torch.randn(1, 200, generator=drawn(2), dtype=torch.float64)
    found = float(function(x.detach() + step) - function(x.detach() - step)) / 2
    assert found == pytest.approx(float((gradient * step).sum()), rel=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if not DEFENCES[n].exact])
def test_what_rounds_passes_the_gradient_of_the_identity(name):
    x = speechlike(800)[0].requires_grad_()
    weight = torch.randn(1, 800, generator=drawn())
    (weight * parse_defence(name)(x)).sum().backward()
    assert torch.equal(x.grad, weight)


def test_straight_through_passes_gradcheck_where_it_is_the_identity():
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: straight_through(y, y.clone()), (x,))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back(name):
    defence = parse_defence(name)
    assert parse_defence(str(defence)) == defence


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
        ("median:", "whole number"),
    ],
)
def test_a_wrong_setting_is_told(text, said):
    with pytest.raises(InvalidInput) as error:
        parse_defence(text)
    assert said in str(error.value) and error.value.remedy


@pytest.mark.parametrize(
    "text, command",
    [("adversarial:runs/hard", "staanet harden"), ("detector:residual", "staanet detect")],
)
def test_what_is_no_transformation_names_the_command_that_makes_it(text, command):
    with pytest.raises(InvalidInput) as error:
        parse_defence(text)
    assert command in error.value.remedy and "no transformation" in str(error.value)


@pytest.mark.parametrize(
    "chain",
    [["lowpass:1500"], ["bandpass:300-3400", "quantise:6"], ["resample:8000"], ["average:5"]],
)
def test_a_victim_behind_filters_is_exported_with_them(tmp_path, chain):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from staanet.victims.export import export_onnx

    victim = Defended(network(), [parse_defence(text) for text in chain])
    outer = Defended(victim, [parse_defence("lowpass:6000")])
    for number, one in enumerate((victim, outer)):
        path = tmp_path / f"{number}.onnx"
        assert export_onnx(one, path) < 1e-3
        x, again = 0.1 * torch.randn(2, 16_001, generator=drawn()), load_victim(f"onnx:{path}")
        assert torch.allclose(again(x), one(x), atol=5e-5)
    assert not torch.allclose(victim(x), network()(x), atol=1e-4)


@pytest.mark.parametrize(
    "text, why",
    [("noise:20", "draws at random"), ("median:3", "no counterpart"), ("mulaw", "no counterpart")],
)
def test_a_defence_that_cannot_be_exported_is_named(tmp_path, text, why):
    from staanet.victims.export import export_onnx

    with pytest.raises(InvalidInput) as error:
        export_onnx(Defended(network(), [parse_defence(text)]), tmp_path / "v.onnx")
    assert why in str(error.value) and text in str(error.value) and not list(tmp_path.iterdir())


def test_a_filter_that_keeps_all_is_refused_at_the_victim_s_rate():
    for text in ("lowpass:8000", "bandpass:300-8000", "resample:16000"):
        with pytest.raises(InvalidInput) as error:
            parse_defence(text)(torch.zeros(1, 100), sample_rate=16_000)
        assert "16000 Hz" in str(error.value)


# ---------------------------------------------------------------- one by one


@pytest.mark.parametrize("width", [3, 5, 9])
def test_median_and_average_are_numpy_s(width):
    x = torch.randn(2, 97, generator=drawn()).clamp(-1, 1)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(x.numpy(), ((0, 0), (width // 2, width // 2))), width, axis=1
    )
    assert np.array_equal(parse_defence(f"median:{width}")(x), np.median(around, axis=2))
    assert np.allclose(parse_defence(f"average:{width}")(x), around.mean(axis=2), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_quantise_leaves_so_many_levels_and_moves_half_a_step(bits):
    x = torch.linspace(-1, 1, 100_001)[None]
    found = parse_defence(f"quantise:{bits}")(x)
    assert len(found.unique()) == min(2**bits, len(found.unique())) >= min(2**bits, 60_000)
    top = 1 - 2.0 ** (1 - bits)  # the highest level of so many bits
    assert (found - x)[x <= top].abs().max() <= 2.0**-bits and found.max() == top


def test_filters_keep_what_lies_inside_and_kill_what_lies_outside():
    for text, kept, killed in (
        ("lowpass:4000", [100, 2000, 3700], [4400, 7000]),
        ("bandpass:300-3400", [600, 3000], [60, 3900]),
        ("resample:8000", [100, 3600], [4100, 6000]),
    ):
        defence = parse_defence(text)
        for hz in kept:
            assert abs(level_db(defence(sine(hz))) - level_db(sine(hz))) < 0.2, (text, hz)
        for hz in killed:
            assert level_db(defence(sine(hz))) - level_db(sine(hz)) < -50, (text, hz)


def test_resampling_is_the_channel_s_which_truly_goes_down_and_up():
    x = torch.from_numpy(audio.to_float(tone(0.5, 700.0)))[None]
    for hz in (4000, 8000, 11_025):
        found = parse_defence(f"resample:{hz}")(x)[0, 800:-800]
        heard = parse_channel(f"resample:{hz}")(audio.snap(x[0].numpy()), RATE)[800:-800]
        wanted = torch.from_numpy(audio.to_float(heard))
        assert float((found - wanted).square().sum() / wanted.square().sum()) < 1e-3  # -30 dB


def test_noise_has_its_level_and_gain_its_range():
    x = torch.stack([sine(300)[0], 0.1 * sine(500)[0]])
    noise = parse_defence("noise:20")(x, None, drawn()) - x
    ratio = 10 * torch.log10(x.square().mean(dim=1) / noise.square().mean(dim=1))
    assert torch.allclose(ratio, torch.full((2,), 20.0), atol=0.3)
    assert float((parse_defence("noise:sigma=0.01")(x, None, drawn()) - x).std()) == pytest.approx(
        0.01, rel=0.03
    )
    many = 0.1 * torch.ones(4000, 1)
    gains = 20 * torch.log10(parse_defence("gain:6")(many, None, drawn()) / many)
    assert gains.abs().max() <= 6 + 1e-3 and gains.max() > 5.9 and abs(float(gains.mean())) < 0.2


@pytest.mark.parametrize("text", ["mp3:64", "opus:24", "gsm", "mulaw"])
def test_a_codec_is_the_channel_s(text):
    samples = tone(0.3, 440.0)
    wanted = audio.to_float(parse_channel(text)(samples, RATE))
    found = parse_defence(text)(torch.from_numpy(audio.to_float(samples))[None])
    assert np.array_equal(found[0].numpy(), wanted)


def test_repair_restores_spikes_on_a_smooth_signal():
    x = sine(300) + 0.3 * sine(700)
    places = torch.arange(500, 7500, 487)
    spoilt = x.clone()
    spoilt[0, places] += 0.3
    found = Repair()(spoilt)
    left, done = (spoilt - x).square().sum(), (found - x).square().sum()
    assert float(10 * torch.log10(left / done)) > 20  # dB of the change taken away
    assert torch.equal(Repair()(x)[0, 400:-400], x[0, 400:-400])  # no edge, nothing to repair


def test_repair_leaves_clean_speech_nearly_untouched():
    for path in sorted(real_speech("emodb").rglob("*.wav"))[:300:60]:
        samples = audio.load_samples(path, RATE)
        x = torch.from_numpy(audio.to_float(samples))[None]
        found = Repair()(x)
        changed = float((found != x).float().mean())
        snr = float(
            10 * torch.log10(x.square().sum() / (found - x).square().sum().clamp_min(1e-12))
        )
        assert changed < 0.01 and snr > 25, path.name


@pytest.mark.parametrize("time", [1, 2, 16, 17, 30])
def test_the_shortest_clips_pass_through_every_defence(time):
    for name in NAMES:
        found = parse_defence(name)(torch.full((1, time), 0.1), None, drawn())
        assert found.shape == (1, time) and torch.isfinite(found).all(), name


# ---------------------------------------------------------------- a defended victim is a victim


@pytest.mark.parametrize(
    "chain", [["median:3"], ["mp3:64", "lowpass:3000"], ["noise:20", "gain:3"]]
)
def test_a_saved_defended_victim_is_the_same_function(chain, tmp_path):
    victim = Defended(network(), [parse_defence(text) for text in chain])
    victim.save_pretrained(tmp_path / "v")
    again = load_victim(tmp_path / "v")
    x, lengths = speechlike(8000, 5000)
    assert torch.equal(victim(x, lengths), again(x, lengths))
    assert again.name == "+".join(["emo18", *(text.split(":")[0] for text in chain)])
    assert isinstance(again, Defended) and not again.training and again.labels == LABELS
    assert not any(p.requires_grad for p in again.parameters())
    assert again.sha256 != again.inner.sha256


def test_a_defence_within_a_defence_is_kept_too(tmp_path):
    victim = Defended(Defended(network(), [parse_defence("noise:30")]), [parse_defence("median:3")])
    victim.save_pretrained(tmp_path / "v")
    again = load_victim(tmp_path / "v")
    x = speechlike(8000)[0]
    assert torch.equal(victim(x), again(x)) and again.name == "emo18+noise+median"
    assert again.randomised


def test_a_changed_chain_or_inner_victim_is_refused(tmp_path):
    Defended(network(), [parse_defence("median:3")]).save_pretrained(tmp_path / "v")
    card = json.loads((tmp_path / "v" / "card.json").read_text())
    card["settings"]["chain"] = ["median:5"]
    (tmp_path / "v" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InvalidInput) as error:
        load_victim(tmp_path / "v")
    assert "sha256" in str(error.value)
    Defended(network(), [parse_defence("median:3")]).save_pretrained(tmp_path / "w")
    network("zhao19").save_pretrained(tmp_path / "w" / "inner")
    with pytest.raises(InvalidInput) as error:
        load_victim(tmp_path / "w")
    assert "sha256" in str(error.value)


def test_a_black_box_is_defended_with_its_copy_inside_and_attacked_by_queries(tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from staanet.victims.export import export_onnx

    export_onnx(network(), tmp_path / "m.onnx")
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
        context=pipeline.Context(quarantine=pipeline.Quarantine()),
    )
    assert [place.name for place in found] == ["sparse_rs__m+median"]
    with (tmp_path / "d" / "inner" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidInput):
        load_victim(tmp_path / "d")


@pytest.mark.parametrize("name", NAMES)
def test_batch_padding_and_repetition_change_nothing(name):
    victim = Defended(network(), [parse_defence(name)])
    x, lengths = speechlike(8000, 5001)
    with torch.inference_mode():
        both = victim(x, lengths)
        assert torch.equal(both, victim(x, lengths))
        assert torch.allclose(both[1:], victim(x[1:, :5001]), atol=1e-4)
        assert torch.isfinite(victim(torch.zeros(1, 8000))).all()


@pytest.mark.parametrize("text", ["median:3", "quantise:6", "noise:20", "repair:8"])
def test_the_probes_pass_on_an_honest_defence(text):
    victim = Defended(network(), [parse_defence(text)])
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
        name, randomised, exact = "rounds", False, True

        def __call__(self, x, lengths=None, generator=None, *, sample_rate=16_000):
            return (x * 64).round() / 64

    victim = Defended(network(), [Rounds()])
    check = sanity.gradients(victim, [clip(0.3)])
    assert check.verdict == "fail" and "zero everywhere" in check.explanation


def test_a_mean_over_draws_steadies_the_gradient_and_the_answer():
    weight = torch.randn(1600, generator=drawn())
    victim = Defended(LinearVictim(weight), [parse_defence("gain:12")])
    x, goal = 0.1 * torch.randn(1, 1600, generator=drawn(1)), Untargeted(0)

    def spread(draws):
        found = [margin_gradient(victim.with_eot(draws, seed=s), x, goal, None) for s in range(24)]
        return float(torch.stack(found).var(dim=0).mean())

    assert spread(16) < spread(1) / 6  # independent draws: a sixteenth, up to chance
    answers = [float(victim.with_eot(n, seed=3)(x)[0, 0]) for n in (1, 400)]
    true = 12 * math.log(10) / 20  # E[10^(g/20)] for g even in +-12 dB is sinh(a) / a
    wanted = float(victim.inner(x)[0, 0]) * math.sinh(true) / true
    assert abs(answers[1] - wanted) < abs(wanted) * 0.1


def test_an_adaptive_attack_on_a_linear_victim_reaches_its_closed_form_through_the_defence():
    weight = torch.randn(1600, generator=drawn()).sign()
    inner = LinearVictim(weight)
    victim = Defended(inner, [parse_defence("average:3")])
    x = 0.1 * torch.randn(1, 1600, generator=drawn(1)).clamp(-3, 3)
    through = torch.nn.functional.avg_pool1d(weight[None], 3, 1, 1)[0]  # the average is symmetric
    least = float((x[0] @ through).abs() / through.abs().sum())
    samples = audio.snap(x[0].numpy())
    fooled = {}
    for factor in (0.95, 1.05):
        attack = PGD(budget=Budget(epsilon=factor * least), steps=60)
        made = craft_batch(attack, victim, [Clip("a", samples, RATE)])
        fooled[factor] = sanity.Probe(victim, [made[0].clean]).misled(made)[0]
    assert fooled == {0.95: False, 1.05: True}


# ---------------------------------------------------------------- commands, recipes and the report


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus of tones, a victim of it, and STAA-Net's place taken by noise and PGD against it."""
    root = tmp_path_factory.mktemp("defences")
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            folder = root / "tiny" / label / f"s{speaker}"
            folder.mkdir(parents=True)
            hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
            storage.write_bytes(
                folder / "0.wav", audio.encode(tone(0.3, hz, 10 * number + speaker), RATE)
            )
    torch.manual_seed(0)
    build_victim("emo18", ("high", "low")).save_pretrained(root / "emo18")
    return root


def test_defend_attack_and_evaluate_through_the_command_line(world, tmp_path):
    corpus = f"folder:{world / 'tiny'}"
    done = staanet(
        "defend",
        "--victim",
        world / "emo18",
        "--with",
        "median:3",
        "--with",
        "quantise:8",
        "--corpus",
        corpus,
        "--out",
        "d",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "UAR on dev" in done.stdout and "median:3 + quantise:8 before emo18" in done.stdout
    card = json.loads((tmp_path / "d" / "card.json").read_text())
    assert card["name"] == "emo18+median+quantise" and 0 <= card["test_uar"] <= 1
    again = staanet(
        "defend",
        "--victim",
        world / "emo18",
        "--with",
        "median:3",
        "--with",
        "quantise:8",
        "--corpus",
        corpus,
        "--out",
        "d",
        "--json",
        cwd=tmp_path,
    )
    assert json.loads(again.stdout)["sha256"] == card["sha256"]
    for name, source in (("static", world / "emo18"), ("known", "d")):
        done = staanet(
            "attack", corpus, "--attack", "fgsm", "--source", source, "--out", name, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    done = staanet(
        "evaluate",
        "static",
        "--target",
        world / "emo18",
        "--target",
        "d",
        "--out",
        "r",
        "--adaptive-clips",
        2,
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    told = {
        (c["attack"], c["source"]): c["defence"]
        for c in summary["cells"]
        if c["target"] == "emo18+median+quantise"
    }
    assert told == {
        ("fgsm", "emo18"): "static",
        ("pgd", "emo18+median+quantise"): "adaptive",
        ("sigma_zero", "emo18+median+quantise"): "adaptive",
    }
    assert not any("non-adaptive" in flag for flag in summary["flags"])
    assert summary["targets"]["emo18+median+quantise"]["defended"]["exact_gradient"] is False
    done = staanet(
        "evaluate", "static", "--target", "d", "--out", "s", "--static-only", cwd=tmp_path
    )
    assert done.returncode == 0 and "non-adaptive" in done.stdout, done.stderr
    assert ", static" in done.stdout
    wrong = staanet(
        "defend", "--victim", world / "emo18", "--with", "medain", "--out", "w", cwd=tmp_path
    )
    assert wrong.returncode == 3 and "median" in wrong.stderr and not (tmp_path / "w").exists()


def test_a_namesake_behind_other_settings_knew_nothing(world, tmp_path):
    """Names tell kinds of defences, not settings: an attack through median:5 is static on median:3."""
    speech = f"folder:{world / 'tiny'}"
    for width in (3, 5):
        made = staanet(
            "defend",
            "--victim",
            world / "emo18",
            "--with",
            f"median:{width}",
            "--out",
            f"m{width}",
            cwd=tmp_path,
        )
        assert made.returncode == 0, made.stderr
    done = staanet(
        "attack",
        speech,
        "--attack",
        "pgd",
        "--source",
        "m5",
        "--set",
        "steps=2",
        "--out",
        "a",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    two = staanet("evaluate", "a", "--target", "m3", "--target", "m5", "--out", "r", cwd=tmp_path)
    assert two.returncode == 3 and "2 targets are called 'emo18+median'" in two.stderr
    assert not (tmp_path / "r").exists()
    target, held = load_victim(tmp_path / "m3"), AdversarialSet.load(tmp_path / "a")
    (cell,) = transfer_matrix([held], [target]).summary["cells"]
    assert cell["defence"] == "static" and cell["white_box"] is False
    (own,) = transfer_matrix([held], [load_victim(tmp_path / "m5")]).summary["cells"]
    assert own["defence"] == "adaptive" and own["white_box"] is True
    found = pipeline.adapt(
        [tmp_path / "a"],
        [target],
        tmp_path / "k",
        attacks=["random"],
        context=pipeline.Context(quarantine=pipeline.Quarantine()),
    )
    assert [AdversarialSet.load(place).card["source_defences"] for place in found] == [["median:3"]]


RECIPE = (
    TINY_RECIPE.replace("[attacks.pgd]", "[defences.median]\nchain = ['median:3']\n\n[attacks.pgd]")
    + "\n[defences.noisy]\nchain = ['noise:20']\nadaptive = []\n"
)


@pytest.fixture(scope="module")
def run(world):
    recipe = config.parse_recipe(tomllib.loads(RECIPE.format(corpus=(world / "tiny").as_posix())))
    matrix = pipeline.run(recipe, world / "run", context=pipeline.Context())
    return world / "run", recipe, matrix


def test_a_recipe_yields_clean_static_and_adaptive_beside_each_other(run):
    folder, _, matrix = run
    assert {p.name for p in (folder / "victims").iterdir()} == {
        "emo18",
        "zhao19",
        "emo18+median",
        "emo18+noisy",
    }
    assert {p.name for p in (folder / "generators").iterdir()} == {"emo18", "emo18+median"}
    card = storage.read_card(folder / "generators" / "emo18+median", "generator")
    assert card["network"] == "backward_net" and card["source"] == "emo18+median"
    told = {(c["source"], c["target"]): c["defence"] for c in matrix.cells if c["attack"] == "staa"}
    assert told["emo18", "emo18+median"] == told["emo18", "emo18+noisy"] == "static"
    assert told["emo18+median", "emo18+median"] == "adaptive"
    assert told["emo18", "emo18"] == told["emo18+median", "emo18"] == ""
    flags = [flag for flag in matrix.summary["flags"] if "non-adaptive" in flag]
    assert len(flags) == 1 and flags[0].startswith("emo18+noisy: ")


def test_the_report_shows_both_sides_and_calls_the_other_non_adaptive(run):
    folder, _, matrix = run
    table = tables.defence_table(RunFolder.read(folder))
    rows = {(row[0].text, row[2].text): row for row in table.cells}
    for name, adaptive in (("emo18+median", True), ("emo18+noisy", False)):
        row = rows[name, "STAA-Net"]
        assert row[0].mark == ("" if adaptive else "non-adaptive")
        for entry, source, target in ((row[4], "emo18", "emo18"), (row[5], "emo18", name)):
            value = matrix.cell("staa", source, target)["fooling_rate"]["value"]
            assert entry.text == f"{100 * value:.1f} %"
        assert (row[6].text != "n/a") == adaptive
    page = (folder / "report" / "index.html").read_text()
    assert 'id="defences"' in page and page.count('class="mark non-adaptive"') >= 4
    assert (
        "Fooling rate of each defended classifier" in (folder / "report" / "matrix.md").read_text()
    )


def test_a_finished_run_with_defences_is_skipped_and_a_generator_finds_its_source(run):
    folder, recipe, matrix = run
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("model.safetensors")}
    again = pipeline.run(recipe, folder, context=pipeline.Context())
    assert again.cells == matrix.cells
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("model.safetensors")}
    source = pipeline.source_of(folder / "generators" / "emo18+median")
    assert source.name == "emo18+median"


def test_the_self_check_tries_defended_victims_too(run):
    folder, _, _ = run
    found = {(c.name, c.subject): c for c in selfcheck.selfcheck(folder, clips=4)}
    for name in ("emo18+median", "emo18+noisy"):
        assert found["gradients", name].verdict == "pass", found["gradients", name]
        assert found["deterministic", name].verdict == "pass"
        assert ("huge_epsilon", name) in found and ("white_box_wins", name) in found
    assert found["split", ""].verdict == "pass", found["split", ""]
    assert found["white_box_marks", ""].verdict == "pass", found["white_box_marks", ""]
    assert found["rates", ""].verdict == "pass"


@pytest.mark.parametrize(
    "lines, said",
    [
        ("[defences.m]\nchain = ['medain']", "Did you mean 'median'"),
        ("[defences.m]\nchain = ['median']\nvictims = ['emo19']", "Did you mean 'emo18'"),
        ("[defences.m]\nchain = ['median']\nadaptive = ['pdg']", "Did you mean 'pgd'"),
        ("[defences.m]\nchian = ['median']", "defences.m.chain"),
        ("[defences.m]\nchain = []", "at least 1"),
    ],
)
def test_a_mistake_in_a_defence_is_told_before_any_training(world, tmp_path, lines, said):
    path = tmp_path / "wrong.toml"
    path.write_text(TINY_RECIPE.format(corpus=(world / "tiny").as_posix()) + lines + "\n")
    with pytest.raises(InvalidInput) as error:
        pipeline.run(config.load_recipe(str(path)), tmp_path / "run", context=pipeline.Context())
    assert said in str(error.value) and not (tmp_path / "run").exists()


def test_the_shipped_recipe_has_defences_that_exist():
    recipe = config.load_recipe("emodb_defences")
    assert recipe.defences and set(recipe.defences) <= set(DEFENCES)
    for one in recipe.defences.values():
        assert [str(parse_defence(text)) for text in one.chain] == list(one.chain)
        assert one.adaptive is None or one.adaptive  # nothing in it is non-adaptive
