"""A surrogate learns a black box's answers, counts every question, and stands in for it as a source."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from staanet import corpora, storage, training
from staanet.cli import app
from staanet.config import VictimRecipe
from staanet.pipeline import Context, distil, source_of
from staanet.training.distillation import DistillationTask
from staanet.victims import build_victim, load_victim


@pytest.fixture
def target(tmp_path):
    torch.manual_seed(0)
    victim = build_victim("zhao19", ("high", "low")).requires_grad_(False).eval()
    victim.save_pretrained(tmp_path / "target")
    return tmp_path / "target"


def test_it_counts_each_clip_that_the_target_is_asked(tiny_corpus, target, tmp_path):
    corpus = corpora.load_corpus(f"folder:{tiny_corpus}")
    recipe = VictimRecipe(steps=4, batch_size=3, seconds=0.2, evaluate_every=2)
    distil(corpus, load_victim(target), tmp_path / "s", recipe=recipe, context=Context())
    card = storage.read_card(tmp_path / "s", "victim")
    dev = len(corpus.split(0)[1])
    assert card["queries"] == 4 * 3 + dev
    assert card["distilled_from"] == "zhao19" and load_victim(tmp_path / "s").labels == (
        "high",
        "low",
    )


def test_it_comes_to_agree_with_its_target(tiny_corpus, target):
    """On crops that it has not seen, after a little training, more than at first."""
    clips = list(corpora.load_corpus(f"folder:{tiny_corpus}").clips(16_000))
    taught = load_victim(target)
    with torch.no_grad():  # answers that depend on the pitch: up to 400 Hz one, above the other
        taught.forward = lambda x, lengths=None: torch.stack(
            [10 * (x[:, 1:] * x[:, :-1]).sum(1) / x.square().sum(1) - 9.5, torch.zeros(len(x))], 1
        )
    schedule = training.Schedule(steps=40, batch_size=8, seconds=0.2, learning_rate=1e-3)
    task = DistillationTask(
        build_victim("emo18", ("high", "low")), taught, training.Crops(clips, schedule), clips
    )
    optimiser = torch.optim.Adam(task.module.parameters(), lr=1e-3)
    losses = []
    for step in range(40):
        loss, _ = task.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_generator_is_trained_on_a_surrogate_from_the_command_line(tiny_corpus, target, tmp_path):
    words = [
        "train-generator",
        f"folder:{tiny_corpus}",
        "--source",
        f"distill:{target}",
        "--out",
        str(tmp_path / "g"),
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--seconds",
        "0.2",
        "--surrogate-steps",
        "2",
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert card["sources"] == ["zhao19_surrogate"] and card["network"] == "backward_net"
    assert source_of(tmp_path / "g").name == "zhao19_surrogate"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and json.loads(again.stdout)["sha256"] == card["sha256"]
