"""Writes a model card in Markdown from the ``card.json`` of a model folder.

It follows Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993). Every figure
comes from ``card.json``; entries that it lacks are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from staanet.errors import InvalidInput, printable, unknown_name
from staanet.results.table import Table, markdown_text

_INTENDED = {
    "victim": "Use this classifier as a victim: to study how easily a model is fooled, to compare "
    "attacks and defences, or to try this package. It must not judge people.",
    "generator": "One pass of this generator turns a clip into an adversarial clip for its source "
    "classifier. Use it to measure and harden classifiers that are yours, or that "
    "you were asked to test.",
    "vector": "Use this perturbation as a control. It is the same for all clips. An attack on "
    "single clips must beat this control.",
}
_DECEPTION = "Do not mislead a system or people without their consent."
_NOT_FOR = {
    "victim": "Do not use it to judge what a person feels. The labels are acted or synthetic "
    "classes, not feelings. The accuracy below holds for the test speakers of one "
    "corpus.",
    "generator": _DECEPTION,
    "vector": _DECEPTION,
}
_MEASURES = {
    "test_uar": "UAR on test speakers",
    "test_accuracy": "accuracy on test speakers",
    "dev_uar": "UAR on dev speakers",
    "dev_accuracy": "accuracy on dev speakers",
    "test_ccc": "mean CCC on test speakers",
    "dev_ccc": "mean CCC on dev speakers",
    "dev_fooling_rate": "fooling rate of its source on dev speakers",
    "dev_density": "samples changed on dev speakers, share",
    "dev_snr_db": "SNR on dev speakers, dB",
}


def model_card(card: Mapping[str, Any]) -> str:
    """Returns the text of ``MODEL_CARD.md`` from the ``card.json`` of a victim, a generator or a vector.

    Raises ``InvalidInput`` for a card of another kind or without a kind.

    >>> text = model_card({"kind": "victim", "name": "emo18", "labels": ["joy"], "test_uar": 0.5})
    >>> print(text.splitlines()[0])
    # emo18
    >>> "| UAR on test speakers | 0.500 |" in text
    True
    """
    kind = card.get("kind")
    if kind is None:
        raise InvalidInput(
            "a card that names no kind", remedy="Pass the card.json of a model folder"
        )
    if kind not in _INTENDED:
        raise unknown_name("kind of model card", str(kind), _INTENDED)
    sections = [
        f"# {markdown_text(_name(card))}",
        _sentence(card),
        "## Details\n\n" + _table(("", ""), _details(card)),
        f"## Intended use\n\n{_INTENDED[kind]}",
        f"## Not for\n\n{_NOT_FOR[kind]}",
        "## Data\n\n" + _data(card),
        "## Measured\n\n"
        + (_table(("measure", "value"), _measured(card)) if _measure_keys(card) else "Nothing."),
        "## Training\n\n" + _table(("setting", "value"), _training(card)),
        "## Limits\n\n" + _limits(card),
        "## Load\n\n" + _load(kind),
    ]
    return "\n\n".join(sections) + "\n"


def _name(card: Mapping[str, Any]) -> str:
    if card.get("name"):
        return str(card["name"])
    return f"{card['kind']} against {card.get('source', 'an unnamed classifier')}"


def _sentence(card: Mapping[str, Any]) -> str:
    if card["kind"] == "victim":
        labels = [str(label) for label in card.get("labels", ())]
        return f"An audio classifier of {len(labels)} classes: {markdown_text(', '.join(labels))}."
    source = markdown_text(str(card.get("source", "an unnamed classifier")))
    if card["kind"] == "vector":
        return f"One universal adversarial perturbation, learned against {source}."
    return f"A STAA-Net generator (arXiv 2402.01227), trained to fool {source}."


def _details(card: Mapping[str, Any]) -> list[tuple[str, object]]:
    keys = (
        "kind",
        "architecture",
        "network",
        "parameters",
        "sample_rate",
        "epsilon",
        "max_density",
        "sha256",
        "source",
        "source_sha256",
        "staanet",
        "torch",
        "python",
        "machine",
    )
    is_relative = isinstance(card.get("epsilon"), str)
    units = {"epsilon": "epsilon, to the speech"} if is_relative else {}
    return [(units.get(k, _label(k)), card[k]) for k in keys if card.get(k) is not None]


def _label(key: str) -> str:
    units = {
        "sample_rate": "sample rate, Hz",
        "epsilon": "epsilon, of full scale 1",
        "sha256": "sha256 of the weights",
        "max_density": "largest share of samples",
    }
    return units.get(key, key.replace("_", " "))


def _data(card: Mapping[str, Any]) -> str:
    inputs = card.get("inputs") or {}
    if not inputs.get("corpus"):
        return "The card names no corpus."
    text = (
        f"The model was trained on the train part of `{_code(inputs['corpus'])}` and chosen on the "
        "dev part. No test speaker was used. Each speaker is in one part only."
    )
    if inputs.get("split"):
        text += (
            f" The hash of the split is `{_code(inputs['split'])}`, with seed "
            f"{inputs.get('seed', 'not recorded')}."
        )
    return text


def _measure_keys(card: Mapping[str, Any]) -> list[str]:
    return [key for key in _MEASURES if isinstance(card.get(key), int | float)]


def _measured(card: Mapping[str, Any]) -> list[tuple[str, object]]:
    fooled = card.get("test_fooling_rate") or {}
    rates: list[tuple[str, object]] = [
        (f"fooling rate of {name} on test speakers", f"{r:.3f}") for name, r in fooled.items()
    ]
    unchanged: list[tuple[str, object]] = [
        (f"answers unchanged on test speakers, {name}", f"{share:.3f}")
        for name, share in (card.get("test_unchanged") or {}).items()
        if share is not None
    ]
    return [
        *((_MEASURES[key], f"{card[key]:.3f}") for key in _measure_keys(card)),
        *unchanged,
        *rates,
    ]


def _training(card: Mapping[str, Any]) -> list[tuple[str, object]]:
    recipe = dict((card.get("inputs") or {}).get("recipe") or {})
    recipe |= {key: card[key] for key in ("best_step", "epochs") if key in card}
    settings = [
        (key.replace("_", " "), value) for key, value in recipe.items() if value is not None
    ]
    return settings or [("recipe", "not recorded")]


def _limits(card: Mapping[str, Any]) -> str:
    lines = [f"- {markdown_text(str(flag))}" for flag in card.get("flags") or ()]
    if (card.get("inputs") or {}).get("corpus") == "synthetic":
        lines.append(
            "- It was trained only on synthetic speech (eSpeak NG). Its answers on real speech "
            "mean little. It serves to show the method."
        )
    lines.append(
        "- A few test speakers do not represent all speakers. See the intervals of the report."
    )
    lines.append("- It was not trained to be robust, and no robustness is claimed.")
    return "\n".join(lines if card["kind"] == "victim" else lines[:-1])


def _load(kind: str) -> str:
    loaders = {
        "victim": 'import staanet\n\nvictim = staanet.load_victim("FOLDER")',
        "generator": 'import staanet\n\ngenerator = staanet.load_generator("FOLDER")',
        "vector": "import staanet\nfrom staanet.attacks import load_uap\n\n"
        'attack = load_uap("FOLDER", staanet.Budget(epsilon=0.03))',
    }
    return f"```python\n{loaders[kind]}\n```"


def _table(columns: tuple[str, str], rows: list[tuple[str, object]]) -> str:
    cells = [[name, _value(value)] for name, value in rows]
    return Table(columns=columns, rows=cells, names=2).to_markdown().rstrip()


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value) or "none"
    return str(value)


def _code(text: object) -> str:
    return printable(str(text)).replace("`", "'")
