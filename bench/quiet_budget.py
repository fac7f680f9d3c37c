"""``python -m bench quiet_budget emodb:PATH``: does the budget that ``staanet budget`` names hold on test clips?

For each of several splits of a corpus, the largest budget is searched on the dev clips. Then random signs of
that budget are set against the test clips of the same split, whose speakers are others. The figure is the
number of splits in which they change fewer answers than the limit. Finished splits are recorded below
``--out``, so that the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import sections
from bench.attacking import told
from bench.strength import typed
from staanet import pipeline, storage
from staanet.attacks import Random, craft, logits_of
from staanet.config import BudgetRecipe
from staanet.core import Budget, Clip, Corpus, Victim, answers_to, stratified_subset
from staanet.corpora import load_corpus
from staanet.pipeline.quiet_budget import find_budgets
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine
from staanet.victims import load_victim

DRAWS = 3


def main(arguments: list[str]) -> None:
    """Searches and judges what is missing, and writes the section of ``results.md``."""
    options = parser().parse_args(arguments)
    recipe = BudgetRecipe(densities=tuple(options.densities), clips=options.clips)
    journal = storage.Journal(options.out / "splits.jsonl")
    finished = {row["key"]: row for row in journal}
    rows: list[dict[str, Any]] = []
    for spec in options.corpora:
        corpus = load_corpus(spec)
        for victim in map(load_victim, options.victims):
            for seed in range(options.splits):
                key = f"{spec} {victim.sha256} {seed} {recipe}"
                if key not in finished:
                    split = judge_split(corpus, victim, recipe, seed)
                    finished[key] = {"key": key, "split": split}
                    journal.append(finished[key])
                rows += finished[key]["split"]
                told(f"{corpus.name}, {victim.name}", seed + 1, options.splits)
    sections.write("quiet-budget", section(rows, recipe, typed(arguments)))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -m bench quiet_budget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("corpora", nargs="+", metavar="KIND:PATH")
    add("--victims", nargs="+", default=["shipped:emo18", "shipped:zhao19"])
    add("--densities", nargs="+", type=float, default=[0.05, 0.2])
    add("--splits", type=int, default=10)
    add("--clips", type=int, default=100, help="dev clips, and test clips, of each split")
    add("--out", type=Path, default=Path("runs/quiet_budget"))
    return options


def judge_split(
    corpus: Corpus, victim: Victim, recipe: BudgetRecipe, seed: int
) -> list[dict[str, Any]]:
    """For each density the budget that dev clips name, and what random signs of it change on test clips."""
    context = pipeline.Context(seed=seed)
    clips = stratified_subset(
        pipeline.load_clips(context.split(corpus)[2], victim, context), recipe.clips
    )
    rows = []
    for quiet in find_budgets(corpus, victim, recipe, context):
        budget = Budget(epsilon=quiet.epsilon or "-60 dB", max_density=quiet.max_density)
        rows.append(
            {
                "corpus": corpus.name,
                "victim": victim.name,
                "density": quiet.max_density,
                "epsilon": quiet.epsilon,
                "dev": quiet.control,
                "test": control_rate(victim, clips, budget, range(100, 100 + DRAWS)),
                "clips": len(clips),
            }
        )
    return rows


def control_rate(victim: Victim, clips: Sequence[Clip], budget: Budget, seeds: range) -> float:
    """The share of answers that random signs change, over clips and draws."""
    before = torch.from_numpy(logits_of(victim, clips))
    answers, changed = answers_to(victim, before, before), []
    for seed in seeds:
        pairs = craft(Random(budget=budget, seed=seed), victim, clips)
        noisy = [Clip(pair.clean.id, pair.adversarial, pair.clean.sample_rate) for pair in pairs]
        after = answers_to(victim, before, torch.from_numpy(logits_of(victim, noisy)))
        changed += [other != answer for other, answer in zip(after, answers, strict=True)]
    return float(np.mean(changed))


def section(rows: Sequence[dict[str, Any]], recipe: BudgetRecipe, command: str) -> str:
    """The text of the section in ``results.md``."""
    limit = recipe.control_limit
    cells = sorted({(row["corpus"], row["victim"], row["density"]) for row in rows})
    lines = [
        "| corpus | victim | samples | splits | epsilon, dB | control on dev | control on test | largest | below the limit |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for cell in cells:
        group = [r for r in rows if (r["corpus"], r["victim"], r["density"]) == cell]
        levels = [float(row["epsilon"].split()[0]) for row in group if row["epsilon"]]
        tests = [row["test"] for row in group]
        lines.append(
            f"| {cell[0]} | {cell[1]} | {100 * cell[2]:g} % | {len(group)} "
            f"| {min(levels, default=float('nan')):g} to {max(levels, default=float('nan')):g} "
            f"| {100 * statistics.mean(row['dev'] for row in group):.1f} % "
            f"| {100 * statistics.mean(tests):.1f} % | {100 * max(tests):.1f} % "
            f"| {sum(test < limit for test in tests)} of {len(tests)} |"
        )
    about = (
        f"The command `python -m bench quiet_budget {command}` ran at commit `{commit()}` with {describe_machine()}. The table shows "
        f"the largest epsilon at which random signs change fewer than {100 * limit:g} % of the predictions on dev "
        f"clips with 95 % confidence. The other columns show {DRAWS} draws of that budget on test clips of other "
        "speakers. Each split has other speakers. All splits use the same victim, which was trained on some of them."
    )
    return "\n\n".join(["## Budget on test clips", about, "\n".join(lines)])
