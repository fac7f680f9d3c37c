"""Runs a recipe from corpus to report, as a list of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from staanet import audio, report, storage
from staanet.config import Recipe
from staanet.core import Clip, Corpus, Victim, stratified_subset
from staanet.pipeline.attack import Attacking
from staanet.pipeline.attack_plan import AttackPlan, plan_attack
from staanet.pipeline.clips import load_clips, split_part
from staanet.pipeline.context import Context
from staanet.pipeline.corpus_content import CorpusContent
from staanet.pipeline.defend import Defending
from staanet.pipeline.evaluate import evaluate, sexes_of
from staanet.pipeline.everyday_change import EverydayChange
from staanet.pipeline.quiet_budget import naming_stage
from staanet.pipeline.recipe_plan import (
    attacks_by_source,
    clip_limit,
    defended_victims,
    is_attack,
    is_swept,
    needs_generator,
)
from staanet.pipeline.stage import Inputs, NotReady, Stage, require_same_inputs
from staanet.pipeline.sweep import Sweeping, SweepPlan, sweep_points
from staanet.pipeline.train_generator import GeneratorTraining, describe_draw
from staanet.pipeline.train_uap import VectorTraining, vector_recipe
from staanet.pipeline.train_victim import VictimTraining
from staanet.pipeline.trainings import evaluate_trainings
from staanet.results.transfer_matrix import TransferMatrix
from staanet.sanity import selfcheck
from staanet.victims import Ensemble, load_victim, members_of

CLOSING = ("selfcheck", "budget", "report")
"""Stages after the card of the run. It does not name them, so that it stays the same in a second call."""


@dataclass(frozen=True)
class Experiment:
    """A recipe in a folder: the stages of its run, which are also those of its dry run."""

    recipe: Recipe
    out: Path
    context: Context
    read_corpus: Callable[[], Corpus]
    """Raises ``NotReady`` if the corpus is not there and may not be made."""
    _victims: dict[str, Victim] = field(default_factory=dict)
    _clips: dict[str, list[Clip]] = field(default_factory=dict)
    """The test clips of one source: those of another would take as much memory again."""

    @cached_property
    def corpus(self) -> Corpus:
        return self.read_corpus()

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """The keys of the attacks on each source."""
        return attacks_by_source(self.recipe)

    @property
    def victim_names(self) -> list[str]:
        return [*self.recipe.victims, *defended_victims(self.recipe)]

    def victim(self, name: str) -> Victim:
        """A trained victim of the run. Raises ``NotReady`` before it is there."""
        if name not in self._victims:
            folder = require_finished(self.out / "victims" / name)
            self._victims[name] = load_victim(folder).to(self.context.device)
        return self._victims[name]

    def source(self, name: str) -> Victim:
        """A victim of the run, or the ensemble of those whose names have commas between them."""
        members = [self.victim(member) for member in name.split(",")]
        return members[0] if len(members) == 1 else Ensemble(members)

    @cached_property
    def held_out(self) -> Corpus:
        return self.context.split(self.corpus)[2]

    def test_clips(self, source: str) -> list[Clip]:
        """The clips of the test part at the rate of a source, brought to the recipe's length."""
        if source not in self._clips:
            self._clips.clear()
            clips = load_clips(self.held_out, self.source(source), self.context)
            self._clips[source] = _with_length(clips, self.recipe.clip_seconds)
        return self._clips[source]

    def stages(self) -> Iterator[Stage]:
        """All stages up to the evaluation, in their order."""
        yield Stage(
            name="corpus",
            folder=self.out,
            kind="corpus",
            inputs=None,
            work=lambda _: self._note_corpus(),
        )
        yield from self._victim_stages()
        yield from self._everyday_stages()
        for source, keys in self.sources.items():
            yield from self._source_stages(source, keys)
        yield self._evaluation()

    def closing_stages(self) -> list[Stage]:
        """The stages after the card of the run."""
        checks = Stage(
            name="selfcheck",
            folder=self.out,
            kind="run",
            inputs=None,
            work=self._selfcheck,
            marker="selfcheck.json",
            size=lambda: "victims, files, split and figures",
        )
        page = Stage(
            name="report",
            folder=self.out,
            kind="run",
            inputs=None,
            work=lambda _: report.build(self.out, progress=self.context.progress),
            marker="report/index.html",
            size=lambda: "tables, figures and one page; always done anew",
        )
        budget = naming_stage(self.out, lambda: self.corpus, self.victim, self.context)
        return [*([checks] if self.recipe.selfcheck else []), budget, page]

    def _note_corpus(self) -> None:
        """Writes the table of all clips once for the run; raises ``InvalidInput`` if it has another."""
        content = CorpusContent.of(self.context.split(self.corpus))
        for listing in self.out.glob("corpus-*.csv"):
            if listing.name != content.listing:
                require_same_inputs({}, {"content": content}, self.out)
        content.save(self.out)

    def _victim_stages(self) -> Iterator[Stage]:
        folder = self.out / "victims"
        for name, recipe in self.recipe.victims.items():
            yield VictimTraining(
                lambda: self.corpus, name, folder / name, recipe, self.context
            ).stage()
        for name, (inner, defence) in defended_victims(self.recipe).items():
            yield Defending(
                partial(self.victim, inner),
                defence.chain,
                folder / name,
                self.context,
                lambda: self.corpus,
                name,
            ).stage()

    def _source_stages(self, source: str, keys: list[str]) -> Iterator[Stage]:
        recipe, attacks = self.recipe, self.recipe.attacks
        load_source = partial(self.source, source)
        read_clips = partial(self.test_clips, source)
        if needs_generator(recipe, source, keys):
            for draw in range(recipe.seeds):
                yield GeneratorTraining(
                    lambda: self.corpus,
                    load_source,
                    source,
                    training_folder(self.out, draw) / "generators" / source,
                    recipe.generator,
                    self.context,
                    draw,
                ).stage()
        for key in keys:
            if is_attack(recipe, key, "uap"):
                yield VectorTraining(
                    lambda: self.corpus,
                    load_source,
                    f"train-uap {key} on {source}",
                    self.out / "vectors" / f"{key}__{source}",
                    vector_recipe(key, attacks),
                    self.context,
                ).stage()
            for draw in range(self._trainings(key)):
                yield self._attack(source, key, read_clips, draw)
        if is_swept(recipe, source):
            yield self._sweep(source, read_clips)

    def _everyday_stages(self) -> Iterator[Stage]:
        for name in self.victim_names if self.recipe.everyday else ():
            folder = self.out / "everyday" / name
            victim, clips = partial(self.victim, name), partial(self.test_clips, name)
            yield EverydayChange(name, victim, clips, folder, self.context).stage()

    def _trainings(self, key: str) -> int:
        """How many generators make the sets of an attack; 1 if it has none."""
        return self.recipe.seeds if is_attack(self.recipe, key, "staa") else 1

    def _attack(
        self, source: str, key: str, read_clips: Callable[[], list[Clip]], draw: int
    ) -> Stage:
        limit = clip_limit(key, self.recipe.attacks)

        def subset() -> list[Clip]:
            clips = read_clips()
            return clips if limit is None else stratified_subset(clips, limit)

        def make_plan() -> AttackPlan:
            plan = self._plan(source, key, draw)
            attacked, usable = len(subset()), len(read_clips())
            return replace(plan, of=usable if attacked < usable else None)

        return Attacking(
            f"attack {key} from {source}{describe_draw(draw)}",
            make_plan,
            subset,
            self._set_folder(source, key, draw),
            self.context,
            lambda: f"{self._count(limit)} clips",
        ).stage()

    def _set_folder(self, source: str, key: str, draw: int = 0) -> Path:
        return training_folder(self.out, draw) / "adversarial" / f"{key}__{source}"

    def _plan(self, source: str, key: str, draw: int) -> AttackPlan:
        recipe = self.recipe.attacks[key]
        plan = plan_attack(
            key,
            recipe,
            self.source(source),
            generator=self._generator(source, draw)
            if is_attack(self.recipe, key, "staa")
            else None,
            vector=self._vector(source, key) if is_attack(self.recipe, key, "uap") else None,
            matched=require_finished(self._set_folder(source, recipe.match))
            if recipe.match
            else None,
            context=self.context,
        )
        return replace(plan, drawn_from=split_part(self.held_out))

    def _generator(self, source: str, draw: int = 0) -> Path:
        return require_finished(training_folder(self.out, draw) / "generators" / source)

    def _vector(self, source: str, key: str) -> Path:
        return require_finished(self.out / "vectors" / f"{key}__{source}")

    def _sweep(self, source: str, read_clips: Callable[[], list[Clip]]) -> Stage:
        recipe, attacks = self.recipe.sweep, self.recipe.attacks
        assert recipe is not None, "is_swept"
        recipe = replace(
            recipe, attacks=tuple(k for k in recipe.attacks if k in self.sources[source])
        )

        names = {key: attacks[key].attack or key for key in recipe.attacks}
        vectors = [key for key, name in names.items() if name == "uap"]

        def make_plan() -> SweepPlan:
            victim = self.source(source)
            members = source.split(",")
            others = [self.victim(name) for name in self.victim_names if name not in members]
            return SweepPlan(
                recipe=recipe,
                attacks=attacks,
                source=victim,
                targets=[*members_of(victim), *others],
                generator=self._generator(source) if "staa" in names.values() else None,
                vectors={key: self._vector(source, key) for key in vectors},
                context=self.context,
            )

        points = len(sweep_points(recipe, attacks))
        return Sweeping(
            f"sweep from {source}",
            make_plan,
            read_clips,
            self.out / "sweeps" / source,
            size=lambda: f"{self._count(recipe.clips)} clips x {points} budgets",
        ).stage()

    def _evaluation(self) -> Stage:
        recipe, results = self.recipe, self.out / "results"
        keys = [(source, key) for source, keys in self.sources.items() for key in keys]
        sets = [self._set_folder(source, key) for source, key in keys]

        def work(_: Inputs) -> TransferMatrix:
            targets = [self.victim(name) for name in self.victim_names]
            matrix = evaluate(
                sets,
                targets,
                results,
                channels=recipe.channels,
                perceptual=recipe.perceptual,
                sexes=sexes_of(self.corpus),
                context=self.context,
            )
            again = {
                draw: [
                    self._set_folder(s, key, draw) for s, key in keys if self._trainings(key) > draw
                ]
                for draw in range(1, recipe.seeds)
            }
            return evaluate_trainings(matrix, again, targets, results, self.context)

        sound = ", and how it sounds" if recipe.perceptual else ""
        return Stage(
            name="evaluate",
            folder=self.out / "results",
            kind="evaluation",
            inputs=None,
            work=work,
            marker="summary.json",
            size=lambda: (
                f"{len(sets)} sets x {len(self.victim_names)} victims x "
                f"{1 + len(recipe.channels)} channels{sound}; always done anew"
            ),
        )

    def _selfcheck(self, _: Inputs) -> None:
        context = self.context
        if not selfcheck.is_current(self.out, context.seed):
            selfcheck.selfcheck(
                self.out, seed=context.seed, device=context.device, progress=context.progress
            )

    def _count(self, limit: int | None) -> str:
        """How many test clips an attack has at most; ``?`` if the corpus is not there."""
        try:
            count = len(self.held_out)
        except NotReady:
            return "?" if limit is None else str(limit)
        return str(count if limit is None else min(count, limit))


def training_folder(out: Path, draw: int) -> Path:
    """Where the generator of a training and its sets lie: the run itself, or apart from it."""
    return out / "trainings" / str(draw + 1) if draw else out


def require_finished(folder: Path) -> Path:
    """The folder of a stage. Raises ``NotReady`` before that stage is done."""
    if not (folder / storage.CARD).exists():
        raise NotReady(str(folder))
    return folder


def _with_length(clips: list[Clip], seconds: float | None) -> list[Clip]:
    """Every clip tiled or cut to ``seconds``; as it is for ``None``."""
    if seconds is None:
        return clips
    return [
        replace(clip, pcm16=audio.fit_length(clip.pcm16, round(seconds * clip.sample_rate)))
        for clip in clips
    ]
