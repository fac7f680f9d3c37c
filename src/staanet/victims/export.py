"""A victim as an ONNX file for any runtime, proven equal before it is written."""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet import storage
from staanet.core import Victim
from staanet.defences import Defended
from staanet.errors import InvalidInput, MissingExtra, StaaNetError
from staanet.transforms import Filter, Quantise, Transform
from staanet.victims.external import OnnxCard, onnx_session

EXPORTABLE = ("emo18", "zhao19")
TOLERANCE = 1e-3


def export_onnx(victim: Victim, path: Path | str) -> float:
    """Write ``path`` and its card ``path.toml``; return the largest difference between logits.

    The file holds the whole function from waveforms ``[B, T]`` to logits ``[B, K]``, with its
    standardisation, for any batch and any length from ``minimum_samples``. Nothing is written where
    onnxruntime differs from torch by more than ``TOLERANCE`` on clips of several lengths. Filters and
    rounding before a victim go into the file too.
    """
    _require_exportable(victim)
    target = Path(path)
    model = _traced(victim)
    difference = largest_difference(victim, onnx_session(model, where=target))
    if not difference <= TOLERANCE:
        raise StaaNetError(
            f"the exported model differs from {victim.name} by {difference:.2g} in its logits; "
            f"{TOLERANCE:g} is allowed",
            where=target,
            remedy="This is a fault of the exporter; nothing was written",
        )
    card = OnnxCard(
        sample_rate=victim.sample_rate, labels=victim.labels, minimum_samples=victim.minimum_samples
    )
    storage.write_bytes(target, model)
    storage.write_text(target.with_name(f"{target.name}.toml"), _as_toml(card))
    return difference


def _require_exportable(victim: Victim) -> None:
    inner, chain = unwrapped(victim)
    if inner.architecture not in EXPORTABLE:
        raise InvalidInput(
            f"{victim.name} is a '{inner.architecture}' and cannot be exported",
            remedy=f"Give a victim of one of these kinds: {', '.join(EXPORTABLE)}",
        )
    for one in chain:
        if not isinstance(one, Filter | Quantise):
            why = "draws at random" if one.is_random else "has no counterpart in ONNX"
            raise InvalidInput(
                f"{victim.name} cannot be exported: its defence {one} {why}",
                remedy=f"Export {inner.name}, which is inside, and put {one.name} before it yourself",
            )


def unwrapped(victim: Victim) -> tuple[Victim, list[Transform]]:
    """The victim inside all defences, and what stands before it, the first first."""
    chain: list[Transform] = []
    while isinstance(victim, Defended):
        chain += victim.chain
        victim = victim.inner
    return victim, chain


def largest_difference(victim: Victim, session: Any) -> float:
    """Largest absolute difference of logits between torch and ONNX, over batches and lengths."""
    least, rate = victim.minimum_samples, victim.sample_rate
    drawn = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, time in (
        (1, least),
        (3, least + 1),
        (2, rate // 2 + 7),
        (1, rate),
        (3, 2 * rate + 1),
    ):
        x = 0.1 * torch.randn(batch, max(time, least), generator=drawn)
        (found,) = session.run(None, {"waveforms": x.numpy()})
        with torch.inference_mode():
            wanted = victim(x.to(victim.device)).cpu()
        worst = max(worst, float((torch.from_numpy(found) - wanted).abs().max()))
    return worst


class _Whole(nn.Module):
    """Full clips only: the exporter would make an input of ``lengths`` too. Filters are convolutions
    here: their product of spectra would be traced for clips of one length."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.chain = unwrapped(victim)

    def forward(self, waveforms: Tensor) -> Tensor:
        for one in self.chain:
            if isinstance(one, Filter):
                taps = one.taps(self.victim.sample_rate).to(waveforms)[None, None]
                waveforms = F.conv1d(waveforms[:, None], taps, padding=taps.shape[2] // 2)[:, 0]
                waveforms = waveforms.clamp(-1, 1)
            elif isinstance(one, Quantise):
                waveforms = one.round(waveforms)
        logits: Tensor = self.victim(waveforms)
        return logits


def _traced(victim: Victim) -> bytes:
    """By tracing: torch's newer exporter unrolls an LSTM to the length of its example."""
    try:
        import onnx  # noqa: F401
    except ImportError as problem:
        raise MissingExtra("onnx", "onnx") from problem
    buffer = io.BytesIO()
    example = torch.zeros(2, victim.minimum_samples + victim.sample_rate // 2)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of what a trace fixes; the comparison shows that it did not
        torch.onnx.export(
            _Whole(victim).eval(),
            (example.to(victim.device),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["waveforms"],
            output_names=["logits"],
            dynamic_axes={"waveforms": {0: "batch", 1: "time"}, "logits": {0: "batch"}},
        )
    return buffer.getvalue()


def _as_toml(card: OnnxCard) -> str:
    import tomli_w

    return tomli_w.dumps({**asdict(card), "labels": list(card.labels)})
