"""A finished run is read with the settings of its recipe."""

from __future__ import annotations

from tests.support.report_runs import fake_clips, make_run

from staanet.sanity.loaded_run import load_run


def test_the_corpus_is_read_with_the_label_map_of_the_recipe(tiny_recipe, tmp_path):
    run = make_run(tmp_path / "run", fake_clips(2), parts=False)
    for text, labels in (("", ("high", "low")), ('{ high = "up", low = "down" }', ("down", "up"))):
        line = f"label_map = {text}\n" if text else ""
        (run / "recipe.toml").write_text(line + tiny_recipe.read_text())
        assert load_run(run).corpus.labels == labels


def test_a_setting_of_the_recipe_that_does_not_fit_the_corpus_is_the_problem(tiny_recipe, tmp_path):
    run = make_run(tmp_path / "run", fake_clips(2), parts=False)
    (run / "recipe.toml").write_text(f'root = "{tmp_path}"\n' + tiny_recipe.read_text())
    loaded = load_run(run)
    assert loaded.corpus is None and "root" in loaded.problem
