"""``audit``: how robust is this model, to whom, at which budget, and what helps? Stage by stage.

A model that only answers is attacked by transfer: the attacker trains models of its own on the same
corpus, crafts on them, and the files are judged by the model under audit. On a few clips it also asks
the model itself. A model with gradients is attacked through them besides. Every stage is a folder that
is skipped once it is done, so that a killed audit goes on where it was.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.config import AttackRecipe, AuditRecipe, GeneratorRecipe, VictimRecipe
from staanet.core import NO_CHANNEL, Clip, Corpus, Victim, stratified_subset
from staanet.defences import Defended
from staanet.errors import InvalidInput, unknown_name
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import plan_attack
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.evaluate import evaluate
from staanet.pipeline.folders import is_done, normal
from staanet.pipeline.run_recipe import Timed
from staanet.pipeline.train import train_generator, train_victim
from staanet.storage import describe_machine
from staanet.transforms import Transform, parse_transform
from staanet.victims import VICTIMS, load_victim

TRANSFERRED = {"staa": "staa", "pgd-sparse": "pgd", "mi-fgsm": "mi_fgsm", "random": "random"}
"""What is crafted on each source, by the name that folders get; ``random`` is the control."""
SCHEMA = 1
ATTEMPTS = 3
"""How many of the strongest sets each defence meets unchanged."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model that attacks are crafted on; ``white_box`` where it is the audited one itself."""

    victim: Victim
    white_box: bool = False


def audit(
    victim: Victim,
    corpus: Corpus,
    out: Path,
    *,
    recipe: AuditRecipe,
    sources: Sequence[str] = (),
    fail_above: float | None = None,
    command: str = "",
    context: Context,
) -> dict[str, Any]:
    """Audit ``victim`` on the corpus's test part; what was found, as in ``audit.json``.

    ``sources`` name trained models that stand for the attacker's own; absent: they are trained on the
    train part, whose speakers the test part has not. ``fail_above`` decides ``passed``. Writes
    ``audit.json``, ``audit.md`` and ``audit.html`` besides the folders of the stages. Raises
    ``InvalidInput`` where a setting is wrong, before anything is trained, or where ``out`` holds
    another audit.
    """
    chains = _checked(recipe, fail_above)
    sha256 = victim.sha256
    test = context.split(corpus)[2]
    given = [_given(spec, victim, context) for spec in sources]
    names = [source.victim.name for source in given]
    if len({*names}) < len(names):
        raise InvalidInput(
            f"two sources are called {max(names, key=names.count)}",
            remedy="Give each source once, under a name of its own",
        )
    _claim(
        out,
        {
            "victim": sha256,
            **context.split_inputs(corpus),
            "recipe": asdict(recipe),
            "sources": [s.victim.sha256 for s in given],
        },
    )
    journal = Timed(storage.Journal(out / "journal.jsonl"))
    room = _Room(out, corpus, recipe, context, journal)
    made_from = given or [room.surrogate(name, victim) for name in recipe.surrogates]
    if victim.differentiable:
        made_from = [*made_from, Source(victim, white_box=True)]
    usable = load_clips(test, victim, context)
    clips = stratified_subset(usable, recipe.clips)
    if not clips:
        raise InvalidInput("no test clip can be used", where=corpus.name, remedy="Give more clips")
    sets = [place for source in made_from for place in room.crafted(source, clips, len(usable))]
    asked = room.asked(victim, stratified_subset(clips, recipe.query_clips), len(usable))
    summary = room.judged(sets + asked, [victim], out / "results", sha256, channels=recipe.channels)
    strongest = _strongest(summary["cells"], sets)
    defended = [
        room.defended(text, Defended(victim, [chain]), made_from, strongest, clips, sha256)
        for text, chain in chains.items()
    ]
    told = {
        "schema": SCHEMA,
        "victim": {
            "name": victim.name,
            "spec": victim.origin,
            "sha256": sha256,
            "labels": list(victim.labels),
            "gradients": victim.differentiable,
        },
        "corpus": {
            "name": corpus.name,
            "clips": len(clips),
            "of": len(usable),
            "speakers": len({clip.speaker for clip in clips}),
            "split_hash": test.split_hash,
        },
        "sources": [{"name": s.victim.name, "white_box": s.white_box} for s in made_from],
        "recipe": asdict(recipe),
        "seed": context.seed,
        "fail_above": fail_above,
        "seconds": journal.seconds(),
        "machine": describe_machine(),
        "quarantined": context.quarantine.rows,
        "flags": [*summary["flags"], *_unsure(given, test.split_hash)],
        **_found(summary["cells"], defended, recipe),
    }
    context.quarantine.save(out)
    return _written(normal(told), out, command)


def _checked(recipe: AuditRecipe, fail_above: float | None) -> dict[str, Transform]:
    """What each defence's text means; ``InvalidInput`` where anything is mistyped."""
    for name in recipe.channels:
        parse_transform(name)
    for name in recipe.surrogates:
        if name not in VICTIMS:
            raise unknown_name("surrogate", name, VICTIMS)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InvalidInput(f"--fail-above is {fail_above}", remedy="Give a share in [0, 1]")
    return {text: parse_transform(text) for text in recipe.defences}


def _written(told: dict[str, Any], out: Path, command: str) -> dict[str, Any]:
    """With the verdict, as JSON, Markdown and HTML."""
    told |= _verdict(told, out, command)
    storage.write_json(out / "audit.json", told)
    report.write_audit(out, told)
    return told


def _given(spec: str, victim: Victim, context: Context) -> Source:
    source = load_victim(spec).to(context.device)
    if not source.differentiable:
        raise InvalidInput(
            f"{source.name} gives no gradients: nothing can be crafted on it",
            where=spec,
            remedy="Give a victim folder, or leave --source out and surrogates are trained",
        )
    if source.sample_rate != victim.sample_rate:
        raise InvalidInput(
            f"{source.name} hears {source.sample_rate} Hz, {victim.name} {victim.sample_rate} Hz",
            where=spec,
            remedy="Give a source of the same rate",
        )
    if source.name == victim.name:  # a cell would take one for the other
        source.name = f"source-{source.name}"
    return Source(source)


def _unsure(sources: Sequence[Source], split_hash: str) -> Iterator[str]:
    """Given sources of which it is not known that they have not met a test speaker."""
    for source in sources:
        place = Path(source.victim.origin) / storage.CARD
        card = storage.read_card(Path(source.victim.origin), "victim") if place.is_file() else {}
        if (card.get("inputs") or {}).get("split") != split_hash:
            yield (
                f"{source.victim.name} was not trained on this split: it may have heard the test "
                "speakers, which flatters the attacks crafted on it"
            )


def _claim(out: Path, inputs: Mapping[str, Any]) -> None:
    """Write what this audit is of, or see that the folder's is the same one."""
    wanted, plan = normal(inputs), out / "plan.json"
    if plan.exists():
        held = storage.read_json(plan)
        differing = sorted(k for k in wanted if held.get(k) != wanted[k])
        if differing:
            raise InvalidInput(
                f"holds an audit that differs in {', '.join(differing[:3])}",
                where=out,
                remedy="Choose another --out, or delete that folder",
            )
    storage.write_json(plan, wanted)


@dataclass(frozen=True)
class _Room:
    """The stages of one audit, each into its own folder below ``out``."""

    out: Path
    corpus: Corpus
    recipe: AuditRecipe
    context: Context
    journal: Timed

    def surrogate(self, network: str, victim: Victim) -> Source:
        """A model of the attacker's own, trained on the corpus's labels."""
        if victim.sample_rate != 16_000:
            raise InvalidInput(
                f"{victim.name} hears {victim.sample_rate} Hz; surrogates are trained at 16000 Hz",
                remedy="Pass --source with models of its rate",
            )
        name = f"surrogate-{network}"
        folder = self.out / "surrogates" / name
        steps = self.recipe.surrogate_steps
        recipe = VictimRecipe(
            network=network,
            steps=steps,
            seconds=self.recipe.seconds,
            speed=0.2,
            batch_size=2 * self.recipe.batch_size,
            evaluate_every=max(1, min(50, steps // 4)),
        )
        made = self.journal(
            f"train {name}",
            partial(
                train_victim,
                self.corpus,
                name,
                folder,
                recipe=recipe,
                context=replace(
                    self.context, seed=self.context.seed + 1, protocol=self._same_split()
                ),
            ),
        )
        return Source(made)

    def _same_split(self) -> str:
        """The audit's own split whatever the surrogate's seed: it must not have met a test speaker."""
        parts = self.context.split(self.corpus)
        return f"speakers:{','.join(parts[2].speakers)}/{','.join(parts[1].speakers)}"

    def crafted(self, source: Source, clips: Sequence[Clip], of: int) -> list[Path]:
        """Every attack at every budget from one source, as adversarial sets."""
        generator = self._generator(source)
        made = []
        for name, epsilon, density in self._points():
            key = f"{name}-e{epsilon:g}-d{density:g}"
            plan = plan_attack(
                key,
                AttackRecipe(
                    attack=TRANSFERRED[name],
                    epsilon=epsilon,
                    max_density=density,
                    title=f"{name}, epsilon {epsilon:g}, {100 * density:g} % of samples",
                ),
                source.victim,
                generator=generator,
                context=self.context,
            )
            made.append(self._attack(replace(plan, of=of), clips, f"{key}__{source.victim.name}"))
        return made

    def _points(self) -> Iterator[tuple[str, float, float]]:
        for name in TRANSFERRED:
            for epsilon in self.recipe.epsilons:
                for density in self.recipe.densities:
                    yield name, epsilon, density

    def _generator(self, source: Source) -> Path:
        steps = self.recipe.generator_steps
        folder = self.out / "generators" / source.victim.name
        recipe = GeneratorRecipe(
            sources=(),
            epsilon=max(self.recipe.epsilons),
            max_density=max(self.recipe.densities),
            steps=steps,
            batch_size=self.recipe.batch_size,
            seconds=self.recipe.seconds,
            evaluate_every=max(1, min(100, steps // 2)),
        )
        self.journal(
            f"train generator on {source.victim.name}",
            partial(
                train_generator,
                self.corpus,
                source.victim,
                folder,
                recipe=recipe,
                context=self.context,
            ),
        )
        return folder

    def asked(self, victim: Victim, clips: Sequence[Clip], of: int) -> list[Path]:
        """A few clips attacked by asking the audited model alone, at the largest budget."""
        if not clips:
            return []
        epsilon, density = max(self.recipe.epsilons), max(self.recipe.densities)
        key = f"sparse-rs-e{epsilon:g}-d{density:g}"
        recipe = AttackRecipe(
            attack="sparse_rs",
            epsilon=epsilon,
            max_density=density,
            settings={"steps": self.recipe.queries},
            title=f"sparse-rs, {self.recipe.queries} queries, epsilon {epsilon:g}, "
            f"{100 * density:g} % of samples",
        )
        plan = plan_attack(key, recipe, victim, context=self.context)
        return [self._attack(replace(plan, of=of), clips, f"{key}__{victim.name}")]

    def _attack(self, plan: Any, clips: Sequence[Clip], folder: str) -> Path:
        target = self.out / "adversarial" / folder
        self.journal(f"attack {folder}", partial(attack, plan, clips, target, context=self.context))
        return target

    def judged(
        self,
        sets: Sequence[Path],
        targets: Sequence[Victim],
        folder: Path,
        sha256: str | None,
        *,
        channels: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The matrix of these sets; computed once, for the same sets and targets."""
        inputs = {
            "sets": {one.name: storage.sha256(one / "metadata.csv") for one in sets},
            "targets": [target.name for target in targets],
            "victim": sha256,
            "channels": list(channels),
        }
        if not is_done(folder, "evaluation", inputs):
            work: Callable[[], Any] = partial(
                evaluate, sets, targets, folder, channels=channels, context=self.context
            )
            self.journal(f"evaluate {folder.name}", work)
            storage.write_card(folder, {"kind": "evaluation", "inputs": normal(inputs)})
        found: dict[str, Any] = storage.read_json(folder / "summary.json")
        return found

    def defended(
        self,
        text: str,
        target: Defended,
        sources: Sequence[Source],
        strongest: Sequence[tuple[Path, str]],
        clips: Sequence[Clip],
        sha256: str | None,
    ) -> dict[str, Any]:
        """A defence against the strongest sets as they are, and against PGD that knows it."""
        place = text.replace(":", "-").replace(",", "-")
        static = self.judged(
            [one for one, _ in strongest], [target], self.out / "defended" / place, sha256
        )["cells"]
        by_name = {source.victim.name: source for source in sources}
        best = by_name[strongest[0][1]]
        known = Defended(best.victim, target.chain)
        epsilon, density = max(self.recipe.epsilons), max(self.recipe.densities)
        recipe = AttackRecipe(
            attack="pgd",
            epsilon=epsilon,
            max_density=density,
            title=f"PGD that knows {text}, epsilon {epsilon:g}, {100 * density:g} % of samples",
        )
        plan = plan_attack(f"knowing-{place}", recipe, known, context=self.context)
        fewer = stratified_subset(clips, self.recipe.defended_clips)
        made = self._attack(
            replace(plan, of=len(clips)), fewer, f"knowing-{place}__{best.victim.name}"
        )
        adaptive = self.judged([made], [target], self.out / "defended" / f"{place}-known", sha256)[
            "cells"
        ]
        worst = max(static, key=_value)
        return {
            "defence": text,
            "static": _row(worst),
            "adaptive": _row(adaptive[0]),
            "uar": worst["uar_before"]["value"],
            "exact_gradient": target.exact_gradient,
            "crafted_on": best.victim.name,
        }


# ---------------------------------------------------------------- what was found


def _value(cell: Mapping[str, Any]) -> float:
    value = cell["fooling_rate"]["value"]
    return -1.0 if value is None else float(value)


def _row(cell: Mapping[str, Any]) -> dict[str, Any]:
    rate = cell["fooling_rate"]
    return {
        "attack": cell["attack"],
        "title": cell["title"],
        "source": cell["source"],
        "channel": cell["channel"],
        "control": cell["control"],
        "white_box": cell["white_box"],
        "epsilon": cell["budget"].get("epsilon"),
        "max_density": cell["budget"].get("max_density"),
        "fooling_rate": rate["value"],
        "low": rate["low"],
        "high": rate["high"],
        "count": rate["count"],
        "snr_db": cell["mean"]["snr_db"],
        "queries": cell["queries_mean"],
    }


def _strongest(cells: Sequence[Mapping[str, Any]], sets: Sequence[Path]) -> list[tuple[Path, str]]:
    """The sets that fool most often, controls apart, each with its source's name."""
    order = sorted(
        (c for c in cells if c["channel"] == NO_CHANNEL and not c["control"]),
        key=_value,
        reverse=True,
    )
    place = {one.name: one for one in sets}
    found = [(f"{c['attack']}__{c['source']}", c["source"]) for c in order]
    return [(place[name], source) for name, source in found if name in place][:ATTEMPTS]


def _found(
    cells: Sequence[Mapping[str, Any]], defended: Sequence[Mapping[str, Any]], recipe: AuditRecipe
) -> dict[str, Any]:
    plain = [c for c in cells if c["channel"] == NO_CHANNEL]
    asked = [c for c in plain if c["algorithm"] == "sparsers"]
    rest = [c for c in plain if c not in asked]
    attackers = {
        "noise": [c for c in rest if c["control"]],
        "transfer": [c for c in rest if not c["control"] and not c["white_box"]],
        "queries": asked,
        "white_box": [c for c in rest if not c["control"] and c["white_box"]],
    }
    budgets = [
        {
            "epsilon": e,
            "max_density": d,
            "noise": _best(attackers["noise"], e, d),
            "worst": _best([c for c in rest if not c["control"]], e, d),
        }
        for e in recipe.epsilons
        for d in recipe.densities
    ]
    worst = max(plain, key=_value)
    channels = [
        {"channel": name, **_row(max(own, key=_value))}
        for name in recipe.channels
        for own in [[c for c in cells if c["channel"] == name and not c["control"]]]
    ]
    return {
        "uar": plain[0]["uar_before"],
        "accuracy": plain[0]["accuracy_before"],
        "worst": _row(worst),
        "attackers": {who: _row(max(own, key=_value)) for who, own in attackers.items() if own},
        "budgets": budgets,
        "channels": channels,
        "defences": list(defended),
        "cells": [_row(cell) for cell in cells],
    }


def _best(
    cells: Sequence[Mapping[str, Any]], epsilon: float, density: float
) -> dict[str, Any] | None:
    own = [
        c
        for c in cells
        if (c["budget"]["epsilon"], c["budget"]["max_density"]) == (epsilon, density)
    ]
    return _row(max(own, key=_value)) if own else None


def _verdict(told: Mapping[str, Any], out: Path, command: str) -> dict[str, Any]:
    """Whether it passed, why in plain words, and the commands that show it again."""
    worst, limit = told["worst"], told["fail_above"]
    passed = None if limit is None else worst["fooling_rate"] <= limit
    words = list(report.audit_verdict(told))
    spec = told["victim"]["spec"]
    shown = f"{worst['attack']}__{worst['source']}"
    commands = [
        *([command] if command else []),
        shlex.join(
            [
                "staanet",
                "evaluate",
                str(out / "adversarial" / shown),
                "--target",
                spec,
                *(w for c in told["recipe"]["channels"] for w in ("--channel", c)),
                "--out",
                "check",
            ]
        ),
    ]
    return {"passed": passed, "verdict": words, "commands": commands}
