"""``LoadedRun``: a finished run with its victims and its corpus, as checks use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio, config, corpora
from staanet.attacks import logits_of
from staanet.core import Clip, Corpus, Victim
from staanet.errors import InvalidInput, StaaNetError
from staanet.results.checks import Check
from staanet.results.run_folder import RunFolder
from staanet.results.stored import StoredSet, finished_folders, fold_folders
from staanet.victims import load_victim

REMEDY = "Attack and evaluate again: a figure is that of its files or none"


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """The content of a finished run, with results as stored in its files."""

    files: RunFolder
    victims: Mapping[str, Victim]
    corpus: Corpus | None
    problem: str = ""
    """Why there is no corpus."""
    seed: int
    protocol: str | None = None
    clip_seconds: float | None = None
    _logits: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)

    def clean_logits(self, victim: str, clip: Clip) -> NDArray[np.float64]:
        """Returns a victim's logits of a clip, ``[K]``; the same samples are computed once."""
        key = victim, audio.content_hash(clip.pcm16)
        if key not in self._logits:
            self._logits[key] = logits_of(self.victims[victim], [clip])[0]
        return self._logits[key]

    def trained(self, *kinds: str) -> Iterator[tuple[str, Path]]:
        """Yields kind and folder of each trained model: ``victim``, ``generator``, ``vector``."""
        for kind in kinds:
            for folder in finished_folders(self.files.folder / f"{kind}s"):
                yield kind, folder


def load_run(
    folder: Path,
    *,
    corpus: str | None = None,
    victims: Mapping[str, Victim] | None = None,
    device: str = "cpu",
) -> LoadedRun:
    """Returns the run in ``folder``.

    Args:
        folder: The folder of ``staanet run``.
        corpus: Replaces the recipe's, as ``KIND:PATH``.
        victims: Added to those of the run, or in place of some, by name.
        device: Where victims compute.

    Raises:
        InvalidInput: The folder is not that of a finished run, or a file in it is damaged.
    """
    require_finished(folder)
    files = RunFolder.read(folder)
    loaded = [load_victim(path).to(device) for path in finished_folders(folder / "victims")]
    path = folder / "recipe.toml"
    recipe = config.load_recipe(str(path)) if path.is_file() else None
    spec, options = (recipe.corpus, recipe.corpus_options()) if recipe else ("", {})
    whole, problem = _corpus(folder, corpus or spec, options)
    return LoadedRun(
        files=files,
        victims={**{victim.name: victim for victim in loaded}, **(victims or {})},
        corpus=whole,
        problem=problem,
        seed=recipe.seed if recipe else 0,
        protocol=recipe.protocol if recipe else None,
        clip_seconds=recipe.clip_seconds if recipe else None,
    )


def require_finished(folder: Path) -> None:
    """Raises ``InvalidInput`` where ``folder`` lacks a file that every check needs."""
    if folds := fold_folders(folder):
        raise InvalidInput(
            f"pools {len(folds)} folds, each of which is checked alone",
            where=folder,
            remedy=f"Run staanet selfcheck {folds[0]} and so on, or --set selfcheck=true in the recipe",
        )
    for needed in ("results/summary.json", "results/results.parquet", "adversarial"):
        if not (folder / needed).exists():
            raise InvalidInput(
                f"is no finished run ({needed} is missing)",
                where=folder,
                remedy="Give the folder of staanet run, and let the run end first",
            )


def _corpus(folder: Path, spec: str, options: dict[str, Any]) -> tuple[Corpus | None, str]:
    """The corpus as the recipe reads it, with its label map, columns and root; else why there is none."""
    if not spec:
        return None, "the run has no recipe that names it"
    if spec == "synthetic:":
        spec = f"synthetic:{folder / 'corpus'}"
        if not (folder / "corpus" / "manifest.json").is_file():
            return None, f"{folder / 'corpus'} holds no rendered speech"
    try:
        return corpora.load_corpus(spec, **options), ""
    except StaaNetError as error:
        return None, str(error)


def sample_ids(stored: StoredSet, count: int, seed: int) -> list[str]:
    """Returns ids of up to ``count`` clips of a set, classes in turn; which ones, the seed draws."""
    if not stored.rows:
        raise InvalidInput(
            "holds no clip", where=stored.folder, remedy="Attack at least one usable clip"
        )
    rng = np.random.default_rng(seed)
    by_class: dict[str, list[str]] = defaultdict(list)
    for clip_id in sorted(stored.rows):
        by_class[stored.rows[clip_id]["label"]].append(clip_id)
    ranked = [
        (rank, label, clip_id)
        for label, ids in sorted(by_class.items())
        for rank, clip_id in enumerate(rng.permutation(np.array(ids)).tolist())
    ]
    return [clip_id for _, _, clip_id in sorted(ranked)[:count]]


def no_victim(name: str, subject: str, victim: str) -> Check:
    """Returns a check that is left out, since the victim that it needs is not in the run."""
    return Check.skip(
        name,
        subject,
        f"the victim {victim} is not in victims/",
        remedy="Check it from Python: selfcheck(run, victims={NAME: VICTIM})",
    )


def no_corpus(name: str, run: LoadedRun, subject: str = "") -> Check:
    """Returns a check that is skipped because the corpus is missing."""
    return Check.skip(
        name, subject, f"no corpus to compare with: {run.problem}", remedy="Pass --corpus KIND:PATH"
    )
