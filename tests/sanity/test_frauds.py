"""Frauds planted in the files of a run are found by the check that is there for them."""

from __future__ import annotations

import json
import shutil

import pandas
from tests.support.hum_runs import check_run, copy_victim, evaluate_again, failing, remake

from staanet import config, storage
from staanet.results import adversarial_set, clip_tables, row_files


def test_a_mask_shuffled_in_time_is_found_even_where_tables_and_results_agree(tampered):
    for name in ("staa__emo18", "pgd__emo18"):
        remake(tampered, name, lambda pair, rng: rng.permutation(pair.delta))
        checks = check_run(tampered, "direction", "disk", "predictions", "rates")
        assert checks["direction", name].verdict == "fail"
        assert "noise" in checks["direction", name].explanation
        assert failing(checks) == {"direction"}


def test_randomised_signs_are_found_even_where_tables_and_results_agree(tampered):
    for name in ("staa__emo18", "pgd__emo18"):
        remake(tampered, name, lambda pair, rng: rng.choice([-1, 1], len(pair.delta)) * pair.delta)
        checks = check_run(tampered, "direction", "disk", "predictions", "rates")
        assert checks["direction", name].verdict == "fail" and failing(checks) == {"direction"}


def test_labels_shifted_by_one_row_are_found(tampered):
    for place in sorted((tampered / "adversarial").iterdir()):
        rows = adversarial_set.read_rows(place)
        labels = [row["label"] for row in rows]
        moved = [row | {"label": label} for row, label in zip(rows, labels[-1:] + labels[:-1])]
        storage.write_text(
            place / "metadata.csv", row_files.csv_text(adversarial_set.COLUMNS, moved)
        )
    table = tampered / "results" / "results.parquet"
    assert failing(check_run(tampered, "disk", "clean_audio")) == {"disk", "clean_audio"}
    evaluate_again(tampered)  # now the results repeat the wrong labels
    checks = check_run(tampered, "disk", "clean_audio")
    assert failing(checks) == {"clean_audio"} and table.exists()
    assert "label is" in checks["clean_audio", ""].explanation


def test_exchanged_adversarial_files_are_found(tampered):
    folder = tampered / "adversarial" / "staa__emo18" / "adversarial"
    a, b = sorted(folder.glob("*0.wav"))[:2]
    assert a.stat().st_size == b.stat().st_size, "their lengths do not give them away"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    checks = check_run(tampered, "disk")
    assert checks["disk", "staa__emo18"].verdict == "fail"
    assert checks["disk", "pgd__emo18"].verdict == "pass"


def test_clean_and_adversarial_files_exchanged_are_found(tampered):
    place = tampered / "adversarial" / "pgd__emo18"
    for path in sorted((place / "adversarial").iterdir()):
        other = place / "clean" / path.name
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
    assert failing(check_run(tampered, "clean_audio", "predictions")) == {
        "clean_audio",
        "predictions",
    }


def test_an_exact_copy_of_the_source_is_white_box_by_its_hash(tampered):
    copy_victim(tampered)
    summary = json.loads((tampered / "results" / "summary.json").read_text())
    cells = [cell for cell in summary["cells"] if cell["target"] == "stranger"]
    assert cells and all(cell["white_box"] for cell in cells)
    assert not failing(check_run(tampered, "white_box_marks"))


def test_a_source_among_the_targets_under_another_name_is_found(tampered):
    copy_victim(tampered, nudge=1e-7)
    check = check_run(tampered, "white_box_marks")["white_box_marks", ""]
    assert check.verdict == "fail" and "on stranger" in check.explanation


def test_a_mark_on_another_model_is_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    for cell in summary["cells"]:
        cell["white_box"] = True
    storage.write_json(path, summary)
    assert failing(check_run(tampered, "white_box_marks")) == {"white_box_marks"}


def test_clean_errors_counted_as_fooled_are_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    frame = pandas.read_parquet(tampered / "results" / "results.parquet")
    assert (frame.label != frame.clean_prediction).any(), "the run has clean errors"
    for cell in summary["cells"]:
        own = frame[(frame.attack == cell["attack"]) & (frame.target == cell["target"])]
        cell["fooling_rate"]["value"] = float((own.adversarial_prediction != own.label).mean())
    storage.write_json(path, summary)
    check = check_run(tampered, "rates")["rates", ""]
    assert check.verdict == "fail" and "fooling_rate" in check.explanation


def test_attack_success_that_counts_clean_errors_is_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    frame = pandas.read_parquet(tampered / "results" / "results.parquet")
    for cell in summary["cells"]:
        own = frame[(frame.attack == cell["attack"]) & (frame.target == cell["target"])]
        wrong = (own.adversarial_prediction != own.label).mean()
        cell["attack_success_rate"] |= {"value": float(wrong), "count": len(own)}
    storage.write_json(path, summary)
    assert failing(check_run(tampered, "rates")) == {"rates"}


def test_invented_predictions_are_found(tampered):
    path = tampered / "results" / "results.parquet"
    frame = pandas.read_parquet(path)
    frame["adversarial_prediction"] = "low"
    frame.to_parquet(path, index=False)
    assert "predictions" in failing(check_run(tampered, "predictions"))


def test_a_weak_set_relabelled_as_a_strong_attack_is_found(tampered):
    place = tampered / "adversarial" / "random__emo18"
    card = json.loads((place / "card.json").read_text())
    (place / "card.json").write_text(json.dumps(card | {"algorithm": "pgd", "title": "PGD"}))
    assert check_run(tampered, "direction")["direction", "random__emo18"].verdict == "fail"


def test_another_split_in_a_card_is_found(tampered):
    path = tampered / "generators" / "emo18" / "card.json"
    card = json.loads(path.read_text())
    card["inputs"]["split"] = "0" * 64
    path.write_text(json.dumps(card))
    check = check_run(tampered, "split")["split", ""]
    assert check.verdict == "fail" and "generator emo18" in check.explanation


def test_a_missing_file_is_a_failure_and_not_a_crash(tampered):
    next((tampered / "adversarial" / "staa__emo18" / "adversarial").iterdir()).unlink()
    checks = check_run(tampered, "disk")
    assert checks["disk", "staa__emo18"].verdict == "fail"
    assert "could not be carried out" in checks["disk", "staa__emo18"].explanation


def test_without_its_corpus_a_run_says_what_could_not_be_checked(tampered, tmp_path):
    recipe = tampered / "recipe.toml"
    spec = config.load_recipe(str(recipe)).corpus
    moved = tmp_path / "elsewhere"
    shutil.copytree(spec.removeprefix("folder:"), moved)
    recipe.write_text(recipe.read_text().replace(spec, f"folder:{tmp_path / 'gone'}"))
    for check in check_run(tampered, "split", "clean_audio").values():
        assert check.verdict == "skipped" and "--corpus" in check.remedy
    for check in check_run(tampered, "clean_audio", corpus=f"folder:{moved}").values():
        assert check.verdict == "pass"


def test_labels_corrected_and_audio_replaced_after_the_run_are_found(tampered, run):
    table = next(tampered.glob(storage.CLIP_TABLES))
    rows = [dict(row) for row in row_files.read_csv(table, clip_tables.COLUMNS)]
    assert not failing(check_run(tampered, "content"))
    first, last = rows[0]["id"], rows[-1]["id"]
    other = "low" if rows[0]["label"] == "high" else "high"
    rows[0]["label"], rows[-1]["sha256"] = other, "0" * 64
    storage.write_text(table, row_files.csv_text(clip_tables.COLUMNS, rows))
    check = check_run(tampered, "content")["content", ""]
    assert check.verdict == "fail" and f"another label now ({first}: {other}" in check.explanation
    assert f"other audio now ({last})" in check.explanation
    table.unlink()
    assert check_run(tampered, "content")["content", ""].verdict == "skipped"


def test_a_model_of_other_data_is_found(tampered):
    card = storage.read_card(tampered / "victims" / "other", "victim")
    card["inputs"]["content"] = "sum:" + "0" * 64
    storage.write_card(tampered / "victims" / "other", card)
    check = check_run(tampered, "content")["content", ""]
    assert check.verdict == "fail" and "the victim other was trained on other" in check.explanation
