"""Which weights serve the published objective best? A search for the most fooling at the least density.

The paper's loss has fixed weights for magnitude, sparsity and quantisation (Chang et al. 2024, arXiv
2402.01227, section III), tuned by hand. Optuna (Akiba et al., KDD 2019, arXiv 1907.10902) iterations for
them: each trial trains a generator and is judged on dev by two figures, fooling rate (more is better)
and density (less is better); what no other trial beats in both is the Pareto front.

A trial is a generator folder below ``trials``, and the study an SQLite file beside them. The sampler of
a trial is seeded by its number, so that a killed search goes on as if it had never been.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staanet import pipeline, storage
from staanet.config import GeneratorRecipe, checked
from staanet.core import Corpus, Victim
from staanet.errors import InvalidInput, unknown_name
from staanet.generators.registry import GENERATORS
from staanet.pipeline.context import Context
from staanet.results import row_files
from staanet.storage import describe_machine

STUDY, TRIALS, FRONT = "study.db", "trials.csv", "pareto.png"
MOST_TRIALS = 10_000
DIVERGED = (0.0, 1.0)
"""What a trial counts for whose loss became infinite: it fools nothing with every sample."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one setting that are tried, on a logarithmic scale."""

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
"""Where density is a limit and not what comes out of the weights, the limit is tried, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A generator of the search: what it was trained with, and what it does on dev clips."""

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


def space(recipe: GeneratorRecipe) -> dict[str, Range]:
    """What is searched for a recipe: the weights of the published objective where it has one, else
    the weights that there are beside the largest density, from a twentieth of the recipe's on.

    >>> sorted(space(GeneratorRecipe()))[:3]
    ['kappa', 'learning_rate', 'magnitude']
    """
    known = {field.name for field in dataclasses.fields(recipe)}
    if getattr(recipe, "objective", None) == "paper":
        return {name: limits for name, limits in PUBLISHED.items() if name in known}
    density = Range(recipe.max_density / 20, recipe.max_density)
    return {"max_density": density, **CONSTRAINED}


def published(values: Mapping[str, Any]) -> GeneratorRecipe:
    """A generator's recipe with the paper's objective, where this version has it."""
    known = {field.name for field in dataclasses.fields(GeneratorRecipe)}
    objective = {"objective": "paper"} if "objective" in known else {}
    return checked(GeneratorRecipe, {**objective, **values}, where="tune")


def tune(
    corpus: Corpus,
    source: Victim,
    out: Path,
    *,
    recipe: GeneratorRecipe,
    trials: int,
    context: Context,
) -> list[Trial]:
    """Up to ``trials`` generators against ``source``, into ``out``; more may be asked for later.

    Writes ``trials.csv`` and ``pareto.png`` after each. Raises ``InvalidInput`` without optuna, and
    where ``out`` holds another search.
    """
    if not 1 <= trials <= MOST_TRIALS:
        raise InvalidInput(f"trials is {trials}", remedy=f"Give 1 to {MOST_TRIALS}")
    if recipe.network not in GENERATORS:
        raise unknown_name("network", recipe.network, GENERATORS)
    searched = space(recipe)
    study = _study(out, _about(corpus, source, recipe, searched, context))
    while len(done := _finished(study)) < trials:
        number = len(done)
        context.progress("tune", number, trials, _best(done))
        study.sampler = _sampler(context.seed, number)
        asked = study.ask()
        settings = {
            name: asked.suggest_float(name, limits.low, limits.high, log=True)
            for name, limits in searched.items()
        }
        folder = out / "trials" / f"{number:04d}"
        figures = DIVERGED
        with _diverging():
            pipeline.train_generator(
                corpus,
                source,
                folder,
                recipe=dataclasses.replace(recipe, **settings),
                context=_of_trial(number, trials, context),
            )
            figures = _judged(folder)
        study.tell(asked, figures)
        _write(out, _finished(study), source.name)
    context.progress("tune", trials, trials, _best(done))
    _write(out, done, source.name)
    return done


@contextmanager
def _diverging() -> Iterator[None]:
    """A loss that is not finite ends the trial, not the search."""
    try:
        yield
    except InvalidInput as problem:
        if not problem.what.startswith("the loss became"):
            raise


def _of_trial(number: int, trials: int, context: Context) -> Context:
    """A context whose progress says which trial it is of."""

    def told(what: str, step: int, total: int, figures: str = "") -> None:
        context.progress(f"trial {number + 1}/{trials}: {what}", step, total, figures)

    return dataclasses.replace(context, progress=told)


def _about(
    corpus: Corpus,
    source: Victim,
    recipe: GeneratorRecipe,
    searched: Mapping[str, Range],
    context: Context,
) -> dict[str, Any]:
    """What makes two searches one: all but how many trials."""
    return {
        **context.split_inputs(corpus),
        "source": source.sha256,
        "recipe": {k: v for k, v in dataclasses.asdict(recipe).items() if k not in searched},
        "searched": {name: [limits.low, limits.high] for name, limits in searched.items()},
    }


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


def _study(out: Path, about: Mapping[str, Any]) -> Any:
    """The study of ``out``, made or gone on with; what a killed trial left is dropped from it, and its
    folder is gone on with, as the next trial asks for the same."""
    optuna = _optuna()
    path = out / STUDY
    out.mkdir(parents=True, exist_ok=True)
    wanted = pipeline.normal(about)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path.resolve()}",
            study_name="staanet",
            load_if_exists=True,
            directions=["maximize", "minimize"],
        )
        before = study.user_attrs.get("about")
        running = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    except Exception as problem:  # sqlalchemy's and optuna's own: what the file holds is no study
        raise InvalidInput(
            f"is not the study of a search ({type(problem).__name__})",
            where=path,
            remedy="Choose another --out, or delete that folder",
        ) from problem
    if before is None:
        study.set_user_attr("about", wanted)
    elif before != wanted:
        key, was, now = _difference(before, wanted)
        raise InvalidInput(
            f"holds a search with {key} = {was!r}, now it is {now!r}",
            where=out,
            remedy="Choose another --out, or delete that folder",
        )
    for trial in running:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first key (of a table: its own) whose values differ, and both.

    >>> _difference({"seed": 0, "recipe": {"steps": 2}}, {"seed": 0, "recipe": {"steps": 3}})
    ('recipe.steps', 2, 3)
    """
    key = next(key for key in {**before, **now} if before.get(key) != now.get(key))
    was, is_ = before.get(key), now.get(key)
    if isinstance(was, Mapping) and isinstance(is_, Mapping):
        inner, *values = _difference(was, is_)
        return f"{key}.{inner}", values[0], values[1]
    return key, was, is_


def _sampler(seed: int, number: int) -> Any:
    """The tree-structured Parzen estimator for several objectives (Ozaki et al., JAIR 2022), its first
    ten trials random; what it draws depends on the seed, the trial and the figures before."""
    return _optuna().samplers.TPESampler(seed=(seed * MOST_TRIALS + number) % 2**32)


def _finished(study: Any) -> list[Trial]:
    """The trials that have figures, in order, the best of them marked."""
    complete = _optuna().trial.TrialState.COMPLETE
    found = [
        Trial(
            number=number,
            settings=dict(trial.params),
            fooling_rate=float(trial.values[0]),
            density=float(trial.values[1]),
        )
        for number, trial in enumerate(study.get_trials(deepcopy=False, states=[complete]))
    ]
    best = pareto([(one.fooling_rate, one.density) for one in found])
    return [dataclasses.replace(one, best=mark) for one, mark in zip(found, best, strict=True)]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which ``(fooling rate, density)`` no other point beats: more at no more, or as much at less.

    >>> pareto([(0.5, 0.1), (0.5, 0.2), (0.9, 0.3), (0.2, 0.4)])
    [True, False, True, False]
    """
    return [
        not any(other != one and other[0] >= one[0] and other[1] <= one[1] for other in points)
        for one in points
    ]


def _judged(folder: Path) -> tuple[float, float]:
    """Fooling rate and mean density on dev of a trained generator, at its best step."""
    card = storage.read_card(folder, "generator")
    text = (folder / "training.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    best = next(row for row in rows if int(row["step"]) == card["best_step"])
    return float(card["dev_fooling_rate"]), float(best["dev_density"])


# ---------------------------------------------------------------- what is written


def _write(out: Path, trials: Sequence[Trial], source: str) -> None:
    if trials:
        columns = list(trials[0].row())
        storage.write_text(out / TRIALS, row_files.csv_text(columns, [one.row() for one in trials]))
        storage.write_bytes(out / FRONT, picture(trials, source))
        front = [one.row() for one in trials if one.best]
        storage.write_card(
            out,
            {"kind": "search", "source": source, "pareto": front, "machine": describe_machine()},
        )


def _best(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    one = max(trials, key=lambda trial: (trial.fooling_rate, -trial.density))
    return f"most: {one.fooling_rate:.3g} at density {one.density:.3g}"


def picture(trials: Sequence[Trial], source: str) -> bytes:
    """A PNG of all trials, density against fooling rate, with the front drawn through the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    front = sorted((one.density, one.fooling_rate) for one in trials if one.best)
    others = [one for one in trials if not one.best]
    axes.plot(
        [one.density for one in others],
        [one.fooling_rate for one in others],
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
    if all(one.density > 0 for one in trials):
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
