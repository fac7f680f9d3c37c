"""The control beside an attack, and a source that is known by its weights under any name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.support.commands import staanet
from tests.support.speech import RATE, clip, tone

from staanet import audio, config, pipeline, storage
from staanet.core import Budget
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.pipeline.control import CONTROL_DRAWS
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.victims import build_victim, load_victim


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("control") / "zhao19"
    build_victim("zhao19", ("high", "low", "mid")).eval().save_pretrained(folder)
    return folder


def test_random_signs_change_nothing_where_the_attack_changed_nothing(linear) -> None:
    clips = [clip(0.1, 300.0, n, id=f"c{n}") for n in range(3)]
    untouched = AdversarialSet([AdversarialClip(c, c.pcm16.copy(), 0.0, 0) for c in clips], {})
    rates = pipeline.control_rates(untouched, linear, [linear], pipeline.Context())
    assert rates == {"linear": {"clips": 3, "draws": CONTROL_DRAWS, "hits": 0}}


def test_the_control_of_random_signs_is_as_strong_as_random_signs(linear) -> None:
    """Random signs against random signs: hits of the control agree with those of the attack itself."""
    from staanet.attacks import Random, craft

    clips = [clip(0.1, 200.0 + 40 * n, n, id=f"c{n}") for n in range(20)]
    noise = Random(budget=Budget(epsilon=0.3), seed=77)
    adversarial = craft(noise, linear, clips)
    rows = transfer_matrix([adversarial], [linear]).rows
    share = sum(r["clean_prediction"] != r["adversarial_prediction"] for r in rows) / len(rows)
    rates = pipeline.control_rates(adversarial, linear, [linear], pipeline.Context())["linear"]
    assert rates["hits"] / (rates["clips"] * rates["draws"]) == pytest.approx(share, abs=0.25)


def test_attack_says_what_random_signs_do_and_counts_what_reached_the_class(
    victim: Path, tmp_path: Path
) -> None:
    for n in range(3):
        storage.write_bytes(tmp_path / "in" / f"{n}.wav", audio.encode(tone(0.3, 200, n), RATE))
    words = ["attack", "in", "--source", victim, "--attack", "pgd", "--label", "mid"]
    done = staanet(*words, "--epsilon", 0.05, "--pictures", 0, "--out", "a", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    control = result["control"]["zhao19"]
    assert control["clips"] == 3 and 0 <= control["hits"] <= 3 * CONTROL_DRAWS
    assert {row["target_class"] for row in result["clips"]} == {"mid"}
    reached = sum(row["after"] == "mid" for row in result["clips"])
    again = staanet(*words, "--epsilon", 0.05, "--pictures", 0, "--out", "a", cwd=tmp_path)
    assert f"{reached} reached the class that was aimed at" in again.stdout
    assert "random signs of the same size" in again.stdout


def test_a_source_under_another_name_is_white_box(victim: Path, tmp_path: Path) -> None:
    clips = [clip(0.3, 300.0, n, id=f"c{n}") for n in range(2)]
    recipe = config.AttackRecipe(max_density=0.2)
    plan = pipeline.plan_attack("random", recipe, load_victim(victim), context=pipeline.Context())
    adversarial = pipeline.attack(plan, clips, tmp_path / "a", context=pipeline.Context())
    renamed, other = load_victim(victim), build_victim("zhao19", ("high", "low", "mid")).eval()
    renamed.name, other.name = "another name", "another model"
    cells = transfer_matrix([adversarial], [renamed, other]).cells
    assert {c["target"]: c["white_box"] for c in cells} == {
        "another name": True,
        "another model": False,
    }


@pytest.mark.parametrize("key, value", [("labels", ["low", "high", "mid"]), ("sample_rate", 8000)])
def test_a_card_with_other_labels_or_rate_is_refused(
    victim: Path, tmp_path: Path, key: str, value: object
) -> None:
    shutil.copytree(victim, tmp_path / "v")
    card = json.loads((tmp_path / "v" / "card.json").read_text())
    (tmp_path / "v" / "card.json").write_text(json.dumps({**card, key: value}))
    with pytest.raises(InvalidInput, match="are not those that the weights were saved with"):
        load_victim(tmp_path / "v")


def test_equal_models_have_equal_hashes(victim: Path, tmp_path: Path) -> None:
    hashes = set()
    for number in range(8):  # the library writes metadata in any order
        load_victim(victim).save_pretrained(tmp_path / str(number))
        hashes.add(storage.sha256(tmp_path / str(number) / "model.safetensors"))
    assert hashes == {storage.sha256(victim / "model.safetensors")}
    assert load_victim(tmp_path / "0").labels == ("high", "low", "mid")
