"""A recipe runs from corpus to report, skips what is done, resumes, and never mixes experiments."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas
import pytest
from tests.support import check_run

from staanet import audio, config, pipeline, storage
from staanet.core import Budget
from staanet.errors import FolderLocked, InvalidInput
from staanet.evaluation import perceptual
from staanet.evaluation.perceptual import Score
from staanet.results import adversarial_set
from staanet.victims import load_victim


def tree(folder):
    """Contents of every file that does not hold times."""
    timed = {
        "journal.jsonl",
        "training.csv",
        "seconds.csv",
        "results.parquet",
        "summary.json",
        "index.html",
        "matrix.md",
        "matrix.tex",
        "card.json",
        ".lock",
        "cells.csv",
        "cells.parquet",
    }
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in timed and "report" not in path.parts
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One tiny run, shared by the tests that only look at it."""
    from tests.support.recipes import TINY_RECIPE
    from tests.support.speech import RATE, tone

    root = tmp_path_factory.mktemp("pipeline")
    corpus = root / "tiny"
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            folder = corpus / label / f"s{speaker}"
            folder.mkdir(parents=True)
            hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
            storage.write_bytes(
                folder / "0.wav", audio.encode(tone(0.3, hz, 10 * number + speaker), RATE)
            )
    (root / "tiny.toml").write_text(TINY_RECIPE.format(corpus=corpus.as_posix()), encoding="utf-8")
    recipe = config.load_recipe(str(root / "tiny.toml"))
    context = pipeline.Context()
    matrix = pipeline.run(recipe, root / "run", command="staanet run tiny.toml", context=context)
    assert context.quarantine.rows == []
    return root, recipe, matrix


def test_every_stage_left_its_folder(done):
    root, _, matrix = done
    run = root / "run"
    for path in (
        "recipe.toml",
        "journal.jsonl",
        "card.json",
        "results/results.parquet",
        "results/summary.json",
        "report/index.html",
        "victims/emo18/model.safetensors",
        "generators/emo18/training.csv",
        "adversarial/staa__emo18/metadata.csv",
    ):
        assert (run / path).is_file(), path
    assert {(c["attack"], c["target"]) for c in matrix.cells} == {
        (a, t) for a in ("staa", "pgd", "random") for t in ("emo18", "zhao19")
    }
    assert not list(run.rglob("*.part")) and not list(run.rglob("checkpoint/*"))


def test_the_control_changed_as_many_samples_as_the_attack_clip_by_clip(done):
    root, _, _ = done
    staa, random = (
        pandas.read_csv(root / "run" / "adversarial" / f"{key}__emo18" / "metadata.csv").set_index(
            "id"
        )
        for key in ("staa", "random")
    )
    assert (staa.l0 == random.l0).all() and (staa.density <= 0.2).all() and (staa.l0 > 0).all()


def test_figures_are_those_of_the_files(done):
    root, recipe, _ = done
    rows = 0
    for folder in sorted((root / "run" / "adversarial").iterdir()):
        for row in pandas.read_csv(folder / "metadata.csv").itertuples():
            clean, rate = audio.read_int16(folder / row.original_file_name)
            adversarial, _ = audio.read_int16(folder / row.file_name)
            delta = adversarial.astype(int) - clean
            assert row.l0 == np.count_nonzero(delta)
            budget = Budget(epsilon=recipe.generator.epsilon)
            assert row.linf == np.abs(delta).max(initial=0) / 32768
            assert budget.violations(clean, adversarial, rate) == []
            rows += 1
    assert rows == 3 * 2  # three attacks on the two clips of one test speaker


def test_a_finished_run_is_skipped_and_gives_the_same_matrix(done):
    root, recipe, matrix = done
    before = tree(root / "run")
    again = pipeline.run(recipe, root / "run", context=pipeline.Context())
    assert again.cells == matrix.cells and tree(root / "run") == before


def test_another_recipe_in_the_same_folder_is_refused(done):
    root, _, _ = done
    other = config.load_recipe(str(root / "tiny.toml"), ["generator.steps=7"])
    with pytest.raises(InvalidInput) as error:
        pipeline.run(other, root / "run", context=pipeline.Context())
    assert "generator.steps" in str(error.value) and "--out" in str(error.value)


def test_a_finished_run_can_be_judged_after_a_channel_and_by_ear(done, tmp_path):
    root, _, matrix = done
    shutil.copytree(root / "run", tmp_path / "run")
    asked = ["channels=['gain:-6', 'mulaw']", "perceptual=true"]
    recipe = config.load_recipe(str(root / "tiny.toml"), asked)
    more = pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert [c["channel"] for c in more.cells].count("mulaw") == len(matrix.cells)
    for cell in matrix.cells:
        where = (cell["attack"], cell["source"], cell["target"])
        assert more.cell(*where) == cell
        assert more.cell(*where, "gain:-6")["count"] == cell["count"]
    assert {one["attack"] for one in more.summary["sets"]} == {"staa", "pgd", "random"}
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "After the channel" in page and "How it sounds" in page
    check_run.main(tmp_path / "run")


def test_a_channel_that_does_not_exist_is_told_before_any_training(done, tmp_path):
    root, _, _ = done
    recipe = config.load_recipe(str(root / "tiny.toml"), ["channels=['mp4']"])
    with pytest.raises(InvalidInput, match="unknown transform 'mp4'"):
        pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert not (tmp_path / "run").exists()


def test_what_was_heard_is_not_listened_to_again(done, tmp_path, monkeypatch):
    root, _, _ = done
    folder = root / "run" / "adversarial" / "staa__emo18"
    heard = []

    def panel(clean, adversarial, rate):
        if heard:
            raise StoppedError
        heard.append(adversarial.tobytes())
        return {"pesq_wb": Score(2.5), "stoi": Score(None, "too short")}

    monkeypatch.setattr(perceptual, "panel", panel)
    victim = [load_victim(root / "run" / "victims" / "emo18")]
    with pytest.raises(StoppedError):
        pipeline.evaluate([folder], victim, tmp_path, perceptual=True, context=pipeline.Context())
    heard.clear()
    whole = len(adversarial_set.read_rows(folder))
    scores = {"pesq_wb": Score(2.5), "stoi": Score(None, "too short")}
    monkeypatch.setattr(perceptual, "panel", lambda *pair: (heard.append(pair), scores)[1])
    matrix = pipeline.evaluate(
        [folder], victim, tmp_path, perceptual=True, context=pipeline.Context()
    )
    assert len(heard) == whole - 1 > 0
    pesq = matrix.summary["sets"][0]["perceptual"]["pesq_wb"]
    assert (pesq["value"], pesq["count"]) == (2.5, whole)
    monkeypatch.setattr(perceptual, "versions", lambda: {"pesq": "another"})
    pipeline.evaluate([folder], victim, tmp_path, perceptual=True, context=pipeline.Context())
    assert len(heard) == 2 * whole - 1, "another judge listens anew"


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    "stage",
    [
        "train zhao19",
        "train generator on emo18",
        "attack with pgd from emo18",
        "evaluate staa from emo18",
    ],
)
def test_a_run_stopped_in_any_stage_resumes_to_the_same_files(done, tmp_path, stage):
    root, recipe, matrix = done

    def stop(what, step, total, figures=""):
        if what == stage and step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        pipeline.run(recipe, tmp_path / "run", context=pipeline.Context(progress=stop))
    resumed = pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert tree(tmp_path / "run") == tree(root / "run")
    rates = [(c["attack"], c["target"], c["fooling_rate"], c["mean"]) for c in matrix.cells]
    assert rates == [
        (c["attack"], c["target"], c["fooling_rate"], c["mean"]) for c in resumed.cells
    ]


def test_a_stage_made_from_other_inputs_is_not_reused(done, tmp_path):
    root, recipe, _ = done
    shutil.copytree(root / "run", tmp_path / "run")
    card = tmp_path / "run" / "victims" / "emo18" / "card.json"
    told = json.loads(card.read_text())
    told["inputs"]["split"] = "another split"
    card.write_text(json.dumps(told))
    with pytest.raises(InvalidInput) as error:
        pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert "was made from another split" in str(error.value)


def test_two_runs_in_one_folder_are_kept_apart(done):
    root, recipe, _ = done
    with storage.FolderLock(root / "run"), pytest.raises(FolderLocked):
        pipeline.run(recipe, root / "run", context=pipeline.Context())


def test_a_generator_finds_its_source_and_notices_another(done, tmp_path):
    root, _, _ = done
    assert pipeline.source_of(root / "run" / "generators" / "emo18").name == "emo18"
    shutil.copytree(root / "run" / "generators" / "emo18", tmp_path / "g")
    with pytest.raises(InvalidInput) as error:
        pipeline.source_of(tmp_path / "g")
    assert "--source" in str(error.value)


@pytest.mark.parametrize("label", [None, "each"])
def test_clips_attacked_in_groups_are_what_they_are_alone(done, tmp_path, label):
    from staanet.core import Clip

    root, _, _ = done
    source = load_victim(root / "run" / "victims" / "emo18")
    rng = np.random.default_rng(0)
    clips = [
        Clip(f"c{n}", audio.snap(0.1 * rng.standard_normal(1600 + 40 * n)), 16_000, "low", "s")
        for n in range(6)
    ]
    clips.insert(2, Clip("short", clips[0].pcm16[:50], 16_000, "low", "s"))
    made = {}
    for size in (1, 4):
        recipe = config.AttackRecipe(attack="pgd", batch_size=size, settings={"steps": 2})
        plan = pipeline.plan_attack("pgd", recipe, source, label=label, context=pipeline.Context())
        assert plan.inputs["recipe"].get("batch_size", 1) == size
        told = []

        def progress(what, number, total, figures, told=told):
            told.append(number)
            if len(told) == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipeline.attack(
                plan,
                clips,
                tmp_path / str(size),
                context=pipeline.Context(quarantine=pipeline.Quarantine(), progress=progress),
            )
        quarantine = pipeline.Quarantine()  # and goes on where it was
        made[size] = pipeline.attack(
            plan,
            clips,
            tmp_path / str(size),
            context=pipeline.Context(quarantine=quarantine, progress=progress),
        )
        assert [row["file"] for row in quarantine.rows] == ["short"]
        assert told[1:] == (list(range(1, 8)) if size == 1 or label else [4, 7])
    for one, other in zip(made[1].clips, made[4].clips, strict=True):
        assert one.clean.id == other.clean.id
        assert (one.adversarial == other.adversarial).mean() > 0.95
