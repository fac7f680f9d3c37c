"""Against the real libraries: what they see of a victim, an attack, a set is what we see; examples run."""

from __future__ import annotations

import json
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support.speech import RATE, clip
from typer.testing import CliRunner

from staanet import audio, storage
from staanet.attacks import PGD, Random, SigmaZero, SparseRS, Staa, craft
from staanet.cli import app
from staanet.core import Budget, Targeted, Untargeted
from staanet.errors import InvalidInput
from staanet.generators.registry import build_generator
from staanet.victims import CallableVictim, build_victim

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = ("anger", "joy", "fear")


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    return build_victim("emo18", LABELS).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def clips():
    return [clip(0.25, 200.0 + 150 * n, n, label=LABELS[n % 3], speaker=f"s{n}") for n in range(4)]


@pytest.fixture(scope="module")
def x(clips):
    return torch.stack([one.waveform for one in clips])


@pytest.fixture(scope="module")
def world(tmp_path_factory, victim, clips):
    """A victim's folder, a file of speech's shape, and an adversarial set."""
    root = tmp_path_factory.mktemp("interop")
    victim.save_pretrained(root / "victim")
    storage.write_bytes(root / "clip.wav", audio.encode(clips[0].pcm16, RATE))
    craft(Random(budget=Budget(epsilon=0.03, max_density=0.1)), victim, clips).save(root / "set")
    return root


def example(name, monkeypatch, capsys, *arguments):
    """What an example prints, run as a script."""
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out


# ---------------------------------------------------------------- ART


def test_an_estimator_of_art_answers_and_slopes_as_the_victim(victim, x):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    from staanet.apps.interop import art

    seen = art.estimator(victim, x.shape[1])
    assert seen.labels == LABELS and seen.nb_classes == 3
    assert np.array_equal(seen.clip_values, [-1, 1])
    np.testing.assert_allclose(seen.predict(x.numpy()), victim(x).numpy(), atol=1e-5)
    y = torch.tensor([0, 1, 2, 0])
    ours = x.clone().requires_grad_()
    F.cross_entropy(victim(ours), y, reduction="sum").backward()
    # ART gives the gradient of the mean loss of a batch: one clip at a time makes both the same
    theirs = np.concatenate(
        [seen.loss_gradient(x[n : n + 1].numpy(), np.eye(3)[[int(y[n])]]) for n in range(4)]
    )
    np.testing.assert_allclose(theirs, ours.grad.numpy(), rtol=1e-3, atol=1e-6)
    again = x.clone().requires_grad_()
    victim(again)[:, 1].sum().backward()
    theirs = seen.class_gradient(x.numpy(), label=1)[:, 0]
    np.testing.assert_allclose(theirs, again.grad.numpy(), rtol=1e-3, atol=1e-6)


def attacks():
    budget = Budget(epsilon=0.05, max_density=0.2)
    torch.manual_seed(1)
    generator = build_generator("small").requires_grad_(False).eval()
    return {
        "pgd": PGD(budget=budget, steps=3),
        "random": Random(budget=budget),
        "sigma_zero": SigmaZero(budget=budget, steps=5),
        "sparse_rs": SparseRS(budget=budget, steps=5),
        "staa": Staa(generator=generator, budget=budget),
    }


@pytest.mark.parametrize("name", ["pgd", "random", "sigma_zero", "sparse_rs", "staa"])
def test_an_evasion_of_art_is_the_attack_itself(victim, x, name):
    evasion = pytest.importorskip("art.attacks", reason="adversarial-robustness-toolbox")
    from staanet.apps.interop import art

    attack, seen = attacks()[name], art.estimator(victim, x.shape[1])
    made = art.evasion(attack, seen, batch_size=3)
    assert isinstance(made, evasion.EvasionAttack)
    whole = attack(victim, x, Untargeted(victim(x).argmax(dim=1)))
    got = made.generate(x.numpy())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole.numpy(), atol=1e-6)
    assert np.abs(got - x.numpy()).max() <= 0.05 + 1e-6
    assert ((got != x.numpy()).mean(axis=1) <= 0.2).all()
    one_hot = np.eye(3)[victim(x).argmax(dim=1).numpy()]
    np.testing.assert_array_equal(made.generate(x.numpy(), y=one_hot), got)


def test_a_targeted_evasion_aims_where_art_says(victim, x):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    from staanet.apps.interop import art

    attack = PGD(budget=Budget(epsilon=0.05), steps=3)
    made = art.evasion(attack, art.estimator(victim, x.shape[1]), targeted=True)
    wanted = torch.tensor([1, 2, 0, 1])
    with_eot = attack(victim, x, Targeted(wanted)).numpy()
    np.testing.assert_allclose(made.generate(x.numpy(), y=wanted.numpy()), with_eot, atol=1e-6)
    with pytest.raises(InvalidInput, match="needs y"):
        made.generate(x.numpy())


def test_what_art_cannot_have_is_told(victim):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    from staanet.apps.interop import art

    with pytest.raises(InvalidInput, match=f"needs {victim.minimum_samples}"):
        art.estimator(victim, 1)
    black = CallableVictim(lambda w: np.zeros((len(w), 2)), labels=("a", "b"), sample_rate=RATE)
    with pytest.raises(InvalidInput, match="black box"):
        art.estimator(black, 4000)


def test_the_example_of_art_runs(world, monkeypatch, capsys):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    said = example("art_evasion", monkeypatch, capsys, world / "victim", world / "clip.wav")
    assert "FGM of ART: " in said and "sigma-zero: " in said and "samples changed" in said


# ---------------------------------------------------------------- Foolbox


def test_foolbox_within_craft_keeps_the_budget_and_lengths(victim, clips):
    foolbox = pytest.importorskip("foolbox")
    from staanet.apps.interop.foolbox import FoolboxAttack

    mixed = [*clips[:2], clip(0.31, 500.0, 9, label="joy")]
    attack = FoolboxAttack(
        attack=foolbox.attacks.LinfPGD(steps=3, random_start=False),
        budget=Budget(epsilon=0.03, max_density=0.1),
    )
    together = craft(attack, victim, mixed, batch_size=3)  # raises where the budget is broken
    alone = craft(attack, victim, mixed)
    for one, other in zip(together, alone, strict=True):
        assert 0 < len(one.support) <= 0.1 * len(one.adversarial)
        assert np.abs(one.delta).max() <= Budget(epsilon=0.03).epsilon_lsb
        assert np.abs(one.adversarial.astype(int) - other.adversarial).max() <= 1
    assert all(one.queries > 0 for one in together)


def test_foolbox_in_craft_is_foolbox_alone(victim, clips, x):
    foolbox = pytest.importorskip("foolbox")
    from staanet.apps.interop.foolbox import FoolboxAttack, model

    budget, answers = Budget(epsilon=0.03), victim(x).argmax(dim=1)
    theirs = foolbox.attacks.LinfFastGradientAttack()
    _, with_eot, _ = theirs(model(victim), x, answers, epsilons=budget.epsilon_lsb / 32768)
    made = craft(FoolboxAttack(attack=theirs, budget=budget), victim, clips, batch_size=4)
    for row, one in enumerate(made):
        np.testing.assert_array_equal(one.adversarial, audio.snap(with_eot[row].numpy()))


def test_a_smallest_change_of_foolbox_and_a_wanted_class(victim, clips):
    foolbox = pytest.importorskip("foolbox")
    from staanet.apps.interop.foolbox import FoolboxAttack

    fewest = FoolboxAttack(
        attack=foolbox.attacks.L0FMNAttack(steps=5), budget=Budget(epsilon=0.1, max_l0=40)
    )
    for one in craft(fewest, victim, clips[:2]):
        assert len(one.support) <= 40
    pgd = FoolboxAttack(attack=foolbox.attacks.LinfPGD(steps=2))
    assert len(craft(pgd, victim, clips[:1], label="fear")) == 1
    with pytest.raises(InvalidInput, match="Foolbox refuses"):
        fgsm = FoolboxAttack(attack=foolbox.attacks.LinfFastGradientAttack())
        craft(fgsm, victim, clips[:1], label="fear")


def test_the_example_of_foolbox_runs(world, tmp_path, monkeypatch, capsys):
    pytest.importorskip("foolbox")
    said = example(
        "foolbox_attack", monkeypatch, capsys, world / "victim", world / "clip.wav", tmp_path / "o"
    )
    assert "foolboxattack" in said and (tmp_path / "o" / "metadata.csv").is_file()


# ---------------------------------------------------------------- tables


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    library = pytest.importorskip("datasets", reason="Hugging Face datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return library


def test_the_example_of_datasets_runs(world, datasets, monkeypatch, capsys):
    said = example("hugging_face_audiofolder", monkeypatch, capsys, world / "set")
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"clip{n}" for n in range(4)]
    assert lines[1].startswith("clip1: joy, 0.100, 0.25 s")


def test_a_set_is_an_audiofolder_of_datasets(world, datasets, monkeypatch):
    """The library asks for torchcodec before it takes a path, and then does not use it for one."""
    for name in ("torchcodec", "torchcodec.encoders"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    if not hasattr(sys.modules["torchcodec.encoders"], "AudioEncoder"):
        sys.modules["torchcodec.encoders"].AudioEncoder = None
    opened = datasets.load_dataset("audiofolder", data_dir=str(world / "set"), split="train")
    for column, part in (("audio", "adversarial"), ("original", "clean")):
        opened = opened.cast_column(column, datasets.Audio(decode=False))
        paths = [Path(row[column]["path"]) for row in opened.select_columns(column)]
        assert paths == [world / "set" / part / f"clip{n}.wav" for n in range(4)]
    assert list(opened["label"]) == ["anger", "joy", "fear", "anger"]
    assert list(opened["l0"]) == [400] * 4


def test_a_set_is_a_database_of_audformat(world, clips, monkeypatch, capsys):
    audformat = pytest.importorskip("audformat")
    said = example("audformat_table", monkeypatch, capsys, world / "set")
    assert "anger" in said and "0.1" in said
    opened = audformat.Database.load(world / "set")
    table = opened["adversarial"].get()
    assert [Path(file).name for file in table.index] == [f"clip{n}.wav" for n in range(4)]
    assert all((world / "set" / file).is_file() for file in table.index)
    assert list(table["label"]) == [one.label for one in clips]
    (world / "set" / "db.yaml").unlink()
    done = CliRunner().invoke(app, ["to-audformat", str(world / "set"), "--json"])
    assert done.exit_code == 0, done.output
    assert Path(json.loads(done.stdout)["databases"][0]).is_file()
    done = CliRunner().invoke(app, ["to-audformat", str(world), "--json"])
    assert done.exit_code == 3 and json.loads(done.stdout)["remedy"]
    assert list(table["l0"]) == [400] * 4 and opened.schemes["speaker"].labels[0] == "s0"


# ---------------------------------------------------------------- transformers, TensorBoard


def test_a_speech_model_opens_in_a_pipeline_of_transformers(tmp_path, clips, monkeypatch, capsys):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = build_victim("wav2vec2", LABELS, config="tiny").requires_grad_(False).eval()
    small.save_pretrained(tmp_path / "v")
    storage.write_bytes(tmp_path / "clip.wav", audio.encode(clips[0].pcm16, RATE))
    said = example(
        "transformers_pipeline", monkeypatch, capsys, tmp_path / "v", tmp_path / "clip.wav"
    )
    told = {line.split(": ")[0]: float(line.split(": ")[1]) for line in said.splitlines()}
    with_eot = small(clips[0].waveform[None]).softmax(dim=1)[0]
    assert told == pytest.approx(dict(zip(LABELS, with_eot.tolist(), strict=True)), abs=1e-3)


def test_tensorboard_shows_what_training_noted(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    from staanet.apps.interop.tensorboard import log_training

    heard = []
    with log_training(tmp_path / "tensorboard", lambda *said: heard.append(said)) as progress:
        progress("train emo18", 1, 2, "")
        for step in (10, 20):
            progress.note("train emo18", {"epoch": step / 10, "step": step, "loss": 1 / step})
    assert heard == [("train emo18", 1, 2, "")]
    said = example("tensorboard_curves", monkeypatch, capsys, tmp_path / "tensorboard")
    assert said == "train_emo18 loss: 0.1 -> 0.05 at step 20\n"
