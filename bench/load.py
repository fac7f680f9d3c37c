"""``python -m bench load --rows 1000000 --clips 20000 --hours 2``: time and peak memory as the work grows.

Manifests of an eighth, a quarter, a half and all of the rows are read into a corpus and split; as many
shares of the clips (0.3 s each) are attacked by the control on a victim that costs little, and evaluated;
recordings of a quarter and all of the hours are attacked in windows. Each size runs in a process of its
own, whose peak memory is told beside that of a process that only imports what is needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARES = (8, 4, 2, 1)
RATE = 16_000
BEGIN = """
import json, resource, sys, time, torch
from pathlib import Path
from staanet import pipeline
from staanet.audio import AudioLimits
from staanet.config import AttackRecipe
from staanet.core import Victim
from staanet.corpora import unlabelled_corpus
from staanet.corpora.folder import read_folder
from dataclasses import replace

class Mean(Victim):
    architecture = "mean"
    def __init__(self):
        super().__init__(name="mean", labels=("up", "down"))
    def forward(self, waveforms, lengths=None):
        score = waveforms.mean(dim=1)
        return torch.stack([score, -score], dim=1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def attack(corpus, window_s):
    clips = pipeline.ReadingClips(corpus, victim, context, window_s)
    plan = pipeline.plan_attack("random", AttackRecipe(max_density=0.1), victim, context=context)
    made = pipeline.attack(plan, clips, Path(sys.argv[2]), context=context)
    pipeline.join_recordings(clips.recordings.values(), Path(sys.argv[2]), context=context)
    return len(made)

victim, context = Mean(), pipeline.Context()
before, begun = peak(), time.process_time()
"""
READ = """
corpus = read_folder(Path(sys.argv[1]))
number = sum(len(part) for part in corpus.split(0))
"""
ATTACK = """
number = attack(unlabelled_corpus([Path(sys.argv[1])]), None)
"""
RECORDING = """
limits = AudioLimits(max_seconds=1e6, max_bytes=2**40)
number = attack(replace(unlabelled_corpus([Path(sys.argv[1])]), limits=limits), 10.0)
"""
EVALUATE = """
number = len(pipeline.evaluate([Path(sys.argv[1])], [victim], Path(sys.argv[2]), context=context).rows)
"""
END = """
print(json.dumps([number, time.process_time() - begun, before, peak()]))
"""


def main(rows: int, clips: int, hours: float) -> str:
    """All curves, as Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="staanet-load-"))
    head = "| what | number | CPU seconds | MiB before | peak MiB |\n|---|---:|---:|---:|---:|"
    command = f"python -m bench load --rows {rows} --clips {clips} --hours {hours:g}"
    lines = [f"The command `{command}` measures time and memory as the work grows.", "", head]
    try:
        for share in SHARES:
            path = _manifest(folder, rows // share)
            lines.append(_row("rows of a manifest, read and split", READ, path))
        inputs, made, told = folder / "clips", folder / "made", folder / "told"
        for share in SHARES:
            _render(inputs, clips // share)
            lines.append(_row("clips attacked", ATTACK, inputs, made))
            lines.append(_row("clips evaluated", EVALUATE, made, told))
            shutil.rmtree(made)
            shutil.rmtree(told)
        for share in (4, 1):
            recording = _recording(folder, hours / share)
            what = f"windows of a recording of {hours / share:g} h attacked"
            lines.append(_row(what, RECORDING, recording, made))
            shutil.rmtree(made)
    finally:
        shutil.rmtree(folder)
    return "\n".join(lines)


def _row(what: str, code: str, *arguments: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code + END, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"| {what} | failed: {done.stderr.strip().splitlines()[-1][:200]} | | | |"
    number, seconds, before, peak = json.loads(done.stdout.splitlines()[-1])
    line = f"| {what} | {number} | {seconds:.1f} | {before:.0f} | {peak:.0f} |"
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
    return line


def _manifest(folder: Path, rows: int) -> Path:
    path = folder / f"list{rows}.csv"
    with open(path, "w", encoding="utf-8") as out:
        out.write("file,label,speaker\n")
        for n in range(rows):
            out.write(f"s{n % 997}/clip{n}.wav,{('joy', 'fear', 'anger')[n % 3]},s{n % 997}\n")
    return path


def _render(folder: Path, clips: int) -> None:
    import numpy as np

    from staanet import audio

    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for n in range(clips):
        path = folder / f"clip{n:06d}.wav"
        if not path.exists():
            samples = audio.snap(0.1 * draw.standard_normal(4_800))
            path.write_bytes(audio.encode(samples, RATE))


def _recording(folder: Path, hours: float) -> Path:
    """Noise of so many hours, a minute at a time."""
    import numpy as np
    import soundfile

    path, draw = folder / "recording.wav", np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as out:
        for _ in range(max(1, round(60 * hours))):
            out.write(0.1 * draw.standard_normal(60 * RATE))
    return path
