"""bfloat16 rounds products, and nothing else: norms, maxima over samples, losses and promises stay whole."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch
from tests.support.speech import clip
from torch import nn
from typer.testing import CliRunner

from staanet import pipeline, storage, training
from staanet.attacks import Staa, collate, craft
from staanet.cli import app
from staanet.config import AttackRecipe, GeneratorRecipe, VictimRecipe
from staanet.core import Budget
from staanet.corpora import load_corpus
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.generators.backward_net import BackwardNet
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator
from staanet.generators.warm_start import backward_net_from
from staanet.generators.wave_u_net import masked_group_norm
from staanet.nn import distributed, precision
from staanet.nn.conv_maxpool import conv_maxpool, unpool_conv_transpose
from staanet.nn.precision import autocast, in_float32
from staanet.transforms import parse_transform
from staanet.victims import build_victim, load_victim
from staanet.victims.layers import ConvBlock, fold_batch_statistics, run_lstm

CPU = torch.device("cpu")
LABELS = ("high", "low")
BUDGET = Budget(epsilon=0.05, max_density=0.3)


def rounded():
    return autocast("bfloat16", CPU)


def tiny(name: str):
    torch.manual_seed(0)
    if name == "backward_net":
        blocks = ((1, 8, 8, 10), (8, 8, 6, 8))
        return BackwardNet(blocks=blocks, classes=2, hidden=8, layers=2, density=0.3).eval()
    return build_generator("small", None if name == "paper" else 0.3).eval()


def wave(batch: int = 1, time: int = 1600) -> torch.Tensor:
    return 0.1 * torch.randn(batch, time, generator=torch.Generator().manual_seed(1))


def test_auto_is_float32_on_a_cpu_and_bfloat16_where_a_gpu_has_units(monkeypatch):
    assert precision.resolve_precision("auto", "cpu") == "float32"
    for able, with_eot in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, a=able: a)
        assert precision.resolve_precision("auto", "cuda:1") == with_eot
        assert precision.resolve_precision("float32", "cuda") == "float32"
    with pytest.raises(InvalidInput, match="cuda has no units for bfloat16"):
        precision.resolve_precision("bfloat16", "cuda")


def test_what_a_cpu_is_slow_at_is_refused_with_a_remedy():
    with pytest.raises(InvalidInput, match="slower with it, not faster") as told:
        precision.resolve_precision("bfloat16", "cpu")
    assert "--device cuda" in told.value.remedy
    with pytest.raises(InvalidInput, match="float16"):
        precision.resolve_precision("float16", "cpu")


@pytest.mark.parametrize("name", ["paper", "small", "backward_net"])
def test_a_rounded_generator_proposes_nearly_the_same_in_float32(name):
    network, x = tiny(name), wave()
    with torch.inference_mode():
        whole = network(x, None, None, BUDGET)
        with rounded():
            coarse = network(x, None, None, BUDGET)
    for one, other in zip(whole, coarse, strict=True):
        assert other.dtype == torch.float32 and not torch.equal(one, other)
        assert (one - other).abs().mean() < 0.05


@pytest.mark.parametrize("name", ["small", "backward_net"])
def test_an_attack_keeps_its_promise_whatever_the_precision(name, linear):
    source, clips = linear, [clip(0.1, 300.0 * n, n, id=f"c{n}") for n in range(1, 4)]
    budget = Budget(epsilon=0.01, max_l0=100, min_snr_db=15)
    made = {
        kind: craft(Staa(generator=tiny(name), budget=budget, precision=kind), source, clips)
        for kind in precision.PRECISIONS[1:]
    }
    same = []
    for one, other in zip(made["float32"].clips, made["bfloat16"].clips, strict=True):
        assert budget.violations(other.clean.pcm16, other.adversarial) == []
        assert (other.adversarial != other.clean.pcm16).sum() > 0
        same.append((one.adversarial == other.adversarial).mean())
    assert 0.9 < min(same) < 1  # most samples alike, and yet another computation


def test_what_must_not_be_rounded_is_not():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 400), torch.randn(4, 8)
    values, argmax = torch.randn(2, 5, 4), torch.randint(0, 10, (2, 5, 4)).byte()
    up, norm, inside = torch.randn(4, 2, 8), nn.GroupNorm(1, 8), torch.ones(2, 50, dtype=torch.bool)
    conv, batch_norm = nn.Conv2d(1, 4, (1, 8)), nn.BatchNorm2d(4).train()
    features = torch.randn(2, 8, 1, 50)
    works = {
        "maxima": lambda: conv_maxpool(x, weight, None, 3, 10)[0],
        "through winners": lambda: unpool_conv_transpose(values, argmax, up, 10),
        "group norm": lambda: masked_group_norm(features, inside, norm),
        "normalising": lambda: fold_batch_statistics(x, conv, batch_norm)[0],
        "lowpass": lambda: lowpass().defend(x[:1]),
    }
    for name, work in works.items():
        plain = work()
        with rounded():
            assert torch.equal(plain, work()), name
    with rounded():  # and what comes rounded is computed as if it had not been
        assert masked_group_norm(features.bfloat16(), inside, norm).dtype == torch.float32


def test_statistics_of_several_processes_are_taken_of_whole_numbers(monkeypatch):
    functional = pytest.importorskip("torch.distributed.nn").functional
    monkeypatch.setattr(functional, "all_reduce", lambda sums: sums)
    layer, x = nn.BatchNorm1d(4).train(), (3 + torch.randn(8, 4, 500)).bfloat16()
    with rounded():
        normed = distributed._synchronised_norm(layer, layer.forward, x)
    assert normed.dtype == torch.float32
    assert torch.allclose(normed, layer(x.float()), atol=1e-4)


def lowpass() -> Defended:
    return Defended(build_victim("zhao19", LABELS).eval(), [parse_transform("lowpass:2000")])


@pytest.mark.parametrize("time", [1600, 100_000])  # features written down at once, or in pieces
def test_a_first_layer_is_whole_at_any_length(time):
    torch.manual_seed(0)
    block = ConvBlock(1, 8, 8, 10, torch.relu).eval().requires_grad_(False)
    x = wave(1, time)[:, None, None]
    plain = block(x)
    with rounded():
        assert torch.equal(plain, block(x))


def test_an_exact_function_takes_what_is_rounded_by_place_and_by_name():
    def total(x: torch.Tensor, *, y: torch.Tensor, name: str) -> tuple[torch.dtype, str]:
        return (x @ y).dtype, name

    one = torch.ones(2, 2).bfloat16()
    with rounded():
        assert in_float32(total)(one, y=one, name="n") == (torch.float32, "n")
        assert torch.is_autocast_enabled("cpu")
    assert in_float32(total)(one, y=one, name="n") == (torch.bfloat16, "n")  # as it was given


@pytest.mark.parametrize("name", ["small", "backward_net"])
def test_a_step_of_training_in_bfloat16_follows_that_in_float32(name):
    clips = [clip(0.3, 400.0 * n, n, id=f"c{n}", label=LABELS[n % 2]) for n in range(1, 5)]
    source = load_victim("shipped:emo18")
    found = {}
    for kind in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = (
            backward_net_from(source, 0.3) if name == "backward_net" else build_generator(name, 0.3)
        )
        schedule = training.Schedule(steps=1, batch_size=2, seconds=0.1)
        task = training.GeneratorTask(
            network,
            [source],
            training.Crops(clips, schedule),
            clips,
            training.GeneratorSettings(budget=BUDGET, objective=Objective(), precision=kind),
        )
        loss, figures = task.loss(0)
        loss.backward()
        grads = [w.grad.flatten() for w in network.parameters() if w.grad is not None]
        assert loss.dtype == torch.float32 and {g.dtype for g in grads} == {torch.float32}
        found[kind] = loss.item(), torch.cat(grads), figures["density"]
    (one, slope, density), (other, coarse, share) = found["float32"], found["bfloat16"]
    assert one != other and other == pytest.approx(one, rel=0.05, abs=0.02)
    assert share == pytest.approx(density, abs=1e-3)
    assert torch.cosine_similarity(slope, coarse, dim=0) > 0.8


def test_a_victim_learns_in_bfloat16(tmp_path):
    clips = [
        clip(0.3, hz * (1 + 0.02 * s), s, id=f"{label}{s}", label=label, speaker=f"s{s}")
        for s in range(6)
        for label, hz in (("high", 1500.0), ("low", 200.0))
    ]
    training.seed_weights(0)
    victim = build_victim("zhao19", LABELS)
    schedule = training.Schedule(steps=30, batch_size=4, seconds=0.1, evaluate_every=30)
    history = training.train_victim(victim, clips, clips, schedule, tmp_path, precision="bfloat16")
    assert history.best_score == 1.0
    assert {w.dtype for w in victim.state_dict().values()} <= {torch.float32, torch.int64}


def test_a_frozen_lstm_on_a_gpu_runs_as_in_training_where_gradients_are_wanted():
    used = []

    class Recorder(nn.LSTM):
        def forward(self, x):  # type: ignore[override]
            used.append(self.training)
            return super().forward(x.as_subclass(torch.Tensor))

    class OnGpu(torch.Tensor):
        is_cuda = True

    lstm, x = Recorder(3, 4, batch_first=True).eval(), torch.randn(2, 5, 3)
    here, there = x.clone().requires_grad_(), x.as_subclass(OnGpu).requires_grad_()
    answers = [run_lstm(lstm, given) for given in (here, there, x.as_subclass(OnGpu))]
    with torch.no_grad():
        answers.append(run_lstm(lstm, there))
    assert used == [False, True, False, False] and not lstm.training
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    run_lstm(lstm.train(), there)
    assert used[-1] and lstm.training
    with pytest.raises(RuntimeError):
        run_lstm(lstm.eval(), there[..., :2])
    assert not lstm.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["emo18", "zhao19"])
def test_on_a_gpu_a_frozen_victim_has_the_gradient_that_it_has_on_a_cpu(name):
    torch.manual_seed(0)
    slopes = []
    victim = build_victim(name, LABELS).eval().requires_grad_(False)
    for device in ("cpu", "cuda"):
        x = wave(2, 16_000).to(device).requires_grad_()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            victim.to(device)(x).square().sum().backward()
        slopes.append(x.grad.cpu())
    one, other = slopes
    assert not victim.training and not any(m.training for m in victim.modules())
    # where two samples are nearly alike, either may win its maximum
    near = (one - other).abs() <= 1e-3 * one.abs().max()
    assert near.float().mean() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["small", "backward_net"])
def test_on_a_gpu_an_attack_in_bfloat16_keeps_its_promise(name):
    source = build_victim("zhao19", LABELS).eval().requires_grad_(False).cuda()
    attack = Staa(generator=tiny(name).cuda(), budget=BUDGET, precision="bfloat16")
    for one in craft(attack, source, [clip(0.5, 300.0, 1, id="c")] * 3).clips:
        assert BUDGET.violations(one.clean.pcm16, one.adversarial) == []


def test_clips_for_a_gpu_are_copied_from_pinned_memory_without_waiting(monkeypatch, linear):
    asked = {}
    zeros = torch.zeros
    monkeypatch.setattr(
        torch, "zeros", lambda *s, pin_memory: asked.update(pinned=pin_memory) or zeros(*s)
    )
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, device, non_blocking: asked.update(at_once=non_blocking) or x
    )
    clips = [clip(0.1, 300.0, n, id=f"c{n}") for n in range(2)]
    kind = SimpleNamespace(
        sample_rate=linear.sample_rate, minimum_samples=1, name="v", device=torch.device("cuda")
    )
    x, lengths = collate(clips, kind)
    assert asked == {"pinned": True, "at_once": True} and lengths is None
    assert torch.equal(x[0], clips[0].waveform)
    monkeypatch.undo()
    assert torch.equal(x, collate(clips, linear)[0])


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A CPU that takes bfloat16 for its own, as a GPU does."""
    resolve = precision.resolve_precision
    for stage in ("train_victim", "train_generator", "attack_plan"):
        monkeypatch.setattr(
            importlib.import_module(f"staanet.pipeline.{stage}"),
            "resolve_precision",
            lambda name, device: "bfloat16" if name != "float32" else resolve(name, "cpu"),
        )


def test_cards_tell_bfloat16_and_say_nothing_of_float32(tiny_corpus, tmp_path, on_a_gpu):
    corpus = load_corpus(f"folder:{tiny_corpus}")
    few = {"steps": 2, "batch_size": 4, "seconds": 0.2, "evaluate_every": 2}
    for asked, told in (("auto", "bfloat16"), ("float32", "float32")):
        root = tmp_path / asked
        victim = pipeline.train_victim(
            corpus,
            "zhao19",
            root / "v",
            recipe=VictimRecipe(**few, precision=asked),
            context=pipeline.Context(),
        )
        pipeline.train_generator(
            corpus,
            victim,
            root / "g",
            recipe=GeneratorRecipe(**few, precision=asked),
            context=pipeline.Context(),
        )
        cards = [
            storage.read_card(root / "v", "victim"),
            storage.read_card(root / "g", "generator"),
        ]
        assert [card["inputs"]["recipe"]["precision"] for card in cards] == [told, told]
        recipe = AttackRecipe(attack="staa", max_density=0.1, precision=asked)
        plan = pipeline.plan_attack(
            "staa", recipe, victim, generator=root / "g", context=pipeline.Context()
        )
        assert plan.inputs["precision"] == told and "precision" not in plan.inputs["recipe"]
        assert isinstance(plan.attack, Staa) and plan.attack.precision == told
    other = VictimRecipe(**few)
    with pytest.raises(
        InvalidInput, match="was made with recipe"
    ):  # bfloat16 is another experiment
        pipeline.train_victim(
            corpus, "zhao19", tmp_path / "float32" / "v", recipe=other, context=pipeline.Context()
        )


def staanet(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_bfloat16_on_a_cpu_is_refused_before_anything_is_written(tiny_corpus, tmp_path):
    code, _, said = staanet(
        "train-victim",
        f"folder:{tiny_corpus}",
        "zhao19",
        "--out",
        tmp_path / "v",
        "--precision",
        "bfloat16",
    )
    assert code == 3 and "cpu has no units for bfloat16" in said
    assert "--device cuda" in said and not (tmp_path / "v" / "card.json").exists()
    code, _, said = staanet(
        "attack", f"folder:{tiny_corpus}", "--out", tmp_path / "o", "--precision", "half"
    )
    assert code == 3 and "precision" in said and "bfloat16" in said
