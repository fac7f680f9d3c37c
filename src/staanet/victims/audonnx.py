"""Reads the folders that audonnx writes, ``model.yaml`` beside ``model.onnx``: ``audonnx:FOLDER``.

The YAML is read as plain data: objects that it names, such as transforms, are never built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staanet.config import SAMPLE_RATE
from staanet.errors import InvalidInput, needs_extra, printable
from staanet.victims.labels import TOLERANCE, are_dimensions, default_tolerance
from staanet.victims.model_card import card_path
from staanet.victims.onnx import OnnxVictim

CARD = "model.yaml"
_REMEDY = "Give a folder with model.yaml and model.onnx, as audonnx.Model.to_yaml writes them"


class AudonnxVictim(OnnxVictim):
    """The ONNX model of such a folder, with labels and the name of the output from the YAML.

    ``model.onnx.toml`` beside them may say more, such as another ``sample_rate``. Raises ``InvalidInput``
    where the folder is damaged, or the model takes features that a transform computes.
    """

    def __init__(self, folder: Path | str) -> None:
        path = Path(folder)
        settings = _read(path)
        file = path / str(settings.get("path", "model.onnx"))
        if path.resolve() not in file.resolve().parents:
            raise InvalidInput("its path leaves the folder", where=path / CARD, remedy=_REMEDY)
        _refuse_transforms(settings.get("transform"), path / CARD)
        # the rate of the models that audEERING publishes: the YAML names none
        about = {"sample_rate": SAMPLE_RATE, **_labels(settings.get("labels"))}
        remark = ""
        if are_dimensions(about.get("labels", ())):
            about["tolerance"], remark = default_tolerance(about["labels"])
        super().__init__(file, about=about)
        self.remark = remark
        self.name = path.resolve().name
        text = card_path(file).read_text("utf-8") if card_path(file).is_file() else ""
        self.has_rate = "sample_rate" in text

    @property
    def notes(self) -> tuple[str, ...]:
        assumed = (
            f"its files name no sample rate: {SAMPLE_RATE} Hz is assumed; say another in "
            f"{card_path(self.path).name}"
        )
        usual = (self.remark,) if self.remark and set(self.tolerance) == {TOLERANCE} else ()
        rate = () if self.has_rate else (assumed,)
        return (*super().notes, *rate, *usual)


def _read(folder: Path) -> Mapping[str, Any]:
    """The arguments of the model in ``model.yaml``, plain data."""
    with needs_extra("PyYAML", "audonnx"):
        import yaml
    path = folder / CARD
    if not path.is_file():
        raise InvalidInput(f"holds no {CARD}", where=folder, remedy=_REMEDY)
    try:
        table = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as problem:
        reason = printable(" ".join(str(problem).split()))[:200]
        raise InvalidInput(f"is no plain YAML ({reason})", where=path, remedy=_REMEDY) from problem
    key = next(iter(table), None) if isinstance(table, dict) else None
    settings = table[key] if isinstance(table, dict) and len(table) == 1 else None
    is_model = isinstance(key, str) and key.startswith("$audonnx") and ".Model" in key
    if not is_model or not isinstance(settings, dict):
        raise InvalidInput("describes no audonnx model", where=path, remedy=_REMEDY)
    return settings


def _refuse_transforms(transform: Any, where: Path) -> None:
    entries = transform.values() if isinstance(transform, dict) else [transform]
    if any(entry is not None for entry in entries):
        raise InvalidInput(
            f"takes features, not waveforms ({printable(str(transform))[:100]})",
            where=where,
            remedy="Name it as python:FILE.py:FACTORY, with a staanet.CallableVictim around audonnx",
        )


def _labels(labels: Any) -> dict[str, Any]:
    """Labels and the name of the output that they belong to; none where nothing says it."""
    if isinstance(labels, list):
        return {"labels": [str(label) for label in labels]}
    named = {
        str(output): [str(label) for label in words]
        for output, words in (labels.items() if isinstance(labels, dict) else ())
        if isinstance(words, list) and (len(words) > 1 or are_dimensions([str(w) for w in words]))
    }
    output = "logits" if "logits" in named else next(iter(named), "")
    if len(named) == 1 or output == "logits":
        return {"labels": named[output], "output": output}
    return {}
