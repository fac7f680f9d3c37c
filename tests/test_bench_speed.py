"""The bench of speed: pairs are pairs, ratios are of rounds, and its section alone is replaced."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bench import compiled, gpu, scaling, speed

from staanet.generator import build_generator
from staanet.training import Schedule
from staanet.victims import build_victim, load_victim

SHORT = Schedule(steps=1, batch_size=2, seconds=0.1)


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


class Small:
    """Sizes of the parts that need a GPU, tried on a CPU."""

    size = replace(speed.QUICK, seconds=0.1, batch=2)

    def networks(self):
        made = {"paper": build_generator("small", 0.2), "narrow": build_generator("narrow", 0.2)}
        return {name: one.eval().requires_grad_(False) for name, one in made.items()}


def test_the_table_of_a_gpu_compares_each_way_with_the_network_as_it_is():
    source = build_victim("zhao19", speed.LABELS).eval().requires_grad_(False)
    small = Small()
    text = gpu.attack_table(
        small.networks(), source, small.size, torch.device("cpu"), batches=(1, 2)
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert text.startswith("Clips of 0.1 s on cpu:")
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (name, batch, way) for batch in ("1", "2") for name in ("paper", "narrow")
        for way in gpu.WAYS if batch == "1" or "graph" not in way
    ]  # fmt: skip
    as_it_is = [row for row in rows if row[2] in ("as it is", "graph")]  # no graph on a CPU
    assert all(row[6] == "100.0%" for row in as_it_is)
    assert all(row[4] == "1.0 (1.0 to 1.0)" for row in rows if row[2] == "as it is")


def test_the_table_of_training_on_a_gpu_has_both_precisions_and_both_ways_to_draw():
    source = load_victim("shipped:zhao19")
    small = Small()

    def tasked(network, precision):
        one = speed.task(network, source, speed.clips(2, 0.2), 2)
        return replace(one, precision=precision, crops=replace(one.crops, schedule=SHORT))

    text = gpu.training_table(tasked, small.networks(), small.size, torch.device("cpu"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert {(row[1], row[2]) for row in rows} == {
        (precision, drawn)
        for precision in ("float32", "bfloat16")
        for drawn in ("ahead", "when asked for")
    }
    assert len(rows) == 8 and all(float(row[4]) > 0 for row in rows)


def test_drawing_crops_is_told_as_a_share_of_a_step():
    source = load_victim("shipped:zhao19")
    one = speed.task(build_generator("narrow", 0.2), source, speed.clips(2, 0.2), 2)
    one = replace(one, crops=replace(one.crops, schedule=SHORT))
    text = gpu.drawing_table(one, lambda: speed.step(one), speed.QUICK)
    shares = [line.split("|")[3].strip() for line in text.splitlines()[4:]]
    assert len(shares) == 4 and all(0 < float(share.rstrip("%")) < 1000 for share in shares)


def test_a_compilation_that_takes_too_long_is_given_up(monkeypatch):
    assert "above 0, given up" in compiled.compiled_table(speed.QUICK, limit=0.01)
    told = {"compilation": 2.0, "plain": [0.002, 0.004], "compiled": [0.001, 0.002]}
    monkeypatch.setattr(compiled, "_measured", lambda name, size, limit: told)
    assert "| narrow | 2 | 3.0 (2.0 to 4.0) | 1.5 (1.0 to 2.0) | 2.0 (2.0 to 2.0) |" in (
        compiled.compiled_table(speed.QUICK)
    )
