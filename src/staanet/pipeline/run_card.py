"""The card of a finished run: recipe, corpus, versions and seconds."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from staanet import corpora, storage
from staanet.config import Recipe
from staanet.core import Corpus
from staanet.storage import describe_machine


def write_run_card(
    recipe: Recipe,
    corpus: Corpus,
    parts: Mapping[str, Corpus],
    out: Path,
    command: str,
    seconds: Mapping[str, float],
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Writes the card of a run.

    Args:
        recipe: As it was resolved.
        corpus: Whole.
        parts: Train, dev and test; of a cross-validation, the test part of each fold.
        out: Folder of the run.
        command: That was typed; empty: made of the recipe's name.
        seconds: How long each stage took.
        inputs: What the run was made from, where it is a stage of another.
    """
    description = {
        "name": corpus.name,
        "clips": len(corpus),
        "speakers": len(corpus.speakers),
        "labels": list(corpus.labels),
        "split": {
            name: {
                "clips": len(part),
                "speakers": list(part.speakers),
                **corpora.contents_entry(part),
            }
            for name, part in parts.items()
        },
        "notes": list(corpus.notes),
    }
    if recipe.folds is None:  # each fold has its own
        description["split_hash"] = next(iter(parts.values())).split_hash
    if recipe.protocol is not None:
        description["protocol"] = recipe.protocol
    if corpus.classes != "label":
        description["classes"] = corpus.classes
    storage.write_card(
        out,
        {
            "kind": "run",
            "recipe": recipe.name,
            "command": command or shlex.join(["staanet", "run", recipe.name, "--out", out.name]),
            "commit": commit(),
            "machine": describe_machine(),
            "seconds": dict(seconds),
            "corpus": description,
            **({} if inputs is None else {"inputs": dict(inputs)}),
            "flags": [*corpus_flags(corpus, parts.values()), *_seed_flags(recipe)],
        },
    )


def corpus_flags(corpus: Corpus, parts: Iterable[Corpus]) -> list[str]:
    """What makes figures on a corpus doubtful, for a card."""
    rebuilt = corpus.decoded.notes if corpus.decoded else ()
    return [*corpus.warnings, *corpora.small_test_warning(parts), *rebuilt]


def _seed_flags(recipe: Recipe) -> list[str]:
    if recipe.seeds > 1:
        return []
    return [
        f"each model was trained once, with seed {recipe.seed}: how far another seed would move the "
        "figures is not known"
    ]


def commit() -> str | None:
    """The commit of the checkout that this code runs from, ``-dirty`` if changed; else ``None``."""
    folder = str(Path(__file__).parent)
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", folder, *describe], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
