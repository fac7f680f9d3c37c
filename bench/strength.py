"""``python -m bench strength CORPUS...``: a generator beside gradient attacks of equal time, at every budget.

Each clip of each corpus is attacked on each source. All attacks change as many samples by as much: a share
of the samples, by a level in dB relative to the clip's active speech level. Gradient attacks follow margin
and cross-entropy, and the better of the two counts. ``Staa`` is compared clip by clip with the strongest
gradient attack that takes no more time. A generator belongs to the sources that its card names; a source
without one is attacked by its untrained start.

Every clip is kept in ``--out``, so that a stopped command goes on where it was. The figures go into
``bench/results.md`` and, with every interval, into ``strength.json`` in ``--out``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import sections
from bench.attacking import percent, titled, told, word
from staanet import load_corpus, load_generator, load_victim, pipeline, storage
from staanet.attacks import FGSM, MIFGSM, PGD, Random, Staa, collate, craft
from staanet.attacks.loss import LOSSES
from staanet.core import Attack, Budget, Clip, Victim, metrics, stratified_subset
from staanet.core.paired import Difference, paired_difference
from staanet.generators.base import Generator
from staanet.generators.warm_start import warm_start_generator
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine, pretrained
from staanet.victims import Ensemble, members_of

STEPS = (1, 2, 4, 8, 20)
CONTROL, ONCE, OFTEN = "random", "1 pass", "8 passes"
GRADIENT = ("FGSM", *(f"PGD {steps}" for steps in STEPS), "MI-FGSM")
METHODS = (CONTROL, *GRADIENT, ONCE, OFTEN)
SATURATED = 0.95
EQUAL_TIME = 1.15
"""How much longer than ours an attack may take and still count as one of equal time."""


def main(arguments: list[str]) -> None:
    """Attacks what is missing, and writes section and JSON."""
    options = parser().parse_args(arguments)
    victims = {victim.name: victim for victim in map(load_victim, options.victims)}
    generators = [(Path(p), load_generator(p)) for p in map(generator_folder, options.generators)]
    budgets = [(density, level) for level in options.levels for density in options.densities]
    options.out.mkdir(parents=True, exist_ok=True)
    cells: list[dict[str, Any]] = []
    with storage.FolderLock(options.out):
        for spec in options.corpora:
            clips = clips_of(spec, next(iter(victims.values())), options.part, options.clips)
            for source, generator, name in sources(options.sources, victims, generators):
                journal = storage.Journal(options.out / f"{word(f'{spec[-24:]} {name}')}.jsonl")
                trial = Trial(source, generator, list(victims.values()), journal, options.methods)
                rows = trial.measure(clips, budgets)
                corpus = spec.partition(":")[0]
                cells += [cell(rows, corpus, source, budget) for budget in budgets]
    storage.write_json(options.out / "strength.json", {"commit": commit(), "cells": cells})
    about = (
        f"The command `python -m bench strength {typed(arguments)}` ran at commit "
        f"`{commit()}` with {describe_machine()}. The level (dB) is the level of a changed sample, relative "
        "to the active speech level of the clip. The cells show the fooling rate in per cent. The brackets "
        "show the paired difference to the strongest gradient attack of equal time. The 95 % interval of "
        "the difference is clustered by speaker."
    )
    body = [f"## {options.title}", about, summary(cells), white_box(cells), transfer(cells)]
    sections.write(word(options.title), "\n\n".join(body))


def typed(arguments: Sequence[str]) -> str:
    """The arguments as they were typed, without the folders of this machine.

    >>> typed(["emodb:/data/emodb", "--methods", "PGD 1", "--out", "/data/out"])
    "emodb:PATH --methods 'PGD 1' --out PATH"
    """
    return shlex.join(re.sub(r"(^|:)/.*", r"\1PATH", word) for word in arguments)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -m bench strength",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("corpora", nargs="+", metavar="KIND:PATH", help="corpora whose clips are attacked")
    shipped = [f"shipped:{name}" for name in pretrained.names("victims")]
    add("--victims", nargs="+", default=shipped, help="every victim that answers")
    add(
        "--sources",
        nargs="+",
        help="names of victims to attack; a,b is an ensemble (default: each)",
    )
    add("--generators", nargs="*", default=[], help="folders, or shipped:NAME")
    add("--densities", nargs="+", type=float, default=[0.01, 0.05, 0.2, 1.0])
    add("--levels", nargs="+", type=float, default=[-40.0, -30.0, -20.0], help="dB")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="some (default: all)")
    add("--part", choices=("test", "all"), default="test", help="test: of the corpus's split")
    add("--clips", type=int, default=24, help="clips of each corpus (default: 24)")
    add("--out", type=Path, default=Path("runs/strength"))
    add("--title", default="Strength", help="of the section of bench/results.md")
    return options


def generator_folder(spec: str) -> Path:
    """The folder of a generator, which may be ``shipped:NAME``."""
    scheme, _, name = spec.partition(":")
    is_shipped = scheme == pretrained.SCHEME
    return pretrained.folder("generators", name) if is_shipped else Path(spec)


def clips_of(spec: str, victim: Victim, part: str, count: int) -> list[Clip]:
    """As many clips of a corpus, or of its test part, spread over labels and speakers."""
    corpus = load_corpus(spec)
    chosen = corpus if part == "all" else corpus.split(0)[2]
    return stratified_subset(
        pipeline.load_clips(chosen, victim, pipeline.Context(progress=told)), count
    )


def sources(
    names: Sequence[str] | None,
    victims: Mapping[str, Victim],
    generators: Sequence[tuple[Path, Generator]],
) -> list[tuple[Victim, Generator, str]]:
    """Each source, the generator that its name stands in the card of, and a name for both."""
    found: list[tuple[Victim, Generator, str]] = []
    for name in names or list(victims):
        members = [victims[member] for member in name.split(",")]
        source = members[0] if len(members) == 1 else Ensemble(members)
        for folder, generator in generators:
            card = storage.read_card(folder, "generator")
            if {member.name for member in members} <= set(card["sources"]):
                found.append((source, generator, f"{name} {str(card['sha256'])[:8]}"))
                break
        else:
            start = warm_start_generator(members, 1.0, 0.03, 1)
            assert start is not None, f"{name} has no generator; name one with --generators"
            found.append((source, start.requires_grad_(False).eval(), f"{name} start"))
    return found


def attacks(budget: Budget, generator: Generator) -> dict[str, list[Attack]]:
    """The attacks of each method; the better of them counts."""
    passes = {ONCE: 1, OFTEN: 8} if generator.iterations else {ONCE: 0}  # 0: as it always does
    return {
        CONTROL: [Random(budget=budget)],
        "FGSM": [FGSM(budget=budget, loss=loss) for loss in LOSSES],
        **{
            f"PGD {steps}": [PGD(budget=budget, steps=steps, loss=loss) for loss in LOSSES]
            for steps in STEPS
        },
        "MI-FGSM": [MIFGSM(budget=budget, loss=loss) for loss in LOSSES],
        **{
            name: [Staa(generator=generator, budget=budget, iterations=number, graphs=None)]
            for name, number in passes.items()
        },
    }


@dataclass(frozen=True)
class Trial:
    """A source, its generator, every victim that answers, and what was measured so far."""

    source: Victim
    generator: Generator
    victims: Sequence[Victim]
    journal: storage.Journal
    methods: Sequence[str] = METHODS

    def measure(
        self, clips: Sequence[Clip], budgets: Sequence[tuple[float, float]]
    ) -> list[dict[str, Any]]:
        """A row for each clip and budget: what each attack did, and how long it took."""
        rows = {(row["clip"], row["density"], row["level"]): row for row in self.journal}
        for number, clip in enumerate(clips, start=1):
            for density, level in budgets:
                if (clip.id, density, level) not in rows:
                    row = self.attack(clip, density, level)
                    rows[clip.id, density, level] = row
                    self.journal.append(row)
            told(f"strength {self.source.name}", number, len(clips))
        return [rows[clip.id, *budget] for budget in budgets for clip in clips]

    def attack(self, clip: Clip, density: float, level: float) -> dict[str, Any]:
        """One clip under one budget; all attacks are made in turn, so that their times compare."""
        names, waveforms, seconds = [], [collate([clip], self.source)[0][0]], []
        methods = attacks(Budget(epsilon=f"{level:g} dB", max_density=density), self.generator)
        for name in self.methods:
            for attack in methods.get(name, []):
                (crafted,) = craft(attack, self.source, [clip])
                names.append(name)
                seconds.append(crafted.seconds)
                changed = Clip(clip.id, crafted.adversarial, clip.sample_rate)
                waveforms.append(changed.waveform)
        batch = torch.stack(waveforms)
        with torch.inference_mode():
            answers = {v.name: v(batch).argmax(dim=1).tolist() for v in self.victims}
        return {
            "clip": clip.id,
            "speaker": clip.speaker,
            "density": density,
            "level": level,
            "attack": names,
            "seconds": seconds,
            "samples": [int((w != batch[0]).sum()) for w in batch[1:]],
            "snr_db": [min(999.0, float(metrics.snr_db(batch[:1], w[None]))) for w in batch[1:]],
            "fooled": {
                name: [answer != first for answer in rest]
                for name, (first, *rest) in answers.items()
            },
        }


def cell(
    rows: Sequence[dict[str, Any]], corpus: str, source: Victim, budget: tuple[float, float]
) -> dict[str, Any]:
    """A corpus, source and budget: each method's fooling rates, and the paired differences."""
    rows = [row for row in rows if (row["density"], row["level"]) == budget]
    members = [member.name for member in members_of(source)]
    fooled = {target: outcomes(rows, target, members) for target in rows[0]["fooled"]}
    on_source = np.mean([list(fooled[name].values()) for name in members], axis=0)
    own = dict(zip(fooled[members[0]], on_source, strict=True))
    seconds = {
        method: statistics.median(
            time
            for row in rows
            for name, time in zip(row["attack"], row["seconds"], strict=True)
            if name == method
        )
        for method in own
    }
    speakers = [row["speaker"] for row in rows]
    differences: dict[str, dict[str, Any]] = {}
    for ours in (ONCE, OFTEN):
        if ours in own:
            differences |= compare(own, seconds, speakers, ours)
    return {
        "corpus": corpus,
        "source": source.name,
        "density": budget[0],
        "level_db": budget[1],
        "clips": len(rows),
        "speakers": len(set(speakers)),
        "snr_db": statistics.median(row["snr_db"][0] for row in rows),
        "fooled": {
            target: {method: float(np.mean(hits)) for method, hits in by_method.items()}
            for target, by_method in fooled.items()
        },
        "own": {method: float(np.mean(hits)) for method, hits in own.items()},
        "seconds": seconds,
        "differences": differences,
    }


def outcomes(
    rows: Sequence[dict[str, Any]], target: str, members: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Of each method, whether ``target`` was fooled on each clip, by the better of its alternatives.

    Better is what fools more clips of the source's ``members``, so that no target chooses for itself.
    """

    def hits(name: str, column: int) -> NDArray[np.float64]:
        return np.array([row["fooled"][name][column] for row in rows], dtype=float)

    columns: dict[str, list[int]] = {}
    for number, method in enumerate(rows[0]["attack"]):
        columns.setdefault(method, []).append(number)
    best: Callable[[int], float] = lambda c: sum(float(hits(name, c).mean()) for name in members)  # noqa: E731
    return {method: hits(target, max(options, key=best)) for method, options in columns.items()}


def compare(
    own: Mapping[str, NDArray[np.float64]],
    seconds: Mapping[str, float],
    speakers: Sequence[str],
    ours: str,
) -> dict[str, dict[str, Any]]:
    """``ours`` less the strongest gradient attack of equal time, and less PGD 4 or PGD 20."""
    usable = [method for method in GRADIENT if method in own]
    quick = [m for m in usable if seconds[m] <= EQUAL_TIME * seconds[ours]] or usable[:1]
    equal = max(quick, key=lambda method: float(own[method].mean()))
    against = {"equal time": equal, "more time": "PGD 4" if ours == ONCE else "PGD 20"}
    return {
        f"{ours}, {kind}": {
            "against": method,
            **asdict(paired_difference(own[ours], own[method], speakers)),
        }
        for kind, method in against.items()
        if method in own
    }


def summary(cells: Sequence[Mapping[str, Any]]) -> str:
    """In how many cells ours is not lower, and by five points higher."""
    rows = []
    for key in dict.fromkeys(key for cell in cells for key in cell["differences"]):
        ours = key.partition(",")[0]
        pairs = [
            (c["differences"][key]["value"], c["own"][ours])
            for c in cells
            if key in c["differences"]
        ]
        lower = sum(value < 0 for value, _ in pairs)
        higher = sum(value >= 0.05 or rate >= SATURATED for value, rate in pairs)
        mean = statistics.fmean(value for value, _ in pairs)
        shown = sum(
            Difference(
                **{k: v for k, v in c["differences"][key].items() if k != "against"}
            ).is_shown
            and c["differences"][key]["value"] < 0
            for c in cells
            if key in c["differences"]
        )
        rows.append(
            [key, len(pairs), len(pairs) - lower, higher, shown, f"{100 * mean:+.1f} points"]
        )
    head = [
        "our attack and the comparison",
        "cells",
        "not lower",
        "5 points higher or saturated",
        "lower beyond its interval",
        "mean difference",
    ]
    note = (
        "*more time* compares one pass with PGD of 4 steps and eight passes with PGD of 20 steps. A cell is "
        "one source, level and number of samples."
    )
    return titled("Cells", head, rows, note)


def white_box(cells: Sequence[Mapping[str, Any]]) -> str:
    """Each method on its source, and seconds a clip."""
    rows = []
    for c in cells:
        where = [c["corpus"], c["source"], f"{c['level_db']:g}", percent(c["density"])]
        rates = [
            f"{100 * c['own'][m]:.0f}{_bracket(c, m)}" if m in c["own"] else "" for m in METHODS
        ]
        rows.append([*where, *rates])
    for source in dict.fromkeys(c["source"] for c in cells):
        times = [c["seconds"] for c in cells if c["source"] == source]
        medians = [
            f"{statistics.median(t[m] for t in times):.3f}" if m in times[0] else ""
            for m in METHODS
        ]
        rows.append(["seconds per clip", source, "", "", *medians])
    counts = ", ".join(
        dict.fromkeys(
            f"{c['clips']} clips of {c['speakers']} speakers of {c['corpus']}" for c in cells
        )
    )
    note = f"The attacks use {counts}. The rate of an ensemble is the mean over its members."
    return titled("On the source", ["corpus", "source", "dB", "samples", *METHODS], rows, note)


def _bracket(c: Mapping[str, Any], method: str) -> str:
    difference = c["differences"].get(f"{method}, equal time")
    if difference is None:
        return ""
    low, high = (difference[end] for end in ("low", "high"))
    interval = "" if low is None else f" [{100 * low:+.0f}, {100 * high:+.0f}]"
    return f" ({100 * difference['value']:+.0f}{interval} {difference['against']})"


def transfer(cells: Sequence[Mapping[str, Any]]) -> str:
    """Other victims than the source, at the loudest level."""
    loudest = max(c["level_db"] for c in cells)
    shown = [m for m in (CONTROL, "PGD 20", "MI-FGSM", ONCE, OFTEN) if m in cells[0]["own"]]
    rows = [
        [c["corpus"], c["source"], target, percent(c["density"])]
        + [f"{100 * rates[m]:.0f}" for m in shown]
        for c in cells
        if c["level_db"] == loudest
        for target, rates in c["fooled"].items()
        if target not in c["source"].split(",")
    ]
    head = ["corpus", "source", "target", "samples", *shown]
    return titled("Transfer", head, rows, f"The level is {loudest:g} dB. The control is `random`.")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
