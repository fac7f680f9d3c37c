"""The bench of speed: pairs are pairs, ratios are of rounds, and its section alone is replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")

import torch
from bench import compiled, gpu, scaling, sections, speed
from tests.support.commands import command_server

from staanet.errors import InvalidInput
from staanet.generators.registry import build_generator
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

    from staanet.generators.registry import build_generator

    torch.manual_seed(0)
    network, x = build_generator("small").eval(), torch.randn(2, 3001) * 0.1
    with torch.inference_mode():
        for ours, plain in zip(network(x), speed.one_dimensional(network)(x), strict=True):
            assert torch.allclose(ours, plain, atol=1e-4)


class Forked:
    """A command in a forked child, in the place of a process that imports torch anew."""

    def __init__(self, folder, command):
        self._pid = command_server().start(*command, cwd=folder)

    def communicate(self):
        outcome = command_server().wait(self._pid)
        self.returncode = outcome.code
        return outcome.out.encode(), outcome.err.encode()


def test_shards_and_training_on_two_processes_give_what_one_gives(monkeypatch):
    start_process = scaling._started
    monkeypatch.setattr(
        scaling,
        "_started",
        lambda folder, command, start=(): (
            start_process(folder, command, start) if start else Forked(folder, command)
        ),
    )
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


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_table_of_a_gpu_compares_each_way_with_the_network_as_it_is():
    source = build_victim("zhao19", speed.LABELS).eval().requires_grad_(False)
    small, cpu = Small(), torch.device("cpu")
    ceilings = {"float32": [2.0, 1.0, 3.0], "bfloat16": [4.0]}
    text = gpu.attack_table(small.networks(), source, small.size, cpu, ceilings, batches=(1, 2))
    rows = cells(text)
    assert text.startswith("The table shows clips of 0.1 s on cpu.")
    assert [(row[0], row[1], row[2]) for row in rows] == [
        one
        for batch in ("1", "2")
        for one in [
            *(
                (name, batch, way)
                for name in ("paper", "narrow")
                for way in gpu.WAYS
                if batch == "1" or "graph" not in way
            ),
            (gpu.PGD, batch, "eager"),
        ]
    ]
    networks = [row for row in rows if row[0] != gpu.PGD]
    as_it_is = [row for row in networks if row[2] in ("eager", "graph")]  # no graph on a CPU
    assert all(row[6] == "100.0%" for row in as_it_is)
    assert all(row[4] == "1.0 (1.0 to 1.0)" for row in networks if row[2] == "eager")
    assert all(row[4] == row[6] == "" and row[5] for row in rows if row[0] == gpu.PGD)
    for row in rows:  # GFLOP over microseconds is PFLOP/s
        middle = 1000 * float(row[7]) / float(row[3].split()[0])
        share = middle / (2.0 if gpu.WAYS[row[2]][0] == "float32" else 4.0)
        assert float(row[8].rstrip("%")) / 100 == pytest.approx(share, rel=0.1, abs=1e-3)


def test_ceilings_are_rates_of_products_and_of_a_copy():
    size, cpu = replace(speed.QUICK, square=64), torch.device("cpu")
    found = gpu.measured_ceilings(size, cpu)
    assert set(found) == {"float32", "bfloat16", "copy"}
    assert all(len(rates) == size.rounds and min(rates) > 0 for rates in found.values())
    ceilings = {"float32": [2.0, 1.0, 4.0], "bfloat16": [9.0], "copy": [3.0]}
    assert [row[1] for row in cells(gpu.ceiling_table(ceilings, size, cpu))] == [
        "9.00 (9.00 to 9.00)",
        "2.00 (1.00 to 4.00)",
        "3.00 (3.00 to 3.00)",
    ]


def test_clips_go_from_numpy_to_int16_alone_and_in_a_batch():
    source = load_victim("shipped:zhao19")
    small = Small()
    networks = {**small.networks(), "backward_net": small.networks()["narrow"]}
    text = gpu.crafting_table(networks, source, small.size, torch.device("cpu"), (1, 2))
    assert [row[:2] for row in cells(text)] == [
        ["narrow", "1"],
        ["backward_net", "1"],
        ["narrow", "2"],
        ["backward_net", "2"],
    ]
    assert "networks in float32" in text


@pytest.fixture
def parts_told(monkeypatch):
    """The command with every part but the ceilings left out; where it writes."""
    for name in ("attack_table", "crafting_table", "training_table"):
        monkeypatch.setattr(gpu, name, lambda *given, name=name, **settings: name)
    monkeypatch.setattr(
        gpu, "generators", lambda source: dict.fromkeys(("narrow", "backward_net", "paper"))
    )
    monkeypatch.setattr(gpu, "FULL", replace(speed.QUICK, square=64))
    monkeypatch.setattr(gpu, "QUICK", replace(speed.QUICK, square=64))


@pytest.mark.usefixtures("parts_told")
def test_the_command_of_a_gpu_writes_a_section_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sections, "RESULTS", tmp_path / "results.md")
    sections.write("one", "## One")
    gpu.main(["--quick", "--device", "cpu"])  # prints and leaves the record alone
    told = capsys.readouterr()
    assert told.out.startswith(
        "## On a GPU\n\nThe command `python -m bench gpu --device cpu` ran at commit "
    )
    assert "ceilings: " in told.err and "training, large batch: " in told.err
    assert "On a GPU" not in (tmp_path / "results.md").read_text()
    gpu.main(["--device", "cpu"])
    written = (tmp_path / "results.md").read_text()
    assert written.count("<!-- gpu -->") == 1 and "## One" in written
    names = [line for line in written.splitlines() if line.endswith("_table")]
    assert names == ["attack_table", "crafting_table", "training_table", "training_table"]


def test_the_command_of_a_gpu_asks_for_a_device_that_is_there():
    with pytest.raises(InvalidInput, match="no device 'nowhere' here"):
        gpu.main(["--device", "nowhere"])


def test_the_table_of_training_on_a_gpu_has_both_precisions_and_both_ways_to_draw():
    source = load_victim("shipped:zhao19")
    small = Small()

    def tasked(network, precision):
        one = speed.task(network, source, speed.clips(2, 0.2), 2)
        settings = replace(one.settings, precision=precision)
        return replace(one, settings=settings, crops=replace(one.crops, schedule=SHORT))

    networks, cpu = small.networks(), torch.device("cpu")
    rows = cells(gpu.training_table(tasked, networks, small.size, cpu))
    assert {(row[1], row[2]) for row in rows} == {
        (precision, drawn)
        for precision in ("float32", "bfloat16")
        for drawn in ("ahead", "on demand")
    }
    assert len(rows) == 8 and all(float(row[4]) > 0 and row[5] == "" for row in rows)
    text = gpu.training_table(
        tasked, networks, small.size, cpu, precisions=("bfloat16",), threads=(None,), in_a_row=2
    )
    assert "2 steps in a row" in text
    assert [row[:3] for row in cells(text)] == [
        [name, "bfloat16", "ahead"] for name in ("paper", "narrow")
    ]
    assert all(weight.grad is None for one in networks.values() for weight in one.parameters())


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
