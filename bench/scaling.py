"""The parts of ``python -m bench speed`` on many clips: memory, several processes, decoding once."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.measuring import LABELS, RATE, Size, paired, ratio, spread, table, write_noise
from staanet import audio, corpora, storage
from staanet.apps.doctor.machine import allowed_cpus
from staanet.core import Corpus
from staanet.corpora import cache
from staanet.generators.registry import save_generator
from staanet.generators.warm_start import backward_net_from
from staanet.results.adversarial_set import TIMES
from staanet.victims import build_victim


def scaling_table(size: Size) -> str:
    """Time and memory of the whole command's work as clips become more, or longer."""
    rows = []
    for name in ("compact", "backward_net"):
        one = measured(f"attack {name} 1 6")
        for what, arguments in (
            (f"{size.factor} files", f"{size.factor} 6"),
            (f"one file {size.factor} times as long", f"1 {6 * size.factor}"),
        ):
            many = measured(f"attack {name} {arguments}")
            rows.append(
                [
                    name,
                    what,
                    f"{1000 * one[0]:.0f}",
                    f"{1000 * many[0] / size.factor:.0f}",
                    f"{one[1]:.0f}",
                    f"{many[1]:.0f}",
                ]
            )
    head = ["generator", "work", "ms, one of 6 s", "ms per 6 s of all", "MB, one", "MB, all"]
    return (
        "The work is reading, attacking, writing, reading back and measuring windows of 6 s. Each row has "
        "its own process. The first clip of a process is slower than the others. The second time may "
        "therefore be below the first time.\n\n" + table(head, rows)
    )


def measured(what: str) -> tuple[float, float]:
    """Seconds and peak MB of a child that tells both."""
    code = f"from bench import speed; speed.child({what.split()!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


# ---------------------------------------------------------------- several processes


def together_table(size: Size) -> str:
    """What two processes gain: shards of an attack, Ray, and the training of one model; all equal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _world(folder, size)
        rows = [*_shards(folder), _torchrun(folder, size)]
    head = ["work", "s, one process", "s, two processes", "speed-up", "equal results"]
    return (
        f"Each process has one thread. The attack uses {size.many} clips of {size.seconds:g} s. Its time includes the "
        f"start of Python and the merge of the shards. The training has {size.steps} steps of a backward net "
        f"with {size.batch} crops of 2 s. Its time excludes the start. "
        f"The command may use {allowed_cpus()} cores.\n\n" + table(head, rows)
    )


def _world(folder: Path, size: Size) -> None:
    """Clips, a small labelled corpus, an untrained victim and its backward net."""
    for number in range(size.many):
        write_noise(folder / "in" / f"{number:03}.wav", size.seconds)
    for number in range(12):
        place = folder / "corpus" / ("high", "low")[number % 2] / f"s{number // 2}"
        write_noise(place / "0.wav", 2.0)
    torch.manual_seed(0)
    victim = build_victim("emo18", ("high", "low")).eval()
    with torch.inference_mode():  # without a bias its answers differ from clip to clip
        files = sorted((folder / "in").iterdir())
        clips = [torch.from_numpy(audio.to_float(audio.load_samples(f, RATE))) for f in files]
        victim.network.head.bias -= torch.cat([victim(clip[None]) for clip in clips]).mean(dim=0)
    victim.save_pretrained(folder / "v")
    save_generator(
        backward_net_from(victim, 0.2),
        folder / "g",
        source="emo18",
        source_folder="../v",
        source_sha256=storage.read_card(folder / "v", "victim")["sha256"],
        epsilon=0.03,
        max_density=0.2,
    )


def _shards(folder: Path) -> list[list[str]]:
    attack = ["attack", "in", "--generator", "g"]
    one = _seconds(folder, [*attack, "--out", "one"])
    begun = time.perf_counter()
    parts = [_started(folder, [*attack, "--shard", f"{n}/2", "--out", f"s{n}"]) for n in (1, 2)]
    for part in parts:
        _ended(part)
    _ended(_started(folder, ["merge", "s1", "s2", "--out", "two"]))
    two = time.perf_counter() - begun
    same = _hashes(folder / "one") == _hashes(folder / "two")
    rows = [["attack, two shards at once and their merge", *_compared(one, two), _said(same)]]
    if importlib.util.find_spec("ray") is not None:
        ray = _seconds(folder, [*attack, "--engine", "ray", "--out", "ray"])
        same = _hashes(folder / "one") == _hashes(folder / "ray")
        rows.append(["attack, Ray on all cores", *_compared(one, ray), _said(same)])
    return rows


def _torchrun(folder: Path, size: Size) -> list[str]:
    """Seconds of training by the curve's own clock, and how far the two curves are apart."""
    train = [
        "train-generator",
        "folder:corpus",
        "--source",
        "v",
        "--steps",
        str(size.steps),
        "--batch-size",
        str(size.batch),
        "--seconds",
        "2",
    ]
    curves = []
    for number in (1, 2):
        start = (
            []
            if number == 1
            else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
        )
        _ended(_started(folder, [*train, "--out", f"t{number}"], start))
        with (folder / f"t{number}" / "training.csv").open(newline="") as file:
            curves.append(list(csv.DictReader(file))[-1])
    one, two = (float(row["seconds"]) for row in curves)
    losses = [float(row["loss"]) for row in curves]
    disjoint_by = abs(losses[0] - losses[1]) / max(abs(losses[0]), 1e-9)
    told = f"loss {disjoint_by:.2%} apart"
    return ["training on two processes (torchrun, gloo)", *_compared(one, two), told]


def _compared(one: float, two: float) -> list[str]:
    return [f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}"]


def _said(same: bool) -> str:
    return "every file, by sha256" if same else "NO"


def _seconds(folder: Path, command: Sequence[str]) -> float:
    begun = time.perf_counter()
    _ended(_started(folder, command))
    return time.perf_counter() - begun


def _started(
    folder: Path, command: Sequence[str], start: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *start, "-m", "staanet", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )


def _ended(process: subprocess.Popen[bytes]) -> None:
    said = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(said.decode(errors="replace"))


def _hashes(folder: Path) -> dict[str, str]:
    """Of every file but those that hold times, and the pictures, which shards leave out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {TIMES, ".lock"} and path.parent.name != "pictures"
    }


# ---------------------------------------------------------------- decoding once


def loading_table(size: Size) -> str:
    """Reading all clips of a corpus from its files, and from what a run keeps of them."""
    rows = []
    for rate in (RATE, 3 * RATE):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(size.many):
                write_noise(folder / "in" / LABELS[number % 7] / f"{number}.wav", 3.0, rate)
            corpus = corpora.load_corpus(f"folder:{folder / 'in'}")
            begun = time.perf_counter()
            _read(corpus)
            first = time.perf_counter() - begun
            begun = time.perf_counter()
            _read(cache.with_cache(corpus, folder / "kept"))
            written = time.perf_counter() - begun
            works: dict[str, Callable[[], object]] = {
                "files": lambda c=corpus: _read(c),  # type: ignore[misc]
                "kept": lambda c=corpus, f=folder: _read(cache.with_cache(c, f / "kept")),  # type: ignore[misc]
            }
            times = paired(works, size.rounds)
        each = 1000 / size.many
        rows.append(
            [
                f"{rate // 1000} kHz",
                f"{each * first:.2f}",
                f"{each * written:.2f}",
                spread(times["files"], each, 2),
                spread(times["kept"], each, 2),
                ratio(times["files"], times["kept"]),
            ]
        )
    head = [
        "sample rate of the files",
        "ms per clip, first reading",
        "ms per clip, first reading and writing of the cache",
        "ms per clip, from files",
        "ms per clip, from the cache",
        "speed-up",
    ]
    return (
        f"Each stage of a run reads clips. The test reads {size.many} clips of 3 s at 16 kHz from the files and "
        "from the decoded cache of the run. Each opening of the cache compares the sha256 of every source "
        "file and of the cache.\n\n" + table(head, rows)
    )


def _read(corpus: Corpus) -> int:
    return sum(int(clip.pcm16[-1]) for clip in corpus.clips(RATE))
