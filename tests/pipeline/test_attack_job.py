"""The same attack on Ray, with a worker killed on the way, gives the same files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from tests.support.commands import staanet
from tests.support.folders import hashes
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.errors import InvalidInput
from staanet.pipeline import attack_job
from staanet.victims import build_victim

ATTACK = (
    "attack",
    "clips",
    "--source",
    "emo18",
    "--attack",
    "random",
    "--window",
    0.5,
    "--pictures",
    0,
)
"""Without pictures, which a forked test command does not draw as a process does."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four clips, one of them long, a broken one, and an untrained victim; attacked here."""
    root = tmp_path_factory.mktemp("engine")
    for number in range(4):
        samples = tone(1.3 if number == 2 else 0.3, 200 + 90 * number, number)
        storage.write_bytes(root / "clips" / f"c{number}.wav", audio.encode(samples, RATE))
    (root / "clips" / "broken.wav").write_bytes(b"RIFF")
    torch.manual_seed(0)
    build_victim("emo18", ("high", "low")).eval().save_pretrained(root / "emo18")
    done = staanet(*ATTACK, "--out", "here", cwd=root)  # with one thread, as Ray's workers
    assert done.returncode == 4 and "3 windows joined" in done.stdout, done.stderr
    return root


@pytest.mark.parametrize(
    "options, said",
    [
        (("--engine", "dask"), "unknown engine 'dask'"),
        (("--engine", "ray", "--shard", "1/2"), "local"),
    ],
)
def test_an_engine_that_is_none_is_told(world, tmp_path, options, said):
    done = staanet(*ATTACK, "--out", tmp_path / "o", *options, cwd=world)
    assert done.returncode == 3 and said in done.stderr and not (tmp_path / "o").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_does_not_answer_is_told_at_once(address):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(InvalidInput, match="no Ray cluster answers at RAY_ADDRESS=.*127.0.0.1"):
        attack_job.require_reachable(address.format(port))
    with pytest.raises(InvalidInput):
        attack_job.require_reachable("127.0.0.1:99999999")


def test_a_cluster_that_answers_or_needs_no_address_is_left_to_ray():
    with socket.create_server(("127.0.0.1", 0)) as there:
        attack_job.require_reachable(f"127.0.0.1:{there.getsockname()[1]}")
    for named in ("auto", "local", ""):
        attack_job.require_reachable(named)


def holder(folder):
    """The process that works on a shard which has begun, or None."""
    for journal in sorted(folder.glob(".shards/*/journal.jsonl")):
        try:
            return int(json.loads((journal.parent / ".lock").read_text())["pid"])
        except (OSError, ValueError):  # just finished
            continue
    return None


def test_ray_gives_the_same_files_though_a_worker_is_killed(world, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    out = tmp_path / "there"
    command = [
        sys.executable,
        "-m",
        "staanet",
        *map(str, ATTACK),
        "--out",
        str(out),
        "--engine",
        "ray",
    ]
    running = subprocess.Popen(
        command,
        cwd=world,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "RAY_TMPDIR": "/tmp"},
    )
    killed, end = None, time.monotonic() + 300
    while killed is None and running.poll() is None and time.monotonic() < end:
        killed = holder(out)
        time.sleep(0.005)
    assert killed is not None and killed != running.pid
    os.kill(killed, signal.SIGKILL)
    said, complained = running.communicate(timeout=600)
    assert running.returncode == 4, complained
    assert "answers changed" in said and "3 windows joined" in said
    assert hashes(out) == hashes(world / "here") and not (out / ".shards").exists()
