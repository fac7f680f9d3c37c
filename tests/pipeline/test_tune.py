"""The search: figures are those of the generators, the front is the front, a kill changes nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from staanet import config, pipeline, storage, training
from staanet.attacks import Staa
from staanet.cli import app
from staanet.core import Budget, silent
from staanet.corpora import load_corpus
from staanet.errors import InvalidInput
from staanet.generators.losses import Objective
from staanet.generators.registry import load_generator
from staanet.pipeline import tune
from staanet.pipeline.train_generator import GeneratorTraining
from staanet.pipeline.tune import pareto
from staanet.training.generators import GeneratorSettings
from staanet.victims import build_victim, load_victim


@pytest.fixture(autouse=True)
def _extra() -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    training.seed_weights(0)
    build_victim("emo18", ("high", "low")).save_pretrained(tmp_path / "emo18")
    return tmp_path / "emo18"


def words(corpus: Path, victim: Path, out: Path, trials: int, *more: object) -> list[str]:
    return [
        str(word)
        for word in (
            "tune",
            f"folder:{corpus}",
            "--source",
            victim,
            "--trials",
            trials,
            "--out",
            out,
            "--steps",
            2,
            "--batch-size",
            2,
            "--seconds",
            0.15,
            *more,
        )
    ]


def staanet(*line: str) -> tuple[int, str, str]:
    made = CliRunner().invoke(app, list(line))
    return made.exit_code, made.stdout, made.stderr


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "trials.csv").read_text())))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_none_beats_and_it_beats_all_others(points) -> None:
    best = pareto(points)
    front = [point for point, mark in zip(points, best, strict=True) if mark]
    assert max(points, key=lambda p: (p[0], -p[1])) in front
    for point, mark in zip(points, best, strict=True):
        beaten = any(f != point and f[0] >= point[0] and f[1] <= point[1] for f in front)
        assert beaten != mark


def test_figures_are_those_of_the_generators_and_a_search_goes_on(
    tiny_corpus: Path, victim: Path, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    code, text, said = staanet(*words(tiny_corpus, victim, out, 2))
    assert code == 0, said
    assert "are beaten by none" in text and (out / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    two = rows(out)
    code, told, said = staanet(*words(tiny_corpus, victim, out, 3, "--json"))
    assert code == 0, said
    three = json.loads(told)["trials"]
    assert [row["trial"] for row in three] == [0, 1, 2] and len(rows(out)) == 3
    strip = [{k: v for k, v in row.items() if k != "pareto"} for row in rows(out)[:2]]
    assert strip == [{k: v for k, v in row.items() if k != "pareto"} for row in two]

    source, corpus = load_victim(victim), load_corpus(f"folder:{tiny_corpus}")
    dev = pipeline.load_clips(corpus.split(0)[1], source, pipeline.Context())
    for row in rows(out):
        generator = load_generator(out / "trials" / f"{int(row['trial']):04d}")
        share = float(row.get("max_density", 0.2))
        task = training.GeneratorTask.__new__(training.GeneratorTask)
        task.module, task.sources, task.dev = generator, [source], dev
        budget = Budget(epsilon=0.03, max_density=share)
        task.settings = GeneratorSettings(budget=budget, objective=Objective())
        fooled, figures = task.evaluate()
        assert isinstance(Staa(generator=generator, budget=budget), Staa)
        assert float(row["dev_fooling_rate"]) == pytest.approx(fooled, rel=1e-5)
        assert float(row["dev_density"]) == pytest.approx(figures["dev_density"], rel=1e-5)

    code, _, said = staanet(*words(tiny_corpus, victim, out, 3, "--epsilon", 0.05))
    assert code == 3 and "was made with recipe.epsilon = '-20 dB', now it is 0.05" in said


class KilledError(Exception):
    pass


def test_a_killed_search_ends_as_an_uninterrupted_one(
    tiny_corpus: Path, victim: Path, tmp_path: Path
) -> None:
    corpus, source = load_corpus(f"folder:{tiny_corpus}"), load_victim(victim)
    recipe = tune.published_recipe(
        {"network": "compact", "steps": 2, "batch_size": 2, "seconds": 0.15, "evaluate_every": 1}
    )

    def search(name: str, progress=silent) -> list[tune.Trial]:
        return tune.tune(
            corpus,
            source,
            tmp_path / name,
            recipe=recipe,
            trials=3,
            context=pipeline.Context(progress=progress),
        )

    def kill(what: str, done: int, total: int, figures: str = "") -> None:
        if what.startswith("trial 2/3: train") and done == 1:
            raise KilledError

    whole = search("whole")
    with pytest.raises(KilledError):
        search("killed", progress=kill)
    assert search("killed") == whole
    for number in range(3):
        cards = [
            storage.read_card(tmp_path / name / "trials" / f"{number:04d}", "generator")
            for name in ("whole", "killed")
        ]
        assert cards[0]["sha256"] == cards[1]["sha256"]
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def test_what_is_searched_lies_within_its_ranges() -> None:
    recipe = config.GeneratorRecipe(max_density=0.1)
    searched = tune.search_space(recipe)
    assert set(searched) <= set(recipe.__dataclass_fields__)
    assert all(0 < limits.low < limits.high for limits in searched.values())
    with pytest.raises(InvalidInput, match="Did you mean"):
        tune.published_recipe({"stepz": 3})


def test_a_torn_study_and_a_missing_optuna_are_told(
    tiny_corpus, victim, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "torn"
    out.mkdir()
    (out / ".lock").touch()  # of an earlier search
    (out / "study.db").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    code, _, said = staanet(*words(tiny_corpus, victim, out, 1))
    assert code == 3 and "study.db: is not the study of a search" in said
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    code, _, said = staanet(*words(tiny_corpus, victim, tmp_path / "no", 1))
    assert code == 3 and "pip install 'staanet[tune]'" in said


def test_a_loss_that_diverges_ends_a_trial_and_not_the_search(
    tiny_corpus: Path, victim: Path, tmp_path: Path, monkeypatch
) -> None:
    def diverging(*given, **about) -> None:
        raise InvalidInput("the loss became nan at step 3", remedy="Lower the learning rate")

    monkeypatch.setattr(GeneratorTraining, "work", diverging)
    code, _, said = staanet(*words(tiny_corpus, victim, tmp_path / "out", 2))
    assert code == 0, said
    assert {(row["dev_fooling_rate"], row["dev_density"]) for row in rows(tmp_path / "out")} == {
        ("0", "1")
    }
