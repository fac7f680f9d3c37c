"""Adversarial training withstands more than plain, resumes bit for bit, and tells what it costs."""

from __future__ import annotations

import json

import pytest
import torch
from tests.support.commands import staanet
from tests.support.speech import RATE, clip, tone

from staanet import audio, storage, training
from staanet.attacks import PGD
from staanet.config import HardenRecipe
from staanet.core import Budget, Untargeted, silent
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.generators.warm_start import backward_net_from
from staanet.training import adversarial as adversarial_training
from staanet.training.adversarial import METHODS, AdversarialTraining, Divergence
from staanet.transforms import parse_transform
from staanet.victims import CallableVictim, build_victim, load_victim

LABELS = ("high", "low")


def tones(speakers: range) -> list:
    return [
        clip(0.3, hz * (1 + 0.02 * s), 100 * s + n, id=f"{label}{s}", label=label, speaker=f"s{s}")
        for s in speakers
        for n, (label, hz) in enumerate((("high", 1500.0), ("low", 200.0)))
    ]


def schedule(**changes):
    settings = {"steps": 6, "batch_size": 4, "seconds": 0.25, "evaluate_every": 3, "seed": 1}
    return training.Schedule(**(settings | changes))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A victim that tells a high tone from a low one, as a folder."""
    training.seed_weights(0)
    made, folder = build_victim("zhao19", LABELS), tmp_path_factory.mktemp("plain")
    training.train_victim(
        made, tones(range(6)), tones(range(6, 9)), schedule(steps=40, evaluate_every=10), folder
    )
    made.save_pretrained(folder)
    return folder


def how(method, epsilon=0.02, **changes):
    density = 0.3 if method in adversarial_training.SPARSE else None
    recipe = HardenRecipe(
        method=method, epsilon=epsilon, max_density=density, inner_steps=2, **changes
    )
    return AdversarialTraining(recipe)


def hardened(plain, folder, method, progress=silent):
    victim, way = load_victim(plain), how(method)
    training.seed_weights(0)
    generator = backward_net_from(victim, 0.3, 0.02) if method == "staa" else None
    history, cost = adversarial_training.train_adversarially(
        victim,
        tones(range(6)),
        tones(range(6, 9)),
        schedule(steps=4, evaluate_every=2),
        folder,
        method=way,
        generator=generator,
        progress=progress,
    )
    return victim, generator, history, cost


class StoppedError(Exception):
    pass


def stop_at(step):
    def progress(what, done, total, figures):
        if done == step:
            raise StoppedError

    return progress


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_hardening_resumes_bit_for_bit(plain, tmp_path, method):
    whole, own, one, _ = hardened(plain, tmp_path / "whole", method)
    with pytest.raises(StoppedError):
        hardened(plain, tmp_path / "half", method, stop_at(3))
    resumed, other, two, _ = hardened(plain, tmp_path / "half", method)
    before = load_victim(plain)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert any(
        not torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), before.state_dict().values(), strict=True)
    )
    if own is not None:
        assert all(
            torch.equal(a, b)
            for a, b in zip(own.state_dict().values(), other.state_dict().values(), strict=True)
        )
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in one.rows]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in two.rows]
    assert not whole.training and not any(w.requires_grad for w in whole.parameters())


def test_a_hardened_victim_withstands_what_fools_the_plain_one(plain, tmp_path):
    clips, attack = tones(range(9, 14)), PGD(budget=Budget(epsilon=0.1), steps=8)
    before = adversarial_training.attacked_uar(load_victim(plain), clips, attack)
    victim = load_victim(plain)
    adversarial_training.train_adversarially(
        victim,
        tones(range(6)),
        tones(range(6, 9)),
        schedule(steps=60, batch_size=8, evaluate_every=20),
        tmp_path,
        method=how("pgd", epsilon=0.1),
    )
    after = adversarial_training.attacked_uar(victim, clips, attack)
    assert before[0] == 1 and after[0] == 1  # both know the clean tones
    assert after[1] > before[1] + 0.3


def test_the_cost_is_over_plain_training_and_measuring_it_changes_nothing(plain):
    victim = load_victim(plain)
    crops = training.Crops(tones(range(6)), schedule(seconds=1.0))
    task = adversarial_training.AdversarialTask(victim, crops, [], how("pgd"))
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    cost = task.cost(steps=2)
    assert cost["times"] == pytest.approx(cost["step_s"] / cost["plain_step_s"])
    assert cost["times"] > 1.5  # twice the clips and three gradients more
    assert all(torch.equal(v, before[k]) for k, v in victim.state_dict().items())
    assert all(w.grad is None for w in victim.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_twins_keep_the_budget_and_the_rest_of_training_is_as_it_was(plain, method):
    victim, way = load_victim(plain), how(method)
    crops = training.Crops(tones(range(6)), schedule())
    task = adversarial_training.AdversarialTask(victim, crops, [], way)
    if method == "staa":
        task = adversarial_training.AdversarialTask(
            victim,
            crops,
            [],
            way,
            adversarial_training.rival_task(
                backward_net_from(victim, 0.3, 0.02), victim, crops, way.budget
            ),
        )
    x, y = task.batches(0)
    adversarial_training.freeze(victim)
    twins = task.attacked(x, y, 0)
    assert twins.shape == x.shape and torch.isfinite(twins).all() and not torch.equal(twins, x)
    if method not in ("gaussian", "ablation"):
        assert float((twins - x).abs().max()) <= 0.02 + 1e-6
        density = float(((twins != x).sum(dim=1) / x.shape[1]).max())
        assert density <= (0.3 if method in adversarial_training.SPARSE else 1.0) + 1e-6
    loss, _ = task.loss(0)
    loss.backward()
    assert all(torch.isfinite(w.grad).all() for w in task.module.parameters() if w.grad is not None)
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in victim.parameters())


def test_a_generator_beside_it_gets_no_gradient_into_the_victim(plain):
    """The rival's loss alone moves the generator alone, however the two losses are added."""
    victim, way = load_victim(plain), how("staa")
    crops = training.Crops(tones(range(6)), schedule())
    rival = adversarial_training.rival_task(
        backward_net_from(victim, 0.3, 0.02), victim, crops, way.budget
    )
    adversarial_training.freeze(victim)
    rival.loss(0)[0].backward()
    assert all(w.grad is None for w in victim.parameters())
    assert any(w.grad is not None for w in rival.module.parameters())


def test_weight_1_is_cross_entropy_on_the_twins_alone(plain):
    victim = load_victim(plain)
    crops = training.Crops(tones(range(6)), schedule())
    task = adversarial_training.AdversarialTask(victim, crops, [], how("pgd", weight=1.0))
    clean, adversarial = torch.randn(4, 2), torch.randn(4, 2)
    wanted = torch.tensor([0, 1, 1, 0])
    alone = torch.nn.functional.cross_entropy(adversarial, wanted)
    assert torch.allclose(task.victim_loss(clean, adversarial, wanted), alone)


def test_the_mean_starts_at_the_victim_and_follows_by_the_closed_form():
    one, other = (build_victim("zhao19", LABELS) for _ in range(2))
    before = {k: v.clone() for k, v in one.state_dict().items()}
    adversarial_training.update_mean(one, other, 0.9, 1)  # of few steps: by 9/11, not by 0.1
    adversarial_training.update_mean(one, other, 0.9, 10_000)
    for key, value in one.state_dict().items():
        wanted = other.state_dict()[key]
        if value.is_floating_point():
            wanted = before[key] + (1 - 0.9 * 2 / 11) * (wanted - before[key])
            assert torch.allclose(value, wanted, atol=1e-6), key
        else:
            assert torch.equal(value, wanted), key


def test_without_a_mean_the_weights_themselves_are_kept(plain, tmp_path):
    victim, way = load_victim(plain), how("pgd", average=0.0)
    crops = training.Crops(tones(range(6)), schedule())
    task = adversarial_training.AdversarialTask(victim, crops, [], way)
    assert task.result is victim and not any("mean." in key for key in task.module.state_dict())
    with_one = adversarial_training.AdversarialTask(victim, crops, [], how("pgd"))
    assert with_one.result is not victim
    loss, _ = with_one.loss(3)
    loss.backward()
    assert all(w.grad is None for w in with_one.result.parameters())


def test_epsilon_grows_and_the_smallest_is_a_tenth():
    way = how("pgd", epsilon=0.1, ramp=0.5)
    found = [way.attack(done).budget.epsilon for done in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.01, 0.05, 0.1, 0.1])
    assert how("pgd", epsilon=0.1, ramp=0.0).attack(0.0).budget.epsilon == 0.1


def test_a_victim_is_hardened_through_what_stands_before_it(plain, tmp_path):
    """Its weights move, the chain and the folder's kind stay."""
    behind = Defended(load_victim(plain), [parse_transform("lowpass:2000")])
    behind.save_pretrained(tmp_path / "behind")
    victim = load_victim(tmp_path / "behind")
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    adversarial_training.train_adversarially(
        victim,
        tones(range(6)),
        tones(range(6, 9)),
        schedule(),
        tmp_path / "hard",
        method=how("sparse_trades"),
    )
    moved = {k for k, v in victim.state_dict().items() if not torch.equal(v, before[k])}
    assert "settings_text" not in moved and any("conv.weight" in key for key in moved)
    victim.save_pretrained(tmp_path / "hard")
    again = load_victim(tmp_path / "hard")
    x = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    assert isinstance(again, Defended) and torch.allclose(again(x), victim(x), atol=1e-6)


@pytest.mark.parametrize("method", ["trades", "sparse_trades"])
def test_trades_is_zero_apart_from_cross_entropy_where_twins_answer_alike(plain, method):
    crops = training.Crops(tones(range(6)), schedule())
    task = adversarial_training.AdversarialTask(load_victim(plain), crops, [], how(method))
    logits, wanted = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    own = torch.nn.functional.cross_entropy(logits, wanted)
    assert torch.allclose(task.victim_loss(logits, logits.clone(), wanted), own)
    assert float(task.victim_loss(logits, -logits, wanted)) > float(own)


def test_divergence_is_that_of_torch():
    p, q = torch.randn(5, 3).softmax(dim=1), torch.randn(5, 3)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(p), torch.distributions.Categorical(logits=q)
    )
    assert torch.allclose(-Divergence(p).margin(q), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"method": "pdg"}, "Did you mean 'pgd'"),
        ({"method": "trades", "epsilon": 0.1, "max_density": 0.2}, "trades changes every sample"),
        ({"method": "pgd", "weight": 1.5}, "weight of pgd is 1.5"),
        ({"method": "gaussian", "sigma": 0.0}, "sigma is 0"),
        ({"average": 1.0}, "average 1.0"),
        ({"ramp": 1.5}, "ramp is 1.5"),
    ],
)
def test_settings_that_cannot_be_are_told(given, said):
    with pytest.raises(InvalidInput, match=said):
        AdversarialTraining(HardenRecipe(**given))


@pytest.mark.parametrize("method", METHODS)
def test_a_sparse_method_has_a_largest_density_and_others_none(method):
    density = AdversarialTraining(HardenRecipe(method=method)).budget.max_density
    assert density == (0.2 if method in adversarial_training.SPARSE else None)


def test_a_black_box_is_refused(tmp_path):
    box = CallableVictim(lambda x: x[:, :2], LABELS, RATE)
    with pytest.raises(InvalidInput, match="black box"):
        adversarial_training.train_adversarially(
            box, [], [], schedule(), tmp_path, method=how("pgd")
        )


@pytest.fixture(scope="module")
def world(plain, tmp_path_factory):
    root = tmp_path_factory.mktemp("harden")
    for label, hz in (("high", 1500.0), ("low", 200.0)):
        for s in range(6):
            storage.write_bytes(
                root / "tones" / label / f"s{s}" / "0.wav",
                audio.encode(tone(0.3, hz * (1 + 0.02 * s), s), RATE),
            )
    return root


@pytest.mark.parametrize("method", ["sparse_trades", "staa"])
def test_the_command_writes_a_victim_like_any_other(world, plain, tmp_path, method):
    given = [
        "harden",
        f"folder:{world / 'tones'}",
        "--victim",
        plain,
        "--method",
        method,
        "--steps",
        4,
        "--batch-size",
        4,
        "--seconds",
        0.25,
        "--inner-steps",
        1,
        "--out",
        "hard",
    ]
    name = "second" if method == "staa" else f"zhao19+{method}"
    given += ["--name", name] if method == "staa" else []
    done = staanet(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout and "x a plain one" in done.stdout
    card = json.loads((tmp_path / "hard" / "card.json").read_text())
    assert card["hardened"]["cost"]["times"] > 1 and card["hardened"]["from"] == "zhao19"
    assert card["hardened"]["budget"]["max_density"] == 0.2
    victim = load_victim(tmp_path / "hard")
    assert victim.name == name and not list((tmp_path / "hard").glob("checkpoint/*"))
    x = torch.randn(1, 4000)
    assert not torch.equal(victim(x), load_victim(plain)(x))
    weights = (tmp_path / "hard" / "model.safetensors").stat().st_mtime_ns
    assert staanet(*given, cwd=tmp_path).returncode == 0  # done: nothing is trained again
    assert (tmp_path / "hard" / "model.safetensors").stat().st_mtime_ns == weights
    if method == "staa":
        made = staanet(
            "attack",
            f"folder:{world / 'tones'}",
            "--generator",
            "hard/generator",
            "--out",
            "a",
            cwd=tmp_path,
        )
        assert made.returncode == 0, made.stderr
    else:
        other = staanet(*given, "--epsilon", 0.01, cwd=tmp_path)
        assert other.returncode == 3 and "Choose another --out" in other.stderr


def test_a_corpus_with_other_classes_is_refused(world, plain, tmp_path):
    (tmp_path / "tones").mkdir()
    for label in ("high", "other"):
        for s in range(3):
            storage.write_bytes(
                tmp_path / "tones" / label / f"s{s}" / "0.wav",
                audio.encode(tone(0.3, 300, s), RATE),
            )
    done = staanet("harden", "folder:tones", "--victim", plain, "--out", "h", cwd=tmp_path)
    assert done.returncode == 3 and "other" in done.stderr and "Traceback" not in done.stderr
    assert (
        staanet(
            "harden", f"folder:{world / 'tones'}", "--victim", plain, "--out", plain, cwd=tmp_path
        ).returncode
        == 3
    )


@pytest.mark.parametrize(
    "given, said",
    [
        (["--method", "sparse_tradse"], "Did you mean 'sparse_trades'"),
        (["--method", "pgd", "--weight", 3], "weight of pgd is 3.0"),
        (["--ramp", 2], "ramp"),
    ],
)
def test_mistakes_are_told_before_a_folder_is_made(world, plain, tmp_path, given, said):
    done = staanet(
        "harden", f"folder:{world / 'tones'}", "--victim", plain, "--out", "h", *given, cwd=tmp_path
    )
    assert done.returncode == 3 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "h").exists()


def test_goals_of_training_are_the_labels(linear):
    """PGD of the inner loop lowers the margin of the label, not of the victim's own answer."""
    x = 0.2 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(1))
    wrong = Untargeted(int(linear(x).argmax()) ^ 1)
    x_adv = how("pgd").attack()(linear, x, wrong)
    assert wrong.margin(linear(x_adv)) < wrong.margin(linear(x))
