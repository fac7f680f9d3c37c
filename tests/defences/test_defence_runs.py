"""Defences through commands, recipes and the report: static and adaptive attacks beside each other."""

from __future__ import annotations

import json
import tomllib

import pytest
import torch
from tests.support.commands import staanet
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, tone

from staanet import audio, config, pipeline, storage
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.report import tables
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.run_folder import RunFolder
from staanet.sanity import selfcheck
from staanet.transforms import TRANSFORMS, parse_transform
from staanet.victims import build_victim, load_victim


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
        clips=40,
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
        "Fooling rate of each classifier without the defence"
        in (folder / "report" / "matrix.md").read_text()
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
    assert recipe.defences and set(recipe.defences) <= set(TRANSFORMS)
    for one in recipe.defences.values():
        assert [str(parse_transform(text)) for text in one.chain] == list(one.chain)
        assert one.adaptive is None or one.adaptive  # nothing in it is non-adaptive
