"""Searches the loss weights of the generator for the highest fooling rate at the lowest density.

The paper's loss has fixed weights for magnitude, sparsity and quantisation (Chang et al. 2024, arXiv
2402.01227, section III), tuned by hand. Optuna (Akiba et al., KDD 2019, arXiv 1907.10902) searches
them: each trial trains a generator, which dev clips judge by fooling rate (more is better) and density
(less is better). The trials that no other beats in both are the Pareto front.

A trial is a generator folder below ``trials``, and the study an SQLite file beside them. The sampler of
a trial is seeded by its number, so that a killed search goes on as if it had never been stopped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import GeneratorRecipe, validate_settings
from staanet.core import Corpus, Victim
from staanet.errors import InvalidInput, unknown_name
from staanet.generators.registry import GENERATORS
from staanet.pipeline.context import Context
from staanet.pipeline.stage import (
    Inputs,
    Stage,
    discard_leftovers,
    folder_state,
    mark_begun,
    normal,
    walk,
)
from staanet.pipeline.train_generator import GeneratorTraining
from staanet.results import row_files
from staanet.storage import describe_machine

STUDY, TRIALS, FRONT = "study.db", "trials.csv", "pareto.png"
MAX_TRIALS = 10_000
DIVERGED = (0.0, 1.0)
"""Figures of a trial whose loss became infinite: it fools nothing with every sample."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values of a setting that are searched, on a logarithmic scale."""

    low: float
    high: float


PUBLISHED = {
    "sparsity": Range(1e-5, 1.0),
    "magnitude": Range(1e-4, 10.0),
    "quantisation": Range(1e-4, 10.0),
}
"""The paper's lambda_spa, lambda_mag and lambda_qua: all that its density depends on."""
CONSTRAINED = {
    "magnitude": Range(1e-4, 10.0),
    "quantisation": Range(1e-4, 10.0),
    "learning_rate": Range(1e-4, 1e-2),
    "kappa": Range(0.1, 100.0),
}
"""Searched where density is a limit and not what comes out of the weights; so is that limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A generator of the search: its settings, and its figures on dev clips."""

    number: int
    settings: Mapping[str, float]
    fooling_rate: float
    density: float
    best: bool = False
    """Whether no other trial fools more at no more density, or as much at less."""

    def row(self) -> dict[str, Any]:
        """For ``trials.csv``."""
        return {
            "trial": self.number,
            "dev_fooling_rate": f"{self.fooling_rate:.6g}",
            "dev_density": f"{self.density:.6g}",
            "pareto": int(self.best),
            **{name: f"{value:.6g}" for name, value in self.settings.items()},
        }


def search_space(recipe: GeneratorRecipe) -> dict[str, Range]:
    """The settings that are searched, and their ranges.

    With the published objective: its weights. Else the largest density, from a twentieth of the recipe's
    on, and the weights beside it.

    >>> sorted(search_space(GeneratorRecipe()))[:3]
    ['kappa', 'learning_rate', 'magnitude']
    """
    if recipe.objective == "paper":
        return PUBLISHED
    return {"max_density": Range(recipe.max_density / 20, recipe.max_density), **CONSTRAINED}


def published_recipe(values: Mapping[str, Any]) -> GeneratorRecipe:
    """A generator's recipe with the paper's objective."""
    return validate_settings(GeneratorRecipe, {"objective": "paper", **values}, where="tune")


def tune(
    corpus: Corpus,
    source: Victim,
    out: Path,
    *,
    recipe: GeneratorRecipe,
    trials: int,
    context: Context,
) -> list[Trial]:
    """Trains up to ``trials`` generators against ``source``; more can be added by a later call.

    Writes ``trials.csv`` and ``pareto.png`` after each trial. Returns all trials. Raises ``InvalidInput``
    without optuna, and if ``out`` holds another search.
    """
    if not 1 <= trials <= MAX_TRIALS:
        raise InvalidInput(f"trials is {trials}", remedy=f"Give 1 to {MAX_TRIALS}")
    if recipe.network not in GENERATORS:
        raise unknown_name("network", recipe.network, GENERATORS)
    search = Search(corpus, source, out, recipe, trials, context)
    walk(search.stages())
    return search.finish()


@dataclass(frozen=True)
class Search:
    """A search whose trials are stages; the settings of each depend on the figures before."""

    corpus: Corpus
    source: Victim
    out: Path
    recipe: GeneratorRecipe
    trials: int
    context: Context

    @cached_property
    def space(self) -> dict[str, Range]:
        return search_space(self.recipe)

    @cached_property
    def study(self) -> Any:
        """The study of ``out``, new or gone on with."""
        _optuna()
        inputs = self.inputs()
        if folder_state(self.out, "search", inputs) == "to do":
            mark_begun(self.out, inputs)
        return _open_study(self.out)

    def inputs(self) -> Inputs:
        """All that identifies the search; how many trials it has does not."""
        fixed = {k: v for k, v in asdict(self.recipe).items() if k not in self.space}
        return {
            **self.context.split_inputs(self.corpus),
            "source": self.source.identity,
            "recipe": fixed,
            "searched": {name: [limits.low, limits.high] for name, limits in self.space.items()},
        }

    def stages(self) -> Iterator[Stage]:
        """A stage for each trial that has no figures."""
        while len(done := _finished_trials(self.study)) < self.trials:
            number = len(done)
            self.context.progress("tune", number, self.trials, _best(done))
            self.study.sampler = _sampler(self.context.seed, number)
            trial = self.study.ask()
            settings = {
                name: trial.suggest_float(name, limits.low, limits.high, log=True)
                for name, limits in self.space.items()
            }
            folder = self.out / "trials" / f"{number:04d}"
            yield self._trial(number, settings, folder)
            self.study.tell(trial, _figures(folder))
            self._write(_finished_trials(self.study))

    def _trial(self, number: int, settings: Mapping[str, Any], folder: Path) -> Stage:
        generator = GeneratorTraining(
            lambda: self.corpus,
            lambda: self.source,
            self.source.name,
            folder,
            replace(self.recipe, **settings),
            _of_trial(number, self.trials, self.context),
        )

        def work(inputs: Inputs) -> None:
            try:
                generator.work(inputs)
            except InvalidInput as problem:  # a loss that diverges ends the trial, not the search
                if not problem.what.startswith("the loss became"):
                    raise

        return replace(generator.stage(), work=work)

    def finish(self) -> list[Trial]:
        """Writes the tables once more; returns all trials."""
        trials = _finished_trials(self.study)
        self.context.progress("tune", self.trials, self.trials, _best(trials))
        self._write(trials)
        discard_leftovers(self.out)
        return trials

    def _write(self, trials: Sequence[Trial]) -> None:
        if not trials:
            return
        table = row_files.csv_text(list(trials[0].row()), [trial.row() for trial in trials])
        storage.write_text(self.out / TRIALS, table)
        storage.write_bytes(self.out / FRONT, draw_front(trials, self.source.name))
        storage.write_card(
            self.out,
            {
                "kind": "search",
                "source": self.source.name,
                "inputs": normal(self.inputs()),
                "pareto": [trial.row() for trial in trials if trial.best],
                "machine": describe_machine(),
            },
        )


def _of_trial(number: int, trials: int, context: Context) -> Context:
    """A context whose progress names its trial."""

    def progress(what: str, step: int, total: int, figures: str = "") -> None:
        context.progress(f"trial {number + 1}/{trials}: {what}", step, total, figures)

    return replace(context, progress=progress)


# ---------------------------------------------------------------- the study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InvalidInput(
            "the search needs optuna", remedy="Install it: pip install 'staanet[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open_study(out: Path) -> Any:
    """The study in a folder. A trial that was killed is dropped from it; its folder is gone on with, as
    the next trial has the same settings."""
    optuna = _optuna()
    path = out / STUDY
    out.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path.resolve()}",
            study_name="staanet",
            load_if_exists=True,
            directions=["maximize", "minimize"],
        )
        running = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    except Exception as problem:  # sqlalchemy's and optuna's own: what the file holds is no study
        raise InvalidInput(
            f"is not the study of a search ({type(problem).__name__})",
            where=path,
            remedy="Choose another --out, or delete that folder",
        ) from problem
    for trial in running:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _sampler(seed: int, number: int) -> Any:
    """The tree-structured Parzen estimator for several objectives (Ozaki et al., JAIR 2022), its first
    ten trials random; what it draws depends on the seed, the trial and the figures before."""
    return _optuna().samplers.TPESampler(seed=(seed * MAX_TRIALS + number) % 2**32)


def _finished_trials(study: Any) -> list[Trial]:
    """The trials that have figures, in their order, those of the Pareto front marked."""
    complete = _optuna().trial.TrialState.COMPLETE
    trials = [
        Trial(
            number=number,
            settings=dict(trial.params),
            fooling_rate=float(trial.values[0]),
            density=float(trial.values[1]),
        )
        for number, trial in enumerate(study.get_trials(deepcopy=False, states=[complete]))
    ]
    best = pareto([(trial.fooling_rate, trial.density) for trial in trials])
    return [replace(trial, best=mark) for trial, mark in zip(trials, best, strict=True)]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points ``(fooling rate, density)`` no other point beats.

    A point beats another if it fools more at no more density, or as much at less.

    >>> pareto([(0.5, 0.1), (0.5, 0.2), (0.9, 0.3), (0.2, 0.4)])
    [True, False, True, False]
    """
    return [
        not any(
            other != point and other[0] >= point[0] and other[1] <= point[1] for other in points
        )
        for point in points
    ]


def _figures(folder: Path) -> tuple[float, float]:
    """Fooling rate and mean density on dev of a trained generator, at its best step."""
    if not (folder / storage.CARD).exists():
        return DIVERGED
    card = storage.read_card(folder, "generator")
    text = (folder / "training.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    best = next(row for row in rows if int(row["step"]) == card["best_step"])
    return float(card["dev_fooling_rate"]), float(best["dev_density"])


def _best(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    best = max(trials, key=lambda trial: (trial.fooling_rate, -trial.density))
    return f"most: {best.fooling_rate:.3g} at density {best.density:.3g}"


def draw_front(trials: Sequence[Trial], source: str) -> bytes:
    """A PNG of all trials, density against fooling rate, with the front drawn through the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    front = sorted((trial.density, trial.fooling_rate) for trial in trials if trial.best)
    others = [trial for trial in trials if not trial.best]
    axes.plot(
        [trial.density for trial in others],
        [trial.fooling_rate for trial in others],
        "o",
        color="#8a8a87",
        label="beaten in both",
    )
    axes.plot(
        *zip(*front, strict=True),
        "o-",
        drawstyle="steps-post",
        color="#d55e00",
        label="Pareto front",
    )
    if all(trial.density > 0 for trial in trials):
        axes.set_xscale("log")
    axes.set(
        xlabel="mean density on dev",
        ylabel="fooling rate on dev",
        ylim=(-0.02, 1.02),
        title=f"{len(trials)} generators against {source}",
    )
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
