"""Training learns, keeps its best, resumes bit for bit, and says when a mask collapses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, clip, tone

from staanet import storage, training
from staanet.core import Budget, Clip, silent
from staanet.errors import InvalidInput
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator
from staanet.transforms import parse_transform
from staanet.victims import build_victim

LABELS = ("high", "low")


def tones(speakers: range) -> list:
    return [
        clip(0.3, hz * (1 + 0.02 * s), 100 * s + n, id=f"{label}{s}", label=label, speaker=f"s{s}")
        for s in speakers
        for n, (label, hz) in enumerate((("high", 1500.0), ("low", 200.0)))
    ]


def schedule(**changes):
    settings = {"steps": 12, "batch_size": 4, "seconds": 0.25, "evaluate_every": 4, "seed": 1}
    return training.Schedule(**(settings | changes))


def new_victim():
    training.seed_weights(0)
    return build_victim("zhao19", LABELS)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A training of 40 steps on high and low tones: its victim, its history and its folder."""
    made, folder = new_victim(), tmp_path_factory.mktemp("victim")
    history = training.train_victim(
        made, tones(range(6)), tones(range(6, 9)), schedule(steps=40), folder
    )
    return made, history, folder


@pytest.fixture(scope="module")
def victim(learned):
    """A victim that tells a high tone from a low one."""
    return learned[0]


def test_a_victim_learns_and_its_history_is_written(learned):
    made, history, folder = learned
    assert history.best_score == 1.0
    lines = (folder / "training.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,") and {"loss", "dev_uar"} <= {*lines[0].split(",")}
    assert len(lines) == 1 + len(history.rows) == 11
    assert not made.training and not any(p.requires_grad for p in made.parameters())


class StoppedError(Exception):
    pass


def stop_at(step):
    def progress(what, done, total, figures):
        if done == step:
            raise StoppedError

    return progress


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A training of 12 steps that nothing stops: its victim and its history."""
    whole = new_victim()
    train, dev = tones(range(6)), tones(range(6, 9))
    return whole, training.train_victim(
        whole, train, dev, schedule(), tmp_path_factory.mktemp("whole")
    )


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_stopped_victim_training_resumes_bit_for_bit(uninterrupted, tmp_path, stop):
    train, dev = tones(range(6)), tones(range(6, 9))
    whole, one = uninterrupted
    with pytest.raises(StoppedError):
        training.train_victim(
            new_victim(), train, dev, schedule(), tmp_path, progress=stop_at(stop)
        )
    resumed = new_victim()
    two = training.train_victim(resumed, train, dev, schedule(), tmp_path)
    for (name, a), (_, b) in zip(
        whole.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert one.best_step == two.best_step
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in one.rows]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in two.rows]


def fitted_generator(victim, folder, progress=silent, density=None, **changes):
    training.seed_weights(0)
    generator = build_generator("small", density)
    history = training.train_generator(
        generator,
        victim,
        tones(range(6)),
        tones(range(6, 9)),
        schedule(**changes),
        folder,
        settings=training.GeneratorSettings(
            budget=Budget(epsilon=0.05, max_density=0.5), objective=Objective()
        ),
        progress=progress,
    )
    return generator, history


def test_a_stopped_generator_training_resumes_bit_for_bit(victim, tmp_path):
    short = {"steps": 6, "evaluate_every": 2}
    whole, _ = fitted_generator(victim, tmp_path / "whole", **short)
    with pytest.raises(StoppedError):
        fitted_generator(victim, tmp_path / "half", stop_at(5), **short)
    resumed, _ = fitted_generator(victim, tmp_path / "half", **short)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_generator_learns_to_fool_and_its_victim_is_left_alone(victim, tmp_path):
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    _, history = fitted_generator(victim, tmp_path, steps=40)
    first, last = history.rows[0]["adversarial"], history.rows[-1]["adversarial"]
    assert last < first - 0.5
    assert all(torch.equal(v, before[k]) for k, v in victim.state_dict().items())
    assert not any(p.requires_grad for p in victim.parameters())
    columns = (tmp_path / "training.csv").read_text().splitlines()[0].split(",")
    assert {
        "adversarial",
        "magnitude",
        "sparsity",
        "quantisation",
        "fooling_rate",
        "density",
        "snr_db",
        "dev_fooling_rate",
        "sparsity_weight",
    } <= set(columns)


def test_a_built_in_density_comes_down_and_needs_no_sparsity_weight(victim, tmp_path):
    _, history = fitted_generator(victim, tmp_path, steps=12, evaluate_every=2, density=0.5)
    shares = [row["density"] for row in history.rows]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.85
    assert shares[-1] == pytest.approx(0.5, abs=0.01)
    assert all(row["sparsity_weight"] == 0 for row in history.rows)


def test_training_hears_what_a_channel_leaves(victim, tmp_path):
    """Behind rounding to a half nothing of these clips is left, so nothing can fool there."""
    quiet = [Clip(f"{hz}", tone(0.3, hz, level=0.05), RATE) for hz in (200.0, 400.0, 1500.0)]
    plain, through = (
        training.train_generator(
            build_generator("small", 0.5),
            victim,
            quiet,
            quiet,
            schedule(steps=8),
            tmp_path / name,
            settings=training.GeneratorSettings(
                budget=Budget(epsilon=0.05), objective=Objective(), augment=ways
            ),
        )
        for name, ways in (("plain", []), ("through", [parse_transform("quantise:2")]))
    )
    assert through.best_score <= 0.5  # of two ways to the source, one says the same to all
    assert [row["adversarial"] for row in through.rows] != [
        row["adversarial"] for row in plain.rows
    ]


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path):
    made = new_victim()
    with torch.no_grad():
        made.network.head.weight.fill_(math.nan)
    with pytest.raises(InvalidInput) as error:
        training.train_victim(made, tones(range(6)), tones(range(6, 9)), schedule(), tmp_path)
    assert "loss became nan at step 0" in str(error.value)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path):
    train, dev = tones(range(6)), tones(range(6, 9))
    with pytest.raises(StoppedError):
        training.train_victim(
            new_victim(), train, dev, schedule(), tmp_path / "half", progress=stop_at(9)
        )
    newest = sorted((tmp_path / "half" / "checkpoint").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert storage.latest_checkpoint(tmp_path / "half" / "checkpoint") is not None
    resumed = new_victim()
    training.train_victim(resumed, train, dev, schedule(), tmp_path / "half")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            uninterrupted[0].state_dict().values(), resumed.state_dict().values(), strict=True
        )
    )


def test_a_batch_depends_on_seed_and_step_alone():
    crops = training.Crops(tones(range(4)), schedule())
    again = training.Crops(tones(range(4)), schedule())
    assert torch.equal(crops.draw(7)[0], again.draw(7)[0])
    assert not torch.equal(crops.draw(7)[0], crops.draw(8)[0])
    other = training.Crops(tones(range(4)), schedule(seed=2))
    assert not torch.equal(crops.draw(7)[0], other.draw(7)[0])
    x, chosen = crops.draw(0)
    assert x.shape == (4, 4000) and len(chosen) == 4 and x.abs().max() <= 1


def test_balanced_drawing_makes_classes_equally_frequent():
    labels = ["joy"] * 90 + ["fear"] * 10
    crops = training.Crops(
        [clip(0.1, label=label) for label in labels],
        schedule(batch_size=50),
        training.crops.class_weights(labels),
    )
    drawn = np.concatenate([crops.draw(step)[1] for step in range(40)])
    assert 0.45 < np.mean(drawn < 90) < 0.55


@pytest.mark.parametrize("density, said", [(0.0, "mask empty"), (1.0, "mask full"), (0.2, None)])
def test_a_collapsed_mask_is_flagged(density, said):
    flags = training.collapse_flags({"density": density})
    assert (said in flags[0]) if said else flags == []
