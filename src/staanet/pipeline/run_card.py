"""The card of a finished run: recipe, corpus, versions and seconds."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from staanet import corpora, storage
from staanet.config import Recipe
from staanet.core import Corpus
from staanet.storage import describe_machine


def write_run_card(
    recipe: Recipe, corpus: Corpus, out: Path, command: str, seconds: Mapping[str, float]
) -> None:
    """Writes the card of a run.

    Args:
        recipe: As it was resolved.
        corpus: Whole.
        out: Folder of the run.
        command: That was typed; empty: made of the recipe's name.
        seconds: How long each stage took.
    """
    parts = corpus.split(recipe.seed, recipe.protocol)
    description = {
        "name": corpus.name,
        "clips": len(corpus),
        "speakers": len(corpus.speakers),
        "labels": list(corpus.labels),
        "split": {
            part.part: {
                "clips": len(part),
                "speakers": list(part.speakers),
                **corpora.contents_entry(part),
            }
            for part in parts
        },
        "split_hash": parts[0].split_hash,
        "notes": list(corpus.notes),
    }
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
        },
    )


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
