"""Every shipped recipe parses and names what exists; the whole comparison runs from end to end."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas
import pytest
from tests.support.hum_runs import check_run
from tests.support.speech import RATE, tone

from staanet import audio, config, pipeline, storage
from staanet.corpora import CORPORA
from staanet.errors import InvalidInput
from staanet.evaluation import CONTROLS
from staanet.pipeline import recipe_plan
from staanet.results.adversarial_set import AdversarialSet
from staanet.sanity import selfcheck
from staanet.victims import VICTIMS

RECIPES = sorted(config.shipped_recipes())


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_names_only_what_exists(name):
    recipe = config.load_recipe(name)
    assert recipe.corpus.split(":")[0] in CORPORA
    assert {one.network or key for key, one in recipe.victims.items()} <= set(VICTIMS)
    for key in recipe.attacks:
        recipe_plan.check_attack(key, recipe.attacks)
    controls = {one.match for key, one in recipe.attacks.items() if (one.attack or key) in CONTROLS}
    assert controls == {"staa"}  # every recipe has a control of equal samples


@pytest.mark.parametrize("corpus", ["iemocap", "demos"])
def test_the_paper_s_table_is_whole(corpus):
    recipe = config.load_recipe(f"paper_{corpus}")
    victims = {"emo18", "zhao19", "wav2vec2", "wavlm"}
    assert set(recipe.victims) == set(recipe.generator.sources) == victims
    assert recipe.generator.network == "paper" and recipe.generator.learning_rate == 1e-3
    for attack in ("pgd", "one_pixel"):
        limits = {
            one.max_l0 for key, one in recipe.attacks.items() if (one.attack or key) == attack
        }
        assert limits - {None} == {1, 6500, 26000, 35000}
    assert recipe.attacks["sparsefool"].settings == {
        "steps": 20,
        "control": 10.0,
        "overshoot": 0.02,
    }
    assert recipe.attacks["one_pixel_1"].settings["population"] == 300
    assert recipe.attacks["pgd"].epsilon == 0.01


@pytest.mark.parametrize(
    "override, said",
    [
        ("attacks.pgdd={}", "Did you mean 'pgd'"),
        ("attacks.pgd.settings={stepz = 3}", "Did you mean 'steps'"),
        ("attacks.uap.settings={stepz = 3}", "Did you mean 'steps'"),
        ("attacks.uap.settings={steps = 0}", "greater than or equal to 1"),
    ],
)
def test_a_mistake_in_an_attack_is_told_before_any_training(tmp_path, override, said):
    recipe = config.load_recipe("ravdess", ["corpus=folder:nowhere", override])
    with pytest.raises(InvalidInput, match=re.escape(said)):
        pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert not (tmp_path / "run").exists()


def test_limits_of_an_attack_reach_its_budget_and_its_clips(linear):
    limited = config.AttackRecipe(attack="pgd", max_l0=5, clips=9)
    plan = pipeline.plan_attack("pgd", limited, linear, context=pipeline.Context())
    assert plan.attack.budget.max_l0 == 5 and plan.inputs["recipe"]["max_l0"] == 5
    free = pipeline.plan_attack("pgd", config.AttackRecipe(), linear, context=pipeline.Context())
    assert free.attack.budget.max_l0 is None and free.inputs["recipe"]["clips"] is None
    follower = config.AttackRecipe(attack="random", match="a")
    attacks = {"a": limited, "b": follower, "c": config.AttackRecipe(match="b", clips=4)}
    assert [recipe_plan.clip_limit(key, attacks) for key in "abc"] == [9, 9, 4]


def tiny_emodb_full(corpus):
    """The recipe with the same stages, victims and attacks, and next to no steps."""
    changes = [
        f"corpus=folder:{corpus.as_posix()}",
        "generator.steps=2",
        "generator.seconds=0.1",
        "generator.batch_size=2",
        "generator.evaluate_every=2",
        "generator.sources=['emo18', 'wav2vec2_tiny', 'emo18,zhao19']",
        "attacks.uap.settings={steps = 2, batch_size = 2, seconds = 0.05}",
        "attacks.staa_iterations.settings={iterations = 2}",
        "attacks.vmi_fgsm.settings={steps = 1, neighbours = 1}",
        "attacks.one_pixel.settings={population = 4, steps = 1}",
        "sweep.clips=1",
        "sweep.sources=['emo18']",
        "sweep.epsilons=[0.01, 0.03]",
        "sweep.densities=[0.2, 1.0]",
        "clip_seconds=0.2",
    ]
    for name in ("pgd", "pgd_sparse", "mi_fgsm"):
        changes.append(f"attacks.{name}.settings={{steps = 1}}")
    for name in ("sigma_zero", "sparsefool", "vfga"):
        steps = "steps = 1, deepfool_steps = 1" if name == "sparsefool" else "steps = 2"
        changes += [f"attacks.{name}{free}.settings={{{steps}}}" for free in ("", "_free")]
    for name in set(config.load_recipe("emodb_full").attacks) - {"staa", "random", "uap"}:
        changes.append(f"attacks.{name}.clips=2")
    for name in config.load_recipe("emodb_full").victims:
        for setting in ("steps=2", "batch_size=4", "seconds=0.15", "evaluate_every=2"):
            changes.append(f"victims.{name}.{setting}")
    return config.load_recipe("emodb_full", changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``emodb_full`` on a folder of tones, from corpus to report."""
    pytest.importorskip("transformers", reason="the extra ssl is not installed")
    root = tmp_path_factory.mktemp("whole")
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            for take in range(2):
                folder = root / "tiny" / label / f"s{speaker}"
                folder.mkdir(parents=True, exist_ok=True)
                hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
                samples = tone(0.15 + 0.1 * take, hz, 100 * number + 10 * speaker + take)
                storage.write_bytes(folder / f"{take}.wav", audio.encode(samples, RATE))
    recipe = tiny_emodb_full(root / "tiny")
    context = pipeline.Context()
    matrix = pipeline.run(recipe, root / "run", context=context)
    assert context.quarantine.rows == []
    return root / "run", recipe, matrix


def test_the_whole_comparison_goes_through_every_stage(whole):
    run, recipe, matrix = whole
    sources, attacks = recipe.generator.sources, recipe.attacks
    assert len(sources) == 3 and len(attacks) == 20
    cells = {(c["attack"], c["source"], c["target"]) for c in matrix.cells}
    assert cells == {
        (a, s, t)
        for a in attacks
        for s in sources
        for t in recipe.victims
        if a != "uap" or "," not in s  # a universal vector is learned against one victim
    }
    assert {(c["source"], c["target"]) for c in matrix.cells if c["white_box"]} == {
        *((name, name) for name in ("emo18", "wav2vec2_tiny")),
        ("emo18,zhao19", "emo18"),
        ("emo18,zhao19", "zhao19"),
    }
    controls = {c["attack"] for c in matrix.cells if c["control"]}
    assert controls == {"random", "uap"}
    counts = {c["attack"]: c["count"] for c in matrix.cells}
    assert counts["staa"] == 4 and counts["pgd"] == counts["vfga"] == 2
    for path in (
        "results/matrix.md",
        "results/matrix.tex",
        "results/cells.parquet",
        "report/matrix.tex",
        "sweeps/emo18/sweep.png",
        "vectors/uap__emo18/card.json",
    ):
        assert (run / path).is_file(), path
    stages = [row["stage"] for row in storage.Journal(run / "journal.jsonl").records()]
    assert {"train-uap uap on wav2vec2_tiny", "sweep from emo18", "report"} <= set(stages)


def test_matched_attacks_change_no_more_samples_and_clips_have_one_length(whole):
    run, recipe, _ = whole
    for source in recipe.generator.sources:
        read = {
            key: AdversarialSet.load(run / "adversarial" / f"{key}__{source}")
            for key in ("staa", "random", "uap", "pgd", "mi_fgsm")
            if key != "uap" or "," not in source
        }
        l0 = {key: {c.clean.id: len(c.support) for c in one} for key, one in read.items()}
        assert l0["random"] == l0["staa"]
        for key in {"uap", "mi_fgsm"} & set(read):
            assert all(l0[key][name] <= l0["staa"][name] for name in l0[key])
        assert {len(c.adversarial) for c in read["random"]} == {3200}
        assert read["pgd"].card["chosen"].startswith("2 of 4 clips") and len(read["pgd"]) == 2
        assert {c.clean.label for c in read["pgd"]} == {"high", "low"}
        assert "chosen" not in read["staa"].card


def test_the_report_shows_the_sweep_and_the_n_of_each_attack(whole):
    run, _, _ = whole
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "Success against budget" in page and page.count('id="budget"') == 1
    assert (run / "report" / "figures" / "success-against-budget-emo18.svg").is_file()
    assert (
        "one universal vector" in page and re.search(r"N 2\b", page) and re.search(r"N 4\b", page)
    )
    swept = pandas.read_parquet(run / "sweeps" / "emo18" / "sweep.parquet")
    assert set(swept.target) == {"emo18", "zhao19", "wav2vec2_tiny", "wavlm_tiny"}
    assert set(swept[swept.control].attack) == {"random", "uap"}
    assert np.isfinite(swept.fooling_rate).all()


class StoppedError(Exception):
    pass


def test_nothing_of_a_finished_comparison_is_made_again(whole):
    run, recipe, _ = whole
    worked = []

    def note(what, done, total, figures=""):
        worked.append(what)
        if what.startswith("evaluate"):
            raise StoppedError

    before = (run / "results" / "summary.json").read_bytes()
    with pytest.raises(StoppedError):
        pipeline.run(recipe, run, context=pipeline.Context(progress=note))
    assert all(what.startswith(("read", "evaluate")) for what in worked), worked
    assert (run / "results" / "summary.json").read_bytes() == before


def test_a_vector_of_another_source_is_noticed(whole, tmp_path):
    run, _, _ = whole
    vector = run / "vectors" / "uap__emo18"
    assert pipeline.source_of(vector, "vector").name == "emo18"
    assert json.loads((vector / "card.json").read_text())["source"] == "emo18"
    shutil.copytree(vector, tmp_path / "v")
    with pytest.raises(InvalidInput, match="--source"):
        pipeline.source_of(tmp_path / "v", "vector")
    with pytest.raises(InvalidInput, match="--vector DIR"):
        pipeline.plan_attack(
            "uap",
            config.AttackRecipe(),
            pipeline.source_of(vector, "vector"),
            context=pipeline.Context(),
        )


def test_an_ensemble_is_checked_like_any_source(whole, tmp_path):
    """Its direction is tried on its members, and a mark that is missing on one of them is found."""
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)

    honest = {(check.name, check.subject): check for check in selfcheck.selfcheck(run, clips=2)}
    assert "not in victims" not in honest["direction", "staa__emo18,zhao19"].explanation
    assert honest["white_box_marks", ""].verdict == "pass"
    summary = json.loads((run / "results" / "summary.json").read_text("utf-8"))
    for cell in summary["cells"]:
        if (cell["source"], cell["target"]) == ("emo18,zhao19", "zhao19"):
            cell["white_box"] = False
    (run / "results" / "summary.json").write_text(json.dumps(summary), "utf-8")
    assert check_run(run, "white_box_marks")["white_box_marks", ""].verdict == "fail"
