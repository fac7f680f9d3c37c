"""``python -m bench selfcheck CORPUS...``: does the self-check accuse honest runs, and miss planted frauds?

Makes small honest runs of different corpora, pairs of victims and seeds, checks each, then plants frauds in
copies of it and makes the check that is there for each. Runs and their checks stay in ``--out``, so that a
stopped command goes on where it was. The figures go into ``bench/results.md``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import sections
from staanet import config, pipeline, storage
from staanet.corpora import load_corpus
from staanet.errors import StaaNetError
from staanet.pipeline.run_card import commit
from staanet.results import adversarial_set, clip_tables, row_files
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.sanity.jobs import jobs_of
from staanet.sanity.loaded_run import load_run
from staanet.sanity.selfcheck import as_json, selfcheck
from staanet.storage import describe_machine
from staanet.victims import load_victim

PAIRS = (
    ("emo18", "logmel_cnn"),
    ("logmel_cnn", "emo18"),
    ("zhao19", "logmel_cnn"),
    ("logmel_cnn", "zhao19"),
)
"""The source, and another victim."""
VICTIM = """
[victims.{name}]
steps = {steps}
batch_size = 8
seconds = 0.5
evaluate_every = {steps}
augment = "none"
"""
RECIPE = """
name = "honest"
corpus = "{corpus}"
root = "{root}"
seed = {seed}
selfcheck = false
clip_seconds = 0.5

[generator]
network = "compact"
sources = ["{source}"]
steps = 2
batch_size = 2
seconds = 0.5
evaluate_every = 2

[attacks.pgd]
epsilon = 0.01
clips = {clips}
settings = {{ steps = 5 }}

[attacks.random]
epsilon = 0.01
clips = {clips}
"""
TRIED_CLIPS = 12
"""On so many clips a check tries victims and sets."""
UTTERANCES = 2
"""Of each speaker and class of a corpus, drawn by the seed of the run."""


def main(arguments: Sequence[str]) -> None:
    """Makes what is missing, and writes the section."""
    parser = argparse.ArgumentParser(prog="python -m bench selfcheck", description=__doc__)
    parser.add_argument("corpora", nargs="+", metavar="KIND:PATH", help="labelled speech")
    parser.add_argument("--runs", type=int, default=20, help="honest runs (default: 20)")
    parser.add_argument("--steps", type=int, default=60, help="of each victim (default: 60)")
    parser.add_argument("--clips", type=int, default=32, help="attacked in each run (default: 32)")
    parser.add_argument("--out", type=Path, default=Path("runs/selfcheck"))
    options = parser.parse_args(arguments)
    kinds = list(itertools.product(options.corpora, PAIRS))
    trials = []
    for number in range(options.runs):
        corpus, pair = kinds[number % len(kinds)]
        folder = options.out / f"{number:02d}-{corpus.partition(':')[0]}-{pair[0]}"
        trial = Trial(folder, corpus, pair, number, options.steps, options.clips)
        print(f"selfcheck: {trial.folder.name}", file=sys.stderr, flush=True)
        trial.make()
        trials.append(storage.read_json(trial.folder / "trial.json"))
        sections.write("selfcheck", section(trials, options))


@dataclass(frozen=True)
class Trial:
    """One honest run, its self-check, and the frauds that are planted in it."""

    folder: Path
    corpus: str
    pair: tuple[str, str]
    seed: int
    steps: int
    clips: int

    def make(self) -> None:
        """Writes ``trial.json``, unless it is there."""
        if (self.folder / "trial.json").exists():
            return
        run = self.folder / "run"
        (self.folder).mkdir(parents=True, exist_ok=True)
        recipe = self.folder / "recipe.toml"
        source = self.pair[0]
        corpus, root = self.write_part()
        text = RECIPE.format(
            corpus=f"folder:{corpus}", root=root, clips=self.clips, seed=self.seed, source=source
        )
        for name in self.pair:
            text += VICTIM.format(name=name, steps=self.steps)
        storage.write_text(recipe, text)
        pipeline.run(config.load_recipe(str(recipe)), run, context=pipeline.Context())
        spent = sum(storage.read_card(run, "run")["seconds"].values())
        begin = time.perf_counter()
        checks = selfcheck(run, clips=TRIED_CLIPS, seed=self.seed)
        seconds = time.perf_counter() - begin
        record = {
            "corpus": self.corpus.partition(":")[0],
            "source": source,
            "seed": self.seed,
            "run_s": spent,
            "check_s": seconds,
            "checks": as_json(checks)["checks"],
            "missed": [name for name in FRAUDS if not self.finds(run, name)],
        }
        storage.write_json(self.folder / "trial.json", record)

    def write_part(self) -> tuple[Path, str]:
        """Writes a manifest of a part of the corpus, and returns its path and the folder of the audio."""
        rng = np.random.default_rng(self.seed)
        groups: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        for utterance in load_corpus(self.corpus).utterances:
            file = str(Path(utterance.path).resolve())
            groups[utterance.speaker, utterance.label].append(file)
        root = os.path.commonpath([file for files in groups.values() for file in files])
        rows = [
            {"file": os.path.relpath(files[i], root), "label": label, "speaker": speaker}
            for (speaker, label), files in groups.items()
            for i in rng.permutation(len(files))[:UTTERANCES]
        ]
        path = self.folder / "part.csv"
        storage.write_text(path, row_files.csv_text(("file", "label", "speaker"), rows))
        return path, root

    def finds(self, run: Path, name: str) -> bool:
        """Whether the check that is there for a fraud finds it in a copy of the run."""
        copy = self.folder / "fraud"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        check, plant = FRAUDS[name]
        plant(copy)
        try:
            jobs = [job for job in jobs_of(load_run(copy), TRIED_CLIPS, 0) if job.name == check]
            return any(job.run(lambda what: None).verdict == "fail" for job in jobs)
        except StaaNetError:
            return True  # the run is refused altogether
        finally:
            shutil.rmtree(copy)


# ---------------------------------------------------------------- frauds


def remake(run: Path, change: Callable[[AdversarialClip, np.random.Generator], Any]) -> None:
    """The set of PGD with other changes, its table measured and its results computed anew."""
    rng = np.random.default_rng(1)
    (folder,) = (run / "adversarial").glob("pgd__*")
    crafted = AdversarialSet.load(folder)
    clips = []
    for pair in crafted:
        samples = np.clip(pair.clean.pcm16 + change(pair, rng), -32768, 32767).astype(np.int16)
        clips.append(AdversarialClip(pair.clean, samples, pair.seconds, pair.queries))
    AdversarialSet(clips, crafted.card).save(folder)
    evaluate_again(run)


def evaluate_again(run: Path) -> None:
    """Tables and results agree with the files afterwards."""
    victims = [load_victim(path) for path in sorted((run / "victims").iterdir())]
    sets = sorted((run / "adversarial").iterdir())
    pipeline.evaluate(sets, victims, run / "results", context=pipeline.Context())


def exchange_files(run: Path) -> None:
    """Exchanges two adversarial files of PGD."""
    (folder,) = (run / "adversarial").glob("pgd__*")
    first, second = sorted((folder / "adversarial").iterdir())[:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def shift_labels(run: Path) -> None:
    """Gives each clip of a set the label of the clip before it."""
    for folder in (run / "adversarial").iterdir():
        rows = adversarial_set.read_rows(folder)
        labels = [row["label"] for row in rows]
        shifted = [row | {"label": labels[i - 1]} for i, row in enumerate(rows)]
        text = row_files.csv_text(adversarial_set.COLUMNS, shifted)
        storage.write_text(folder / "metadata.csv", text)


def change_summary(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Returns what changes each cell of the summary of a run."""

    def plant(run: Path) -> None:
        summary = storage.read_json(run / "results" / "summary.json")
        for cell in summary["cells"]:
            change(cell)
        storage.write_json(run / "results" / "summary.json", summary)

    return plant


def raise_rate(cell: dict[str, Any]) -> None:
    """Moves a fooling rate by five points."""
    rate = cell["fooling_rate"]
    rate["value"] += 0.05 if rate["value"] < 0.9 else -0.05


def flip_mark(cell: dict[str, Any]) -> None:
    """Marks what is no white box, and takes the mark off what is one."""
    cell["white_box"] = not cell["white_box"]


def invent_answers(run: Path) -> None:
    """Writes that every answer changed."""
    path = run / "results" / "results.parquet"
    rows = [dict(row) for row in row_files.read_parquet(path)]
    labels = sorted({row["clean_prediction"] for row in rows} | {row["label"] for row in rows})
    for row in rows:
        others = [label for label in labels if label != row["clean_prediction"]]
        row["adversarial_prediction"] = others[0]
    row_files.write_parquet(path, rows)


def rename_split(run: Path) -> None:
    """Lets the card of a victim name another split."""
    folder = next((run / "victims").iterdir())
    card = storage.read_card(folder, "victim")
    card["inputs"]["split"] = "0" * 64
    storage.write_card(folder, card)


def correct_label(run: Path) -> None:
    """Lets the run be made from another label of its first clip."""
    path = next(run.glob(storage.CLIP_TABLES))
    rows = [dict(row) for row in row_files.read_csv(path, clip_tables.COLUMNS)]
    other = next(row["label"] for row in rows if row["label"] != rows[0]["label"])
    rows[0]["label"] = other
    storage.write_text(path, row_files.csv_text(clip_tables.COLUMNS, rows))


FRAUDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "changes shuffled in time": (
        "direction",
        lambda run: remake(run, lambda pair, rng: rng.permutation(pair.delta)),
    ),
    "signs drawn at random": (
        "direction",
        lambda run: remake(
            run, lambda pair, rng: rng.choice([-1, 1], len(pair.delta)) * pair.delta
        ),
    ),
    "two files exchanged": ("disk", exchange_files),
    "labels shifted by a row": ("clean_audio", shift_labels),
    "a rate 5 points higher": ("rates", change_summary(raise_rate)),
    "white box marks exchanged": ("white_box_marks", change_summary(flip_mark)),
    "invented answers": ("predictions", invent_answers),
    "a victim of another split": ("split", rename_split),
    "a label corrected since": ("content", correct_label),
}
"""The check that is there for each fraud, and what plants it in a copy of a run."""


# ---------------------------------------------------------------- the section


def section(trials: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The text for ``results.md``."""
    kinds = " ".join(f"{spec.partition(':')[0]}:PATH" for spec in options.corpora)
    accused = [trial for trial in trials if names_of(trial, "fail")]
    missed = sum(len(trial["missed"]) for trial in trials)
    share = [trial["check_s"] / (trial["run_s"] + trial["check_s"]) for trial in trials]
    rows = [
        "| corpus | source | seed | run s | check s | accused of | warnings | frauds missed |",
        "|---|---|---:|---:|---:|---|---|---|",
        *(
            f"| {t['corpus']} | {t['source']} | {t['seed']} | {t['run_s']:.0f} | {t['check_s']:.0f} | "
            f"{listed(names_of(t, 'fail'))} | {listed(names_of(t, 'warn'))} | {listed(t['missed'])} |"
            for t in trials
        ),
    ]
    about = (
        f"The command `python -m bench selfcheck {kinds} --runs {options.runs} --steps {options.steps} --clips "
        f"{options.clips}` ran at commit `{commit()}` with {describe_machine()}. Each run trains two victims on a "
        "part of the corpus. PGD and noise attack the first victim on half a second of each clip. The runs are "
        "small, so the check takes a large share of the time. A fraud is a manipulation of a copy of the run."
    )
    found = (
        f"The check accused {len(accused)} of {len(trials)} honest runs. It missed {missed} of "
        f"{len(trials) * len(FRAUDS)} frauds. It took {100 * min(share):.0f} to {100 * max(share):.0f} % of the "
        "time of run and check."
    )
    return "\n\n".join(["## Self-check", about, found, "\n".join(rows)])


def names_of(trial: dict[str, Any], verdict: str) -> list[str]:
    """The checks of a trial with a verdict."""
    return [
        f"{check['name']} {check['subject']}".strip()
        for check in trial["checks"]
        if check["verdict"] == verdict
    ]


def listed(names: Sequence[str]) -> str:
    """Names with commas between them."""
    return ", ".join(names) or "none"
