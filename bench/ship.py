"""``python -m bench.ship RUN CORPUS``: a run's small models into the package, as 16-bit floats, with their cards.

Each figure of a card is measured here, on the shipped weights, on the test speakers of the run's corpus.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from staanet import config, corpora, storage
from staanet.attacks import Staa, craft, logits_of
from staanet.core import Budget, Clip, metrics
from staanet.evaluation import transfer_matrix
from staanet.evaluation.everyday import unchanged_shares
from staanet.generators.registry import load_generator
from staanet.pipeline.corpus_content import CorpusContent
from staanet.report.model_cards import model_card
from staanet.storage import pretrained
from staanet.victims import joint_sha256, load_victim
from staanet.victims.self_supervised import SelfSupervised

VICTIMS = ("emo18", "zhao19", "wav2vec2_tiny")
GENERATORS = ("emo18,zhao19",)
DROPPED = ("machine", "epochs", "best_step")


def ship(run: Path, corpus_spec: str) -> None:
    """Replace ``src/staanet/models`` by what ``run`` made of the corpus."""
    recipe = config.load_recipe(str(run / "recipe.toml"))
    parts = corpora.load_corpus(corpus_spec).split(recipe.seed, recipe.protocol)
    test = list(parts[2].clips(16_000))
    made = storage.read_card(run, "run")
    about = {
        "recipe": recipe.name,
        "commit": made.get("commit"),
        "licence": "MIT for the weights; EMO-DB (Burkhardt et al. 2005) is freely available for research",
    }
    shutil.rmtree(pretrained.ROOT, ignore_errors=True)
    CorpusContent.of(parts).save(
        pretrained.ROOT
    )  # tells who was met in training, whatever its name
    hashes: dict[str, str] = {}
    for name in VICTIMS:
        out = pretrained.ROOT / "victims" / name
        card = _halved(run / "victims" / name, out, "victim", about)
        hashes[name] = str(card["sha256"])
        victim = load_victim(out)
        if isinstance(victim, SelfSupervised):
            for file, content in victim.library_files().items():
                storage.write_json(out / file, content)
        answers = [victim.labels[i] for i in logits_of(victim, test).argmax(axis=1)]
        truth = [clip.label or "" for clip in test]
        right = [a == b for a, b in zip(truth, answers, strict=True)]
        quality = {"test_uar": metrics.uar(truth, answers), "test_accuracy": float(np.mean(right))}
        _close(out, {**card, **quality, "test_unchanged": unchanged_shares(victim, test)})
    for name in GENERATORS:
        out = pretrained.ROOT / "generators" / name.replace(",", "-")
        card = _halved(run / "generators" / name, out, "generator", about)
        sources = [str(one) for one in card["sources"]]
        card["source_sha256"] = joint_sha256([hashes[source] for source in sources])
        card["source_folders"] = [f"../../victims/{source}" for source in sources]
        storage.write_card(out, card)
        _close(out, {**card, "test_fooling_rate": _fooling(out, card, test)})


def _halved(source: Path, out: Path, kind: str, about: dict[str, Any]) -> dict[str, Any]:
    """The model with weights of 16 bits in ``out``; its card."""
    tensors, card = storage.load_model(source, kind=kind)
    kept = {k: v for k, v in card.items() if k not in (*DROPPED, "sha256", "kind")}
    small = {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}
    storage.save_model(
        out, kind=kind, tensors=small, card={**kept, **about, "precision": "float16"}
    )
    return storage.read_card(out, kind)


def _fooling(out: Path, card: dict[str, Any], test: list[Clip]) -> dict[str, float]:
    """On test speakers, of each shipped victim."""
    victims = [load_victim(pretrained.folder("victims", name)) for name in VICTIMS]
    budget = Budget(epsilon=card["epsilon"], max_density=float(card["max_density"]))
    attack = Staa(generator=load_generator(out), budget=budget)
    matrix = transfer_matrix([craft(attack, victims[0], test)], victims)
    return {cell["target"]: round(cell["fooling_rate"]["value"], 4) for cell in matrix.cells}


def _close(out: Path, card: dict[str, Any]) -> None:
    storage.write_card(out, card)
    written = storage.read_card(out, str(card["kind"]))  # in the order of the file
    storage.write_text(out / "MODEL_CARD.md", model_card(written))


if __name__ == "__main__":
    ship(Path(sys.argv[1]), sys.argv[2])
