"""Assembles facts, tables and charts into one self-contained HTML page.

Autoescape is always on, and every text is made printable on its way out, so that a name is shown and
never obeyed. Only SVG that this package drew, its own tables and its own style sheet are trusted.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from staanet import storage
from staanet.errors import printable
from staanet.report import tables
from staanet.report.budget_doubts import doubt_text
from staanet.report.chart_style import Picture
from staanet.report.clip_view import ClipView, clip_context
from staanet.report.comparison_tables import comparison_table, worst_groups_table
from staanet.report.flags import run_flags
from staanet.report.fold_tables import fold_members_table, fold_table
from staanet.report.headlines import Headline, hardest_hit, is_matched
from staanet.results import formatting
from staanet.results.run_folder import SUMMARY, RunFolder
from staanet.results.stored import StoredModel
from staanet.results.transfer_tables import (
    dimensions_table,
    effects_table,
    trainings_text,
    transfer_table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """All charts of the page."""

    forest: Picture
    heat: Picture
    time: Picture | None
    victims: Picture | None
    generators: Picture | None
    sweeps: Sequence[Picture] = ()


def template_environment() -> Environment:
    """Returns the environment of the page's and the audit's templates."""
    environment = Environment(
        loader=PackageLoader("staanet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalise,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "seconds": formatting.seconds,
        "interval": formatting.interval,
        "non_breaking_units": formatting.non_breaking_units,
    }
    environment.globals |= {
        "rate": formatting.rate,
        "number": formatting.number,
        "quantity": formatting.quantity,
        "markup": Markup,
    }
    return environment


def _finalise(value: object) -> object:
    """Makes text printable: names may hold control and bidirectional characters."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def script_context() -> dict[str, Markup]:
    """Returns the one script of a page, and the hash by which its policy admits it."""
    script = files(__package__).joinpath("templates/amplify.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}


def render_page(
    run: RunFolder,
    leads: Sequence[Headline],
    clips: Sequence[ClipView],
    charts: Charts,
    unverified: int,
) -> str:
    """Returns the page as text; ``unverified`` counts clips without audio in the folder."""
    context = {
        **script_context(),
        "run": run,
        "leads": [_headline_context(run, lead) for lead in leads],
        "flags": run_flags(run, leads, unverified),
        "matrix": transfer_table(run.cells),
        "effects": effects_table(run.cells),
        "folds": [table for table in (fold_table(run), fold_members_table(run)) if table.rows],
        "dimensions": dimensions_table(run.cells),
        "channels": tables.channel_table(run),
        "defences": tables.defence_table(run),
        "sounds": tables.perceptual_table(run),
        "everyday": tables.everyday_tables(run),
        "comparisons": comparison_table(run),
        "worst_groups": [worst_groups_table(run, lead.cell) for lead in leads],
        "hardest_hit": [line for lead in leads if (line := hardest_hit(run, lead))],
        "groups": [
            tables.group_table(run, lead.cell, group)
            for lead in leads
            for group in ("label", "speaker")
        ],
        "clips": [clip_context(run, clip, number) for number, clip in enumerate(clips, start=1)],
        "selfcheck": tables.selfcheck_table(run),
        "charts": charts,
        "victims": tables.victim_table(run),
        "origin": _origin_context(run),
        "unverified": unverified,
        "results_sha256": storage.sha256(run.folder / "results" / SUMMARY),
    }
    return template_environment().get_template("page.html.j2").render(context)


def _headline_context(run: RunFolder, lead: Headline) -> dict[str, Any]:
    cell = lead.cell
    return {
        "cell": cell,
        "control": lead.control,
        "doubt": doubt_text(run, lead),
        "as_many": lead.control is not None and is_matched(run, lead.control, cell),
        "trainings": trainings_text(cell),
        "rival": lead.rival,
        "rival_name": lead.rival.title.split(",")[0] if lead.rival else "",
        "right": formatting.describe_budget(cell.budget),
        "transfer": [c for c in run.cells if c.key == cell.key and c.target != cell.target],
    }


def _origin_context(run: RunFolder) -> dict[str, Any]:
    """How the run was made, and how to repeat it."""
    card, corpus = run.card, run.card.get("corpus") or {}
    cards = [run.card, *(stored.card for stored in run.sets.values())]
    versions = next((c for c in cards if c.get("staanet")), {})
    facts = {
        "recipe": card.get("recipe"),
        "corpus": corpus.get("name"),
        "clips": corpus.get("clips"),
        "speakers": _length(corpus.get("speakers")),
        "commit": card.get("commit"),
        "machine": card.get("machine") or run.machine,
        **{name: versions.get(name) for name in ("staanet", "python", "torch", "numpy")},
    }
    return {
        "command": str(card.get("command") or ""),
        "facts": {key: str(value) for key, value in facts.items() if value not in (None, "")},
        "notes": [str(note) for note in corpus.get("notes") or ()],
        "attacks": tables.attack_table(list(run.sets.values())),
        "split": tables.split_table(run),
        "stages": tables.time_table(run),
        "recipe": run.recipe.expandtabs(4).splitlines(),
        "generators": [_generator_text(model) for model in run.generators],
    }


def _generator_text(model: StoredModel) -> str:
    keys = ("network", "source", "epsilon", "max_density")
    parts = [f"{key.replace('_', ' ')} {model.card[key]}" for key in keys if key in model.card]
    if isinstance(size := model.card.get("parameters"), int):
        parts.append(formatting.quantity(size, "parameter"))
    return ", ".join(parts) or model.name


def _length(value: object) -> object:
    return len(value) if isinstance(value, list | tuple) else value
