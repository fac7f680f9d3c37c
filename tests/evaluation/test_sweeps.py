"""A sweep measures what was crafted, loses nothing when killed, and draws what its tables say."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas
import pytest
from tests.support.models import LinearVictim
from tests.support.speech import clip

from staanet import config, pipeline, storage
from staanet.attacks import PGD, craft
from staanet.config import AttackRecipe, SweepRecipe
from staanet.core import Budget, silent, stratified_subset
from staanet.errors import InvalidInput
from staanet.evaluation import sweeps
from staanet.report import sweep_charts, sweep_tables
from staanet.results.adversarial_set import AdversarialSet

EPSILONS, DENSITIES = (0.0005, 0.002, 0.01), (0.05, 0.3, 1.0)


@pytest.fixture
def clips():
    return [
        clip(0.1, 200.0 + 90 * n, n, id=f"c{n}", label="ab"[n % 2], speaker=f"s{n % 3}")
        for n in range(6)
    ]


@pytest.fixture
def plan(linear):
    other = LinearVictim(linear.weight.roll(5))
    other.name = "other"
    names = ("pgd", "random", "vfga")
    return pipeline.SweepPlan(
        recipe=SweepRecipe(attacks=names, epsilons=EPSILONS, densities=DENSITIES, clips=5),
        attacks={
            "pgd": AttackRecipe(title="PGD, every sample", settings={"steps": 3}),
            "random": AttackRecipe(match="pgd"),
            "vfga": AttackRecipe(settings={"steps": 60, "growth": 0.5}),
        },
        source=linear,
        targets=[linear, other],
        context=pipeline.Context(),
    )


def run(plan, clips, out, progress=silent, **more):
    context = pipeline.Context(progress=progress)
    return pipeline.sweep(replace(plan, context=context), clips, out, **more)


def untimed(frame):
    return frame.drop(columns=[name for name in frame.columns if name.startswith("seconds")])


def test_points_are_a_cross_or_a_grid_and_minimisers_run_once():
    cross = sweeps.sweep_points({"pgd": "pgd", "v": "vfga"}, EPSILONS, DENSITIES)
    assert [p.max_density for p in cross if p.attack == "v"] == [None]
    assert len(cross) == 3 + 3 - 1 + 1
    grid = sweeps.sweep_points({"pgd": "pgd"}, EPSILONS, DENSITIES, grid=True)
    assert len({p.name for p in grid}) == 9 and set(cross[:-1]) <= set(grid)


def test_a_sweep_measures_what_craft_makes(plan, clips, tmp_path):
    found = run(plan, clips, tmp_path / "s")
    assert len(found) == (5 + 5 + 1) * 2 and {row["count"] for row in found} == {5}
    frame = pandas.read_parquet(tmp_path / "s" / "sweep.parquet")
    assert len(frame) == len(found) == len(pandas.read_csv(tmp_path / "s" / "sweep.csv"))
    rows = pandas.read_parquet(tmp_path / "s" / "clips.parquet")
    budget = Budget(epsilon=0.002, max_density=1.0)
    made = craft(PGD(budget=budget, steps=3), plan.source, stratified_subset(clips, 5))
    own = rows[(rows.attack == "pgd") & (rows.epsilon == 0.002) & (rows.target == "linear")]
    for one, row in zip(made, own.itertuples(), strict=True):
        told = one.measurements()
        assert (row.id, row.l0, row.density) == (one.clean.id, told["l0"], told["density"])
        assert row.snr_db == pytest.approx(told["snr_db"]) and row.queries == one.queries
    assert (rows.density <= rows.max_density.fillna(1) + 1e-9).all()
    assert (rows.linf <= rows.epsilon).all()
    fooled = own.clean_prediction != own.adversarial_prediction
    cell = frame[
        (frame.attack == "pgd") & (frame.epsilon == 0.002) & (frame.target == "linear")
    ].iloc[0]
    assert cell.fooling_rate == pytest.approx(fooled.mean()) and cell.title == "PGD"
    assert bool(frame[frame.attack == "random"].control.all())


def test_a_larger_epsilon_never_fools_fewer_of_a_linear_victim(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s")
    frame = pandas.read_parquet(tmp_path / "s" / "sweep.parquet")
    own = frame[(frame.attack == "pgd") & (frame.target == "linear")]
    along = own[own.max_density == 1].sort_values("epsilon").fooling_rate
    across = own[own.epsilon == 0.01].sort_values("max_density").fooling_rate
    assert along.is_monotonic_increasing and across.is_monotonic_increasing
    assert along.iloc[-1] > along.iloc[0]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 7, 32])
def test_a_killed_sweep_goes_on_with_the_next_clip(plan, clips, tmp_path, at):
    whole = run(plan, clips, tmp_path / "whole")

    def stop(what, done, total, figures=""):
        if done == at:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(plan, clips, tmp_path / "s", progress=stop)
    journal = storage.Journal(tmp_path / "s" / "journal.jsonl")
    assert len(journal.records()) == at
    made = journal.records()
    resumed = run(plan, clips, tmp_path / "s")
    assert not journal.path.exists() and len(resumed) == len(whole)
    frames = [pandas.read_parquet(tmp_path / name / "clips.parquet") for name in ("s", "whole")]
    assert untimed(frames[0]).equals(untimed(frames[1]))
    kept = frames[0].drop_duplicates(["attack", "epsilon", "max_density", "id"]).seconds[:at]
    assert list(kept) == [record["seconds"] for record in made]  # not made again


def test_a_finished_sweep_is_skipped_and_another_one_refused(plan, clips, tmp_path):
    first = run(plan, clips, tmp_path / "s")

    def never(what, done, total, figures=""):
        raise AssertionError(what)

    again = run(plan, clips, tmp_path / "s", progress=never)
    assert [row["fooling_rate"] for row in again] == [row["fooling_rate"] for row in first]
    with pytest.raises(InvalidInput, match="was made from other clips"):
        run(plan, clips[:4], tmp_path / "s")
    storage.write_json(tmp_path / "half" / storage.UNFINISHED, {"clips": "other"})
    with pytest.raises(InvalidInput, match="was begun with attacks"):
        run(plan, clips, tmp_path / "half")


def test_kept_audio_is_what_was_measured(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s", keep=True)
    rows = pandas.read_parquet(tmp_path / "s" / "clips.parquet")
    folder = tmp_path / "s" / "audio" / "random__eps-0.01__density-0.3"
    made = AdversarialSet.load(folder)
    own = rows[(rows.attack == "random") & (rows.max_density == 0.3) & (rows.target == "linear")]
    assert {one.clean.id: one.measurements()["l0"] for one in made} == dict(zip(own.id, own.l0))
    assert len(list((tmp_path / "s" / "audio").iterdir())) == 11


def test_no_audio_is_kept_unless_wanted(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s")
    names = {path.name for path in (tmp_path / "s").rglob("*")}
    assert names == {
        "card.json",
        "clips.parquet",
        "sweep.csv",
        "sweep.parquet",
        "sweep.pdf",
        "sweep.png",
        "sweep.svg",
    }
    for name, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert (tmp_path / "s" / f"sweep.{name}").read_bytes().startswith(start)


def test_the_figure_is_the_same_each_time_and_says_its_figures(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s")
    swept = sweep_tables.read(tmp_path / "s")
    assert swept.targets == ["linear", "other"]
    before = (tmp_path / "s" / "sweep.svg").read_bytes()
    pdf = (tmp_path / "s" / "sweep.pdf").read_bytes()
    sweep_charts.write(tmp_path / "s", swept)
    assert (tmp_path / "s" / "sweep.svg").read_bytes() == before
    assert (tmp_path / "s" / "sweep.pdf").read_bytes() == pdf
    text = re.sub(r"<[^>]*>", " ", before.decode())
    for word in ("PGD", "random", "vfga", "linear · white box", "other · transfer", "SNR, dB"):
        assert word in text, word
    picture = sweep_charts.draw_chart(swept)
    assert "PGD on linear at epsilon 0.01" in picture.alt and "nan" not in picture.alt


def test_a_minimisers_curve_counts_clips_fooled_with_at_most_so_many_samples(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s")
    figure = sweep_charts.build_figure(sweep_tables.read(tmp_path / "s"), 9.6)
    rows = pandas.read_parquet(tmp_path / "s" / "clips.parquet")
    own = rows[(rows.attack == "vfga") & (rows.target == "linear")]
    hits = own[own.clean_prediction != own.adversarial_prediction]
    assert len(hits) > 1
    line = next(one for one in figure.axes[1].lines if one.get_drawstyle() == "steps-post")
    assert np.allclose(line.get_xdata(), sorted(hits.density))
    assert np.allclose(line.get_ydata(), 100 * np.arange(1, len(hits) + 1) / len(own))


def test_a_damaged_table_is_named(plan, clips, tmp_path):
    run(plan, clips, tmp_path / "s")
    (tmp_path / "s" / "sweep.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match="staanet sweep again"):
        sweep_tables.read(tmp_path / "s")
    pandas.DataFrame({"attack": ["pgd"]}).to_parquet(tmp_path / "s" / "sweep.parquet")
    with pytest.raises(InvalidInput, match="staanet sweep again"):
        sweep_tables.read(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(InvalidInput, match="no such folder"):
        sweep_tables.read(tmp_path / "s")


def test_a_clip_too_short_for_a_target_is_put_aside(plan, clips, tmp_path):
    plan.targets[1].minimum_samples = 1000
    short = clip(0.05, id="short", label="a", speaker="s0")
    found = pipeline.sweep(plan, [*clips, short], tmp_path / "s")
    assert [row["id"] for row in plan.context.quarantine.rows] == ["short"]
    assert {row["count"] for row in found} == {5}
    card = json.loads((tmp_path / "s" / "card.json").read_text())
    assert card["chosen"].startswith("5 of 7 clips")


@pytest.mark.parametrize(
    "values, said",
    [
        ({"attacks": ["pgd"], "epsilons": []}, "epsilons"),
        ({"attacks": ["pgd"], "densities": [0.0]}, "greater than 0"),
        ({"attacks": ["pgd"], "clipz": 3}, "Did you mean 'sweep.clips'"),
    ],
)
def test_a_mistake_in_a_sweep_is_named(values, said):
    recipe = {
        "name": "x",
        "corpus": "synthetic:",
        "victims": {"emo18": {}},
        "generator": {},
        "attacks": {"pgd": {}},
        "sweep": values,
    }
    with pytest.raises(InvalidInput, match=re.escape(said)):
        config.parse_recipe(recipe)
