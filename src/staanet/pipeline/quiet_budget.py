"""Searches the largest budget at which random signs change few answers, on development clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from staanet import storage
from staanet.config import BudgetRecipe
from staanet.core import Corpus, Victim, stratified_subset
from staanet.errors import InvalidInput
from staanet.evaluation.quiet_budget import QuietBudget, largest_quiet_budget
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.stage import Stage
from staanet.pipeline.victim_check import check_victims
from staanet.report.budget_doubts import BUDGETS, budget_doubts
from staanet.report.headlines import headlines
from staanet.results.run_folder import RunFolder

NAMED_CLIPS = 40
"""Dev clips on which a finished run looks for a better budget."""


def find_budgets(
    corpus: Corpus, victim: Victim, recipe: BudgetRecipe, context: Context
) -> list[QuietBudget]:
    """Returns the largest budget for each density, searched on the corpus's development clips.

    Raises ``InvalidInput`` where none of them is usable, or the victim cannot be judged.
    """
    _, dev, _ = context.split(corpus)
    dev = replace(dev, utterances=stratified_subset(dev.utterances, recipe.clips))
    clips = load_clips(dev, victim, context)
    if not clips:
        raise InvalidInput(
            "no development clip is usable", where=corpus.name, remedy="Look at: staanet corpus"
        )
    check_victims([victim], clips, context)
    return [
        largest_quiet_budget(
            victim,
            clips,
            density,
            limit=recipe.control_limit,
            draws=recipe.control_draws,
            seed=context.seed,
            progress=context.progress,
        )
        for density in recipe.densities
    ]


def name_budgets(
    out: Path, corpus: Callable[[], Corpus], victim: Callable[[str], Victim], context: Context
) -> None:
    """Writes, for each target whose headline tells nothing of its attack, the budget that would.

    Where every headline tells something, the file holds no target.
    """
    run, budgets = RunFolder.read(out), {}
    for lead in headlines(run):
        cell = lead.cell
        density = (cell.budget and cell.budget.max_density) or cell.mean.density
        if budget_doubts(run, lead) and density:
            recipe = BudgetRecipe(densities=(density,), clips=NAMED_CLIPS)
            quiet = find_budgets(corpus(), victim(cell.target), recipe, context)
            budgets[cell.target] = [asdict(budget) for budget in quiet]
    storage.write_json(out / BUDGETS, budgets)


def naming_stage(
    out: Path, corpus: Callable[[], Corpus], victim: Callable[[str], Victim], context: Context
) -> Stage:
    """``name_budgets`` as a stage before the report."""
    return Stage(
        name="budget",
        folder=out,
        kind="run",
        inputs=None,
        work=lambda _: name_budgets(out, corpus, victim, context),
        marker=BUDGETS,
        size=lambda: "searched where noise fools half as many as the attack, or is loud",
    )
