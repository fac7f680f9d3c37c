"""A recipe with folds: each a run of its own, every clip tested once, pooled without the audio."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, tone

from staanet import audio, config, pipeline, report, storage
from staanet.config import parse_recipe
from staanet.errors import InvalidInput
from staanet.results import row_files
from staanet.results.run_folder import RunFolder
from staanet.storage.shards import Shard

SPEAKERS = 6


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two classes of tones by six speakers, one clip of each, and next to no steps."""
    root = tmp_path_factory.mktemp("corpus")
    for number, label in enumerate(("high", "low")):
        for speaker in range(SPEAKERS):
            hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
            samples = tone(0.25, hz, seed=10 * number + speaker)
            path = root / label / f"s{speaker}" / "0.wav"
            storage.write_bytes(path, audio.encode(samples, RATE))
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY_RECIPE.format(corpus=root.as_posix()), encoding="utf-8")
    steps = ("victims.emo18", "victims.zhao19", "generator")
    few = [f"{table}.{key}=2" for table in steps for key in ("steps", "evaluate_every")]
    return config.load_recipe(str(path), ["folds=3", "seeds=2", *few])


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """The second fold first, as another machine would; then all; only the whole gets a page."""
    out = tmp_path_factory.mktemp("run") / "run"
    build = report.build

    def stub(folder, **options):
        if folder.name == "run":
            return build(folder, **options)
        storage.write_text(folder / "report" / "index.html", "")
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "build", stub)
        alone = pipeline.run(recipe, out, shard=Shard(2, 3), context=pipeline.Context())
        assert alone is None and [p.name for p in (out / "folds").iterdir()] == ["2"]
        done = (out / "folds" / "2" / "results" / "summary.json").stat().st_mtime_ns
        matrix = pipeline.run(recipe, out, command="staanet run tiny", context=pipeline.Context())
        again = (out / "folds" / "2" / "results" / "summary.json").stat().st_mtime_ns
        assert again == done, "a finished fold is not done again"
    return out, matrix


def test_every_clip_is_counted_once(run):
    out, matrix = run
    cell = matrix.cell("staa", "emo18", "zhao19")
    assert cell["count"] == 2 * SPEAKERS and cell["speakers"] == SPEAKERS
    rows = row_files.read_parquet(out / "results" / "results.parquet")
    of_cell = [r for r in rows if (r["attack"], r["target"]) == ("staa", "zhao19")]
    assert len({row["id"] for row in of_cell}) == len(of_cell) == 2 * SPEAKERS
    fooled = [r["clean_prediction"] != r["adversarial_prediction"] for r in of_cell]
    assert cell["fooling_rate"]["value"] == pytest.approx(sum(fooled) / len(fooled))


def test_the_summary_tells_the_folds_apart(run):
    out, matrix = run
    folds = matrix.summary["folds"]
    assert [fold["fold"] for fold in folds] == [1, 2, 3]
    tested = [speaker for fold in folds for speaker in fold["speakers"]]
    assert len(tested) == len(set(tested)) == SPEAKERS
    card = storage.read_card(out, "run")
    assert list(card["corpus"]["split"]) == [f"test of fold {n}" for n in (1, 2, 3)]
    assert card["seconds"].keys() == {"fold 1", "fold 2", "fold 3"}


def test_models_of_a_fold_never_met_its_speakers(run):
    out, _ = run
    for number in (1, 2, 3):
        card = storage.read_card(out / "folds" / str(number), "run")
        assert card["corpus"]["protocol"] == f"fold:{number}/3"
        split = card["corpus"]["split"]
        assert not set(split["test"]["speakers"]) & set(split["train"]["speakers"])


def test_the_page_shows_the_spread_and_is_checked_against_the_files_of_the_folds(run):
    out, _ = run
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "Fold by fold" in page and "have no audio" not in page
    assert "Which differences are real" in page and "least difference shown" in page
    assert "simultaneous 95 % interval" in page
    folder = RunFolder.read(out)
    stored = folder.sets["staa", "emo18"]
    assert len(stored.rows) == 2 * SPEAKERS
    assert all(stored.has_audio(clip_id) for clip_id in stored.rows)


def test_a_second_training_of_each_generator_stands_beside_the_first(run):
    out, matrix = run
    cell = matrix.cell("staa", "emo18", "zhao19")
    assert len(cell["trainings"]) == 2 and cell["trainings"][0] == cell["fooling_rate"]["value"]
    rows = row_files.read_parquet(out / "results" / "trainings.parquet")
    of_cell = [row for row in rows if row["target"] == "zhao19"]
    fooled = [r["clean_prediction"] != r["adversarial_prediction"] for r in of_cell]
    assert cell["trainings"][1] == pytest.approx(sum(fooled) / len(fooled))
    assert len({row["id"] for row in of_cell}) == len(of_cell) == 2 * SPEAKERS
    assert "trainings" not in matrix.cell("pgd", "emo18", "zhao19")
    fold = out / "folds" / "1"
    cards = [
        storage.read_card(folder / "generators" / "emo18", "generator")
        for folder in (fold, fold / "trainings" / "2")
    ]
    assert cards[0]["sha256"] != cards[1]["sha256"] and cards[1]["inputs"]["draw"] == 1
    assert "2 trainings: " in (out / "report" / "index.html").read_text(encoding="utf-8")


def test_another_evaluation_keeps_what_was_trained(recipe, run, monkeypatch):
    out, _ = run
    monkeypatch.setattr(report, "build", lambda folder, **options: None)
    trained = (out / "folds" / "1" / "victims" / "emo18" / "card.json").stat().st_mtime_ns
    other = replace(recipe, channels=("mulaw",))
    matrix = pipeline.run(other, out, context=pipeline.Context())
    assert matrix.cell("staa", "emo18", "zhao19", "mulaw")["count"] == 2 * SPEAKERS
    assert (out / "folds" / "1" / "victims" / "emo18" / "card.json").stat().st_mtime_ns == trained


def test_the_dry_run_lists_each_fold_and_the_pool(recipe, tmp_path):
    plan = pipeline.dry_run(recipe, tmp_path / "new", pipeline.Context())
    names = [stage.name for stage in plan.stages]
    assert "fold 3: train-victim emo18" in names and names[-2:] == ["pool", "report"]
    assert not (tmp_path / "new").exists()
    times = {stage.name: stage.estimate for stage in plan.stages}
    assert times["fold 2: train-victim emo18"] > 0 and times["fold 1: evaluate"] > 0
    assert times["fold 3: attack pgd from emo18"] > 0 == times["fold 3: attack random from emo18"]
    assert plan.seconds_left == pytest.approx(sum(filter(None, times.values())))


def test_the_dry_run_of_a_finished_run_trains_and_attacks_nothing(recipe, run):
    plan = pipeline.dry_run(recipe, run[0], pipeline.Context())
    names = [stage.name.split(": ")[-1] for stage in plan.waiting]
    assert not [name for name in names if name.startswith(("train", "attack", "fold"))]


def test_other_folds_or_a_protocol_are_refused(recipe, run):
    with pytest.raises(InvalidInput, match="with folds = 3, now it is 4"):
        pipeline.run(replace(recipe, folds=4), run[0], context=pipeline.Context())
    with pytest.raises(InvalidInput, match="draws its own splits"):
        parse_recipe({**config.to_tree(recipe), "protocol": "manifest"})
    with pytest.raises(InvalidInput, match="--shard is for a recipe with folds"):
        alone = replace(recipe, folds=None)
        pipeline.run(alone, run[0] / "x", shard=Shard(1, 2), context=pipeline.Context())
