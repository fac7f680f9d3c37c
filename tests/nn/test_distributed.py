"""Two processes with gloo follow the loss curve of one process with the whole batch."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch
from tests.support.commands import staanet

from staanet import storage
from staanet.errors import InvalidInput
from staanet.nn import distributed
from staanet.victims import build_victim


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group("cpu") as device:
        assert device == "cpu" and distributed.world_size() == 1 and distributed.is_first()
    assert distributed.rank_rows(6) == slice(0, 6)
    assert distributed.average_over_processes({"a": 1.5}) == {"a": 1.5}
    layer = torch.nn.BatchNorm1d(2)
    distributed.synchronise_batch_norms(layer)
    assert "forward" not in vars(layer)


def test_a_batch_that_cannot_be_shared_equally_is_told(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(InvalidInput, match="--batch-size 15"):
        distributed.rank_rows(16)
    with pytest.raises(InvalidInput, match="--batch-size 3"):
        distributed.rank_rows(2)


def trained(processes, *arguments, cwd):
    if processes == 1:
        done = staanet(*arguments, cwd=cwd)
    else:
        module = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [sys.executable, *module, "-m", "staanet", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    return done


def curve(folder):
    with (folder / "training.csv").open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]


def agree(one, two, *, within):
    assert len(one) == len(two) > 0
    for a, b in zip(one, two):
        assert a == pytest.approx(b, rel=within, abs=within)


@pytest.mark.parametrize("what", ["victim", "generator"])
def test_two_processes_follow_the_curve_of_one(tiny_corpus, tmp_path, what):
    torch.manual_seed(0)
    build_victim("emo18", ("high", "low")).eval().save_pretrained(tmp_path / "v")
    training = ("train-victim", f"folder:{tiny_corpus}", "emo18", "--patience", 9)
    if what == "generator":
        training = ("train-generator", f"folder:{tiny_corpus}", "--source", "v")
    same = ("--steps", 3, "--batch-size", 4, "--seconds", 0.1)
    for processes in (1, 2):
        done = trained(
            processes, *training, *same, "--out", tmp_path / f"o{processes}", cwd=tmp_path
        )
        assert done.stdout.count("on dev") == 1  # the first process alone speaks
    # rounding: sums over rows in another order, which Adam's first steps enlarge
    agree(curve(tmp_path / "o1"), curve(tmp_path / "o2"), within=2e-3)
    cards = [storage.read_card(tmp_path / f"o{n}", what)["inputs"] for n in (1, 2)]
    assert cards[0] == cards[1] and not list(tmp_path.rglob("*.part"))
