"""``python -m bench kill --command attack --n 500``: killed anywhere, resumed, equal to the uninterrupted.

Half of the kills are at a random moment, half at a named point: before, within or after the n-th write,
fsync or rename (``tests.support.forks.Fault``); a third of the resumed commands are killed once more. After
each kill every file that stands there must be whole, and what the journal calls done must not be
done again. In the end the folder must be the uninterrupted one, file by file, by sha256. The clock of
measured times stands still in all of them, as seconds are the one thing that differs between two runs, and a
digest stands where a picture would (it is written like one, and drawing takes nine tenths of the time);
of ``run`` the ``journal.jsonl``, a diary of its starts, is left out as well.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.forks import Commands, Fault, Outcome, tree

from staanet import audio, storage

RATE = 16_000
QUIET: dict[str, Any] = {"still": True, "undrawn": True}
"""No measured times, which differ between two runs, and no pictures, which take nine tenths of them."""
PASSING = ("journal.jsonl", "unfinished.json")
"""What only unfinished work has, and may be changed by the next start."""

RECIPE = """
name = "tiny"
corpus = "folder:{corpus}"
[victims.emo18]
steps = 4
batch_size = 4
seconds = 0.2
evaluate_every = 2
[generator]
sources = ["emo18"]
steps = 2
batch_size = 2
seconds = 0.2
evaluate_every = 1
[attacks.staa]
max_density = 0.2
[attacks.random]
match = "staa"
"""


@dataclass
class World:
    """A tiny corpus, and a finished run on it that commands start from."""

    root: Path

    @classmethod
    def made(cls, root: Path, commands: Commands) -> World:
        """Render the corpus and make the run."""
        time_s = np.arange(round(0.25 * RATE)) / RATE
        for number, label in enumerate(("high", "low")):
            for speaker in range(6):
                hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
                noise = np.random.default_rng(10 * number + speaker).standard_normal(len(time_s))
                samples = audio.snap(0.3 * np.sin(2 * np.pi * hz * time_s) + 0.01 * noise)
                path = root / "corpus" / label / f"s{speaker}" / "0.wav"
                storage.write_bytes(path, audio.encode(samples, RATE))
        (root / "tiny.toml").write_text(RECIPE.format(corpus=(root / "corpus").as_posix()))
        done = commands.run("run", root / "tiny.toml", "--out", root / "run", **QUIET, timeout=900)
        assert done.code == 0, done.err
        return cls(root)

    def arguments(self, command: str, out: Path) -> list[object]:
        """The command line that fills ``out``."""
        corpus, run = f"folder:{self.root / 'corpus'}", self.root / "run"
        victim = run / "victims" / "emo18"
        tiny = ["--batch-size", 2, "--seconds", 0.2, "--out", out]
        return {
            "attack": [
                "attack",
                corpus,
                "--part",
                "all",
                "--attack",
                "random",
                "--max-density",
                0.1,
                "--source",
                victim,
                "--out",
                out,
            ],
            "train-victim": ["train-victim", corpus, "emo18", "--steps", 4, *tiny],
            "train-generator": ["train-generator", corpus, "--source", victim, "--steps", 2, *tiny],
            "evaluate": [
                "evaluate",
                run / "adversarial" / "random__emo18",
                "--target",
                victim,
                "--out",
                out,
            ],
            "report": ["report", out],
            "run": ["run", self.root / "tiny.toml", "--out", out],
        }[command]

    def fresh(self, command: str, out: Path) -> None:
        """What must stand in ``out`` before the command."""
        shutil.rmtree(out, ignore_errors=True)
        if command == "report":
            shutil.copytree(self.root / "run", out, copy_function=os.link)
            shutil.rmtree(out / "report", ignore_errors=True)


LATE = "too late"
"""What a kill is that came after the command's end."""
COMMANDS = ("attack", "train-victim", "train-generator", "evaluate", "report", "run")


def state(out: Path, command: str) -> dict[str, str]:
    """The folder as it is compared."""
    return tree(out, (".lock", "journal.jsonl") if command == "run" else (".lock",))


@dataclass
class Tally:
    """What happened, and what must not."""

    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0


def kill_loop(
    world: World,
    command: str,
    n: int,
    commands: Commands,
    seed: int = 0,
    progress: Callable[[int, Tally], None] = lambda done, tally: None,
    until: float = math.inf,
) -> Tally:
    """Resume a command after ``n`` kills that came before its end, or until ``time.monotonic()`` is that."""
    draw, tally, out = random.Random(f"{seed} {command}"), Tally(), world.root / f"cut-{command}"
    arguments = world.arguments(command, out)
    world.fresh(command, out)
    whole = commands.run(*arguments, **QUIET, timeout=600)
    assert whole.code == 0, whole.err
    wanted = state(out, command)
    for number in itertools.count(1):
        if tally.resumed == n or time.monotonic() > until:
            break
        world.fresh(command, out)
        told, landed = f"{command} {number} of seed {seed}", False
        for _ in range(2 if draw.random() < 1 / 3 else 1):
            how = _killed(commands, arguments, draw, whole)
            tally.kills[how] += 1
            landed |= how != LATE
            tally.wrong += [f"{told}: {line}" for line in torn(out, wanted, command)]
        finished = finished_files(out)
        again = commands.run(*arguments, **QUIET, timeout=600)
        if again.code != 0:
            tally.wrong.append(f"{told}: resumed with exit code {again.code}: {again.err[-200:]}")
        elif (found := state(out, command)) != wanted:
            differing = sorted({*found.items()} ^ {*wanted.items()})
            tally.wrong.append(f"{told}: {sorted({name for name, _ in differing})[:5]} differ")
        if redone := [p.name for p, moment in finished.items() if p.stat().st_mtime_ns != moment]:
            tally.wrong.append(f"{told}: done again: {redone[:5]}")
        tally.resumed += landed
        progress(max(1, tally.resumed), tally)
    return tally


def _killed(
    commands: Commands, arguments: list[object], draw: random.Random, whole: Outcome
) -> str:
    if draw.random() < 0.5:
        fault = Fault(draw.randint(1, max(1, whole.calls)), after=draw.random() < 0.5)
        code = commands.run(*arguments, **QUIET, fault=fault).code
        return "at a named point" if code == -9 else LATE
    pid = commands.start(*arguments, **QUIET)
    time.sleep(draw.uniform(0, whole.seconds))
    os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
    return "at a random moment" if commands.wait(pid).code == -9 else LATE


def torn(out: Path, wanted: dict[str, str], command: str) -> list[str]:
    """Files under their own name that are not whole: final ones differ from those of a whole run, JSON
    does not read."""
    lines = []
    for name, digest in tree(out).items():
        path = out / name
        if name.endswith((".part", ".lock")) or "checkpoint/" in name:
            continue
        if path.name in PASSING:
            if path.suffix == ".json":
                storage.read_json(path)
            else:
                storage.Journal(path).records()
        elif name in wanted and wanted[name] != digest:
            lines.append(f"{name} is torn")
    return lines


def finished_files(out: Path) -> dict[Path, int]:
    """When the files of clips were written that a journal calls done."""
    return {
        journal.parent / row[key]: (journal.parent / row[key]).stat().st_mtime_ns
        for journal in out.rglob("journal.jsonl")
        for row in storage.Journal(journal).records()
        for key in ("file_name", "original_file_name")
        if key in row
    }


ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


def fault_loop(
    world: World,
    command: str,
    commands: Commands,
    at_most: int = 100,
    seed: int = 0,
    until: float = math.inf,
) -> Tally:
    """Each write, fsync and rename fails, once and for ever, or ``at_most`` so many of them, drawn by the
    seed: exit code 5, no torn file, no part left behind, and the same command resumes. Where what could not be
    written is but a copy that saves time, such as a decoded corpus, the command ends well, all files the same."""
    tally, out = Tally(), world.root / f"fault-{command}"
    arguments = world.arguments(command, out)
    world.fresh(command, out)
    whole = commands.run(*arguments, **QUIET, timeout=600)
    wanted = state(out, command)
    faults = list(itertools.product(range(1, whole.calls + 1), (False, True)))
    random.Random(f"{seed} {command}").shuffle(faults)
    for number, (nth, for_ever) in enumerate(faults[:at_most]):
        if time.monotonic() > until:
            break
        code = ERRORS[number % len(ERRORS)]
        world.fresh(command, out)
        told = f"{command}: call {nth} fails with {errno.errorcode[code]}{' for ever' * for_ever}"
        failed = commands.run(*arguments, **QUIET, fault=Fault(nth, code, for_ever=for_ever))
        tally.kills[errno.errorcode[code]] += 1
        spared = failed.code == 0 and state(out, command) == wanted  # a copy that it does without
        if not spared and (failed.code != 5 or not failed.is_clean):
            tally.wrong.append(f"{told}: exit code {failed.code}: {failed.err[-300:]}")
        tally.wrong += [f"{told}: {line}" for line in torn(out, wanted, command)]
        tally.wrong += [f"{told}: {path.name} is left" for path in out.rglob("*.part")]
        again = commands.run(*arguments, **QUIET, timeout=600)
        if again.code != 0 or state(out, command) != wanted:
            tally.wrong.append(f"{told}: resumed to another folder, exit code {again.code}")
    return tally


def main(command: str, n: int, seed: int, minutes: float = math.inf) -> str:
    """The kills, at most so many ``minutes`` of them, and up to a hundred faults in half as many more; the
    figures as Markdown."""
    memory = Path("/dev/shm")  # a SIGKILL loses nothing that was written, flushed or not
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="staanet-kill-", dir=place))
    begun, said = time.monotonic(), 0

    def progress(done: int, tally: Tally) -> None:
        left = (time.monotonic() - begun) / done * (n - done)
        nonlocal said
        for line in tally.wrong[said:]:
            print(line, file=sys.stderr)
        said = len(tally.wrong)
        print(
            f"{command}: {done}/{n} kills, {len(tally.wrong)} wrong, about {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    try:
        with Commands(folder) as commands:
            world = World.made(folder, commands)
            tally = kill_loop(world, command, n, commands, seed, progress, begun + 60 * minutes)
            later = time.monotonic() + 30 * minutes
            faults = fault_loop(world, command, commands, seed=seed, until=later)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    limit = f" --minutes {minutes:g}" if tally.resumed < n else ""
    told = [f"* {line}" for line in (tally.wrong + faults.wrong)[:50]]
    return "\n".join(
        [
            f"The command was `python -m bench kill --command {command} --n {n} --seed {seed}{limit}`. It took "
            f"{time.monotonic() - begun:.0f} s.",
            "",
            "| event | resumed or failed | kind | wrong results |",
            "|---|---:|---|---:|",
            f"| process killed | {tally.resumed} "
            f"| {', '.join(f'{count} {how}' for how, count in sorted(tally.kills.items()))} | {len(tally.wrong)} |",
            f"| write failed | {sum(faults.kills.values())} "
            f"| {', '.join(f'{count} {kind}' for kind, count in sorted(faults.kills.items()))} | {len(faults.wrong)} |",
            "",
            *told,
        ]
    ).strip()
