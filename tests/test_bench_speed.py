"""The bench of speed: pairs are pairs, ratios are of rounds, and its section alone is replaced."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import scaling, speed


def test_alternatives_take_turns_and_the_first_round_is_thrown_away():
    done = []
    times = speed.paired({n: (lambda n=n: done.append(n)) for n in "ab"}, 2)
    assert done == ["b", "a", "a", "b", "b", "a"]
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    assert speed.ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == "3.0 (2.0 to 4.0)"
    assert speed.spread([0.001, 0.003, 0.002]) == "2.0 (1.0 to 3.0)"


def test_its_section_is_replaced_and_the_others_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "HERE", tmp_path)
    (tmp_path / "results.md").write_text("# Results\n\n## quick\n\n1\n")
    said = iter(("one", "two", "three"))
    monkeypatch.setattr(speed, "section", lambda size, run: f"{speed.HEAD}\n{next(said)}")
    speed.main([])
    assert (
        tmp_path / "results.md"
    ).read_text() == "# Results\n\n## quick\n\n1\n\n## Speed\n\none\n"
    with (tmp_path / "results.md").open("a") as file:
        file.write("\n## What falls short\n\n2\n")
    speed.main([])
    assert (tmp_path / "results.md").read_text() == (
        "# Results\n\n## quick\n\n1\n\n## Speed\n\ntwo\n\n## What falls short\n\n2\n"
    )
    speed.main(["--quick"])  # prints and leaves the record alone
    assert "three" in capsys.readouterr().out
    assert (tmp_path / "speed.md").read_text() == "## Speed\n\ntwo\n"


def test_the_plain_module_answers_as_many_classes():
    import torch

    assert speed.Plain()(torch.randn(2, 4000)).shape == (2, len(speed.LABELS))


def test_the_published_layers_are_the_same_function():
    import torch

    from staanet.generator import build_generator

    torch.manual_seed(0)
    network, x = build_generator("small").eval(), torch.randn(2, 3001) * 0.1
    with torch.inference_mode():
        for ours, plain in zip(network(x), speed.one_dimensional(network)(x), strict=True):
            assert torch.allclose(ours, plain, atol=1e-4)


def test_shards_and_training_on_two_processes_give_what_one_gives():
    text = scaling.together_table(speed.QUICK)
    assert "every file, by sha256" in text and "| NO |" not in text


def test_a_corpus_is_read_from_the_runs_own_copy():
    assert "| 16 kHz |" in scaling.loading_table(speed.QUICK)
