"""Model cards say what card.json says, and nothing in a name is taken for markup."""

from __future__ import annotations

import re

import pytest

from staanet.errors import InvalidInput
from staanet.report import model_cards

VICTIM = {
    "kind": "victim",
    "name": "emo18",
    "architecture": "emo18",
    "labels": ["anger", "joy"],
    "sample_rate": 16000,
    "sha256": "ab" * 32,
    "test_uar": 0.9375,
    "dev_uar": 0.95,
    "test_unchanged": {"white noise at 20 dB": 0.875},
    "best_step": 250,
    "inputs": {
        "corpus": "synthetic",
        "seed": 3,
        "split": "cd" * 32,
        "recipe": {"steps": 250, "patience": None, "noise_db": 8.0},
    },
}
GENERATOR = {
    "kind": "generator",
    "source": "emo18",
    "network": "backward_net",
    "epsilon": 0.03,
    "parameters": 7,
    "dev_fooling_rate": 0.5,
    "flags": ["mask empty"],
}


def test_every_figure_of_the_card_is_told_and_nothing_else() -> None:
    text = model_cards.model_card(VICTIM)
    for told in ("0.938", "0.950", "ab" * 32, "cd" * 32, "seed 3", "| steps | 250 |", "anger, joy"):
        assert told in text
    assert "| answers unchanged on test speakers, white noise at 20 dB | 0.875 |" in text
    assert "patience" not in text and "accuracy on" not in text  # the card says nothing of them
    assert "only on synthetic speech" in text


def test_a_generator_tells_its_source_and_its_flags() -> None:
    text = model_cards.model_card(GENERATOR)
    assert text.startswith("# generator against emo18\n") and "- mask empty" in text
    assert "| fooling rate of its source on dev speakers | 0.500 |" in text
    assert "The card names no corpus." in text


@pytest.mark.parametrize("kind", ["victim", "generator", "vector"])
def test_the_code_to_load_it_is_code(kind: str) -> None:
    text = model_cards.model_card({"kind": kind})
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    compile(code, kind, "exec")


def test_names_are_never_markup() -> None:
    text = model_cards.model_card({**VICTIM, "name": "<b>|x\n# y", "labels": ["[a](http://b)"]})
    assert "<b>" not in text.replace("\\<b\\>", "") and "\n# y" not in text
    assert "\\[a\\](http://b)" in text


def test_other_cards_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="'run'"):
        model_cards.model_card({"kind": "run"})
    with pytest.raises(InvalidInput, match="names no kind"):
        model_cards.model_card({})
