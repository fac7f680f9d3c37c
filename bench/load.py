"""``python -m bench load --rows 1000000 --clips 20000``: time and peak memory as the work grows.

Manifests of an eighth, a quarter, a half and all of the rows are read into a corpus; as many shares of the
clips (0.3 s each) are attacked by the control on a victim that costs little. Each size runs in a process of
its own, whose peak memory is told beside that of a process that only imports what is needed.
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
READ = """
import json, resource, sys, time
from staanet.corpora.folder import read_folder
import staanet.pipeline
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begun = time.monotonic()
corpus = read_folder(Path(sys.argv[1]))
print(json.dumps([len(corpus), time.monotonic() - begun, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
ATTACK = """
import json, resource, sys, time, torch
from pathlib import Path
from staanet import pipeline
from staanet.config import AttackRecipe
from staanet.core import Victim
from staanet.corpora import unlabelled

class Mean(Victim):
    architecture = "mean"
    def __init__(self):
        super().__init__(name="mean", labels=("up", "down"))
    def forward(self, waveforms, lengths=None):
        score = waveforms.mean(dim=1)
        return torch.stack([score, -score], dim=1)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begun, victim, aside = time.monotonic(), Mean(), pipeline.Quarantine()
clips = pipeline.load_clips(unlabelled([Path(sys.argv[1])]), victim, aside)
made = pipeline.attack(pipeline.plan_attack("random", AttackRecipe(max_density=0.1), victim), clips, Path(sys.argv[2]), quarantine=aside)
print(json.dumps([len(made), time.monotonic() - begun, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def main(rows: int, clips: int) -> str:
    """Both curves, as Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="staanet-load-"))
    head = "| what | {} | seconds | MiB before | peak MiB |\n|---|---:|---:|---:|---:|"
    lines = [f"`python -m bench load --rows {rows} --clips {clips}`:", "", head.format("number")]
    try:
        for share in SHARES:
            lines.append(_row("rows of a manifest", READ, _manifest(folder, rows // share)))
        inputs = folder / "clips"
        for share in SHARES:
            _render(inputs, clips // share)
            lines.append(_row("clips attacked", ATTACK, inputs, folder / f"out{share}"))
            shutil.rmtree(folder / f"out{share}")
    finally:
        shutil.rmtree(folder)
    return "\n".join(lines)


def _row(what: str, code: str, *arguments: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)  # fmt: skip
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
            path.write_bytes(audio.encode(samples, 16_000))
