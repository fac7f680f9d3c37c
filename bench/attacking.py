"""What the benches of attacks share: a run's victims and clips, generators trained where the run has none,
and clips attacked one by one, each kept, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from staanet import config, load_corpus, load_generator, load_victim, pipeline, storage
from staanet.attacks import collate, craft
from staanet.cli.session import checked_device
from staanet.config import GeneratorRecipe
from staanet.core import Attack, Clip, Corpus, Victim, stratified_subset
from staanet.generators.base import Generator
from staanet.generators.warm_start import find_conv_recurrent
from staanet.victims import Ensemble

EPSILON, DENSITY = 0.03, 0.2


def parser(name: str, description: str | None, clips: int) -> argparse.ArgumentParser:
    """What every such command asks for: a run, its corpus, how many test clips, and where to keep it."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=description,
        epilog=f"example: python -m bench {name} runs/emodb_full emodb:PATH",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="a run of emodb_full, or one with the same victims")
    made.add_argument("corpus", help="KIND:PATH of that run's corpus")
    made.add_argument("--clips", type=int, default=clips, help=f"test clips (default: {clips})")
    made.add_argument("--out", type=Path, default=Path(f"runs/{name}"))
    made.add_argument(
        "--device", type=checked_device, default="cpu", help="cpu, cuda or cuda:N (default: cpu)"
    )
    return made


def on(device: str) -> str:
    """The option that names a device, where it is not the usual one.

    >>> on("cuda"), on("cpu")
    (' --device cuda', '')
    """
    return "" if device == "cpu" else f" --device {device}"


def made_folder(folder: Path) -> Path:
    """``folder``, which now exists."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Outcome:
    """What an attack did to clips: a row per clip."""

    rows: Sequence[Mapping[str, Any]]

    def fooled(self, target: str) -> float:
        """Share of clips on which ``target`` changed its answer."""
        return statistics.fmean(row["after"][target] != row["before"][target] for row in self.rows)

    def reached(self, target: str) -> float:
        """Share that ``target`` takes for the wanted class, of those that it did not before."""
        away = [row for row in self.rows if row["before"][target] != row["wanted"]]
        return statistics.fmean(row["after"][target] == row["wanted"] for row in away)

    def mean(self, key: str) -> float:
        """Over the clips that have a finite value."""
        values = [row[key] for row in self.rows if math.isfinite(row[key])]
        return statistics.fmean(values) if values else math.nan

    @property
    def seconds(self) -> float:
        """Median time of a clip."""
        return statistics.median(row["seconds"] for row in self.rows)


@dataclass
class Bench:
    """A run's victims and clips, and where what is measured is kept."""

    run: Path
    corpus: Corpus
    out: Path
    clips: list[Clip]
    victims: dict[str, Victim]
    steps: int
    seed: int
    protocol: str | None = None
    device: str = "cpu"

    @cached_property
    def training(self) -> tuple[Sequence[Clip], Sequence[Clip]]:
        """Training clips, and a quarter of the dev clips, enough to see whether training does harm."""
        train, dev, _ = self.corpus.split(self.seed, self.protocol)
        first = next(iter(self.victims.values()))
        loaded = [
            pipeline.load_clips(part, first, pipeline.Context(progress=told))
            for part in (train, dev)
        ]
        return loaded[0], stratified_subset(loaded[1], max(1, len(loaded[1]) // 4))

    @classmethod
    def of(
        cls,
        run: Path,
        spec: str,
        out: Path,
        count: int,
        steps: int,
        names: Sequence[str] = (),
        device: str = "cpu",
    ) -> Self:
        """``count`` test clips, and the victims of those ``names``; all of the run's where none is named."""
        recipe = config.load_recipe(str(run / "recipe.toml"))
        victims = {
            name: load_victim(run / "victims" / name).to(device) for name in names or recipe.victims
        }
        corpus = load_corpus(spec)
        held_out = corpus.split(recipe.seed, recipe.protocol)[2]
        first = next(iter(victims.values()))
        clips = stratified_subset(
            pipeline.load_clips(held_out, first, pipeline.Context(progress=told)), count
        )
        return cls(run, corpus, out, clips, victims, steps, recipe.seed, recipe.protocol, device)

    def measure(
        self,
        name: str,
        attack: Callable[[], Attack],
        source: Victim,
        *,
        clips: Sequence[Clip] | None = None,
        label: str | None = None,
    ) -> Outcome:
        """Attack clip by clip; rows that are there already are read, not made again."""
        clips = self.clips if clips is None else clips
        journal = storage.Journal(self.out / "cells" / f"{name}.jsonl")
        (self.out / "cells").mkdir(exist_ok=True)
        known = {str(row["id"]): row for row in journal.records()}
        made: Attack | None = None
        for number, clip in enumerate(clips, start=1):
            if clip.id not in known:
                made = made or attack()
                wanted = pipeline.target_class(label, clip, source.labels)
                (one,) = craft(made, source, [clip], label=wanted)
                pair, _ = collate([clip, Clip(clip.id, one.adversarial, clip.sample_rate)], source)
                before, after = {}, {}
                with torch.inference_mode():
                    for target, victim in self.victims.items():
                        said = [victim.labels[i] for i in victim(pair).argmax(dim=1)]
                        before[target], after[target] = said
                row = {"id": clip.id, "wanted": wanted, "before": before, "after": after}
                known[clip.id] = row | {
                    k: v if math.isfinite(v) else None for k, v in one.measurements().items()
                }
                journal.append(known[clip.id])
            told(name, number, len(clips))
        rows = [known[clip.id] for clip in clips]
        return Outcome(
            [
                {k: math.inf if v is None and k != "wanted" else v for k, v in row.items()}
                for row in rows
            ]
        )

    def unseen(self, spec: str) -> dict[str, list[Clip]]:
        """As many clips of another corpus as there are test clips, under its name."""
        corpus = load_corpus(spec)
        first = next(iter(self.victims.values()))
        loaded = pipeline.load_clips(corpus, first, pipeline.Context(progress=told))
        return {corpus.name: stratified_subset(loaded, len(self.clips))}

    def generator(self, name: str, sources: Sequence[str], **settings: Any) -> Generator:
        """A generator of the run, or one trained here with ``settings``."""
        if not settings and (self.run / "generators" / name / storage.CARD).exists():
            return load_generator(self.run / "generators" / name).to(self.device)
        folder = self.out / "generators" / word(name)
        recipe = config.validate_settings(
            GeneratorRecipe,
            {
                "epsilon": EPSILON,
                "max_density": DENSITY,
                "batch_size": 8,
                "seconds": 1.0,
                **settings,
            },
            where=name,
        )
        pipeline.train_generator(
            self.corpus,
            self.source(",".join(sources)),
            folder,
            recipe=recipe,
            context=pipeline.Context(
                seed=self.seed, protocol=self.protocol, device=self.device, progress=told
            ),
        )
        return load_generator(folder).to(self.device)

    def own(self, name: str) -> Generator:
        """Against one victim, or the ensemble of several: the run's, or trained here. A reflection
        begins as strong as it gets, and one of three voices is slow to train."""
        members = name.split(",")
        convolutional = all(find_conv_recurrent(self.victims[one]) is not None for one in members)
        if (self.run / "generators" / name / storage.CARD).exists():
            return self.generator(name, members)
        steps = 400 if convolutional else 40 if len(members) > 1 else 60
        return self.generator(name, members, steps=steps, evaluate_every=steps // 4)

    def source(self, name: str) -> Victim:
        """A victim, or the ensemble of several with commas between."""
        members = [self.victims[one] for one in name.split(",")]
        return members[0] if len(members) == 1 else Ensemble(members)

    def about_victims(self) -> str:
        """Each victim's test UAR and the beginning of its weights' hash."""
        cards = {
            name: storage.read_card(self.run / "victims" / name, "victim") for name in self.victims
        }
        return ", ".join(
            f"`{name}` (test UAR {card['test_uar']:.3f}, weights `{str(card['sha256'])[:8]}`)"
            for name, card in cards.items()
        )


def percent(share: float) -> str:
    """``0.5`` as ``50 %``; what was not reached as n/a."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else "n/a"


def word(title: str) -> str:
    """A title as part of a file name."""
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower())


def titled(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], note: str) -> str:
    """A table under its title."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([f"### {title}", "", note, "", *lines])


def told(what: str, done: int, total: int, figures: str = "") -> None:
    """Progress on the error stream, a line at the end of each thing."""
    if done == total or (sys.stderr.isatty() and done % 5 == 0):
        print(
            json.dumps({"what": what, "done": done, "figures": figures}),
            file=sys.stderr,
            flush=True,
        )
