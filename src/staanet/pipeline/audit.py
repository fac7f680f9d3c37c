"""Audits a model: runs attacks, transfer, sweep and defences, and writes the verdict.

A model that only answers is attacked by transfer: the attacker trains models of its own on the same
corpus and crafts on them, and the audited model judges the files. A few clips are also attacked by
queries to the model itself. A model with gradients is attacked through them besides. Every stage is a
folder that is skipped once it is done, so that a killed audit goes on where it was.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from staanet import corpora, report, storage
from staanet.config import AuditLimits, AuditRecipe
from staanet.core import Corpus, Victim
from staanet.errors import InvalidInput, unknown_name
from staanet.evaluation.comparisons import describe_groups
from staanet.pipeline.audit_findings import describe_findings
from staanet.pipeline.audit_stages import Audit, Source
from staanet.pipeline.clips import has_met, split_warnings
from staanet.pipeline.context import Context
from staanet.pipeline.stage import StageTimer, folder_state, mark_begun, normal, walk
from staanet.report.audit_verdict import audit_outcome, audit_verdict
from staanet.results import row_files
from staanet.storage import describe_machine
from staanet.transforms import Transform, parse_transform
from staanet.victims import VICTIMS, load_victim

SCHEMA = 1
NO_LIMITS = AuditLimits()


def audit(
    victim: Victim,
    corpus: Corpus,
    out: Path,
    *,
    recipe: AuditRecipe,
    sources: Sequence[str] = (),
    limits: AuditLimits = NO_LIMITS,
    command: str = "",
    context: Context,
) -> dict[str, Any]:
    """Audits a model on the test part of a corpus.

    Args:
        victim: The model.
        corpus: Labelled speech. Its train part trains the attacker's own models.
        out: Receives ``audit.json``, ``audit.md`` and ``audit.html`` besides the folders of the stages.
        recipe: Budgets, attacks and defences.
        sources: Names of trained models that stand for the attacker's own.
        limits: With which the model passes.
        command: What was typed, for the report.
        context: The shared settings of the command.

    Returns:
        The content of ``audit.json``.

    Raises:
        InvalidInput: If a setting is wrong, before anything is trained, or if ``out`` holds another
            audit.
    """
    check_audit(recipe, limits)
    loaded = [load_source(name, victim, context) for name in sources]
    names = [source.victim.name for source in loaded]
    if len({*names}) < len(names):
        raise InvalidInput(
            f"two sources are called {max(names, key=names.count)}",
            remedy="Give each source once, under a name of its own",
        )
    inputs = {
        "victim": victim.identity,
        **context.split_inputs(corpus),
        "recipe": asdict(recipe),
        "sources": [source.victim.identity for source in loaded],
    }
    if folder_state(out, "audit", inputs) == "to do":
        mark_begun(out, inputs)
    timer = StageTimer.of(out)
    whole = Audit(victim, corpus, out, recipe, context, loaded)
    walk(whole.stages(), timer)
    facts = _facts(whole, loaded, limits, command, timer)
    context.quarantine.save(out)
    storage.write_json(out / "audit.json", facts)
    report.write_audit(out, facts, context.progress)
    storage.write_card(out, {"kind": "audit", "inputs": normal(inputs)})
    storage.remove(out / storage.UNFINISHED)
    return facts


def _facts(
    whole: Audit, loaded: Sequence[Source], limits: AuditLimits, command: str, timer: StageTimer
) -> dict[str, Any]:
    """The content of ``audit.json``."""
    victim, corpus, context = whole.victim, whole.corpus, whole.context
    held_out = context.split(corpus)[2]
    flags = [
        *whole.summary["flags"],
        *corpora.small_test_warning(context.split(corpus)),
        *split_warnings([victim.origin], held_out),
        *split_warnings([s.victim.origin for s in loaded], held_out, is_origin_needed=True),
    ]
    flags += [flag for flag in context.quarantine.flags if flag not in flags]
    facts = normal(
        {
            "schema": SCHEMA,
            "victim": {
                "name": victim.name,
                "spec": victim.origin,
                "sha256": victim.sha256,
                "labels": list(victim.labels),
                **({"tolerance": list(victim.tolerance)} if victim.tolerance else {}),
                "gradients": victim.differentiable,
                "has_met_test_speakers": has_met(victim.origin, held_out)
                if victim.origin
                else None,
                "flags": whole.doubts,
            },
            "corpus": {
                "name": corpus.name,
                "classes": corpus.classes,
                "clips": len(whole.clips),
                "of": len(whole.usable),
                "speakers": len({clip.speaker for clip in whole.clips}),
                "split_hash": held_out.split_hash,
            },
            "sources": [{"name": s.victim.name, "white_box": s.white_box} for s in whole.sources],
            "recipe": asdict(whole.recipe),
            "seed": context.seed,
            **asdict(limits),
            "everyday": whole.everyday,
            "seconds": timer.seconds(),
            "machine": describe_machine(),
            "quarantined": context.quarantine.rows,
            **context.quarantine.recordings.entry(),
            "flags": flags,
            **describe_findings(whole.summary["cells"], whole.defences, whole.recipe),
        }
    )
    facts["groups"] = _groups(facts["worst"], whole)
    return facts | _verdict(facts, whole.out, command)


def _groups(worst: Mapping[str, Any], whole: Audit) -> list[dict[str, Any]]:
    """How often the worst attack fools the clips of each class, speaker, sex and level."""
    key = {name: worst[name] for name in ("attack", "source", "channel")}
    rows = row_files.read_parquet(whole.out / "results" / "results.parquet")
    return describe_groups([row for row in rows if all(row[k] == v for k, v in key.items())])


def check_audit(recipe: AuditRecipe, limits: AuditLimits) -> list[Transform]:
    """The defences of a recipe. Raises ``InvalidInput`` if anything in it is mistyped."""
    for name in recipe.channels:
        parse_transform(name)
    for name in recipe.surrogates:
        if name not in VICTIMS:
            raise unknown_name("surrogate", name, VICTIMS)
    if limits.fail_below_everyday is not None and not recipe.everyday:
        raise InvalidInput(
            "a limit of everyday change is set, and everyday change is left out",
            remedy="Drop --fail-below-everyday or --no-everyday",
        )
    return [parse_transform(text) for text in recipe.defences]


def load_source(name: str, victim: Victim, context: Context) -> Source:
    """Loads a model that stands for the attacker's own.

    Raises ``InvalidInput`` if it gives no gradients, or expects another rate than the audited model.
    """
    source = load_victim(name).to(context.device)
    if not source.differentiable:
        raise InvalidInput(
            f"{source.name} gives no gradients: nothing can be crafted on it",
            where=name,
            remedy="Give a victim folder, or leave --source out and surrogates are trained",
        )
    if source.sample_rate != victim.sample_rate:
        raise InvalidInput(
            f"{source.name} expects {source.sample_rate} Hz, {victim.name} {victim.sample_rate} Hz",
            where=name,
            remedy="Give a source of the same rate",
        )
    if source.name == victim.name:  # a cell would take one for the other
        source.name = f"source-{source.name}"
    return Source(source)


def _verdict(facts: Mapping[str, Any], out: Path, command: str) -> dict[str, Any]:
    """Whether the model passed, why in plain words, and the commands that show it again."""
    worst, outcome = facts["worst"], audit_outcome(facts)
    channels = [word for name in facts["recipe"]["channels"] for word in ("--channel", name)]
    adversarial = str(out / "adversarial" / f"{worst['attack']}__{worst['source']}")
    target = facts["victim"]["spec"]
    again = ["staanet", "evaluate", adversarial, "--target", target, *channels, "--out", "check"]
    return {
        "outcome": outcome,
        "passed": {"passed": True, "failed": False}.get(outcome or ""),
        "verdict": audit_verdict(facts),
        "commands": [*([command] if command else []), shlex.join(again)],
    }
