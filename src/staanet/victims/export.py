"""Exports a victim as an ONNX file for any runtime, after comparing its logits with torch's."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet import storage
from staanet.core import Victim
from staanet.defences import Defended
from staanet.errors import InvalidInput, StaaNetError, needs_extra
from staanet.transforms import Filter, Quantise, Transform
from staanet.victims.model_card import ModelCard
from staanet.victims.onnx import onnx_session

EXPORTABLE = ("emo18", "zhao19")
TOLERANCE = 1e-3
PRODUCER = b"staanet"
"""Names us as the producer, in the ONNX file and in its card."""


def export_onnx(victim: Victim, path: Path | str) -> float:
    """Write ``path`` and its card ``path.toml``; return the largest difference between logits.

    The file holds the whole function from waveforms ``[B, T]`` to logits ``[B, K]``, including the
    standardisation, for any batch and any length from ``minimum_samples``. Filters and rounding in
    front of a victim go into the file too. Raises ``InvalidInput`` where a part cannot be exported or a
    file of somebody else is in the way, and ``StaaNetError`` where onnxruntime differs from torch by more
    than ``TOLERANCE``.
    """
    _require_exportable(victim)
    target = Path(path)
    card_path = target.with_name(f"{target.name}.toml")
    for file in (target, card_path):
        storage.refuse_foreign(file, PRODUCER)
    model = _trace(victim)
    difference = largest_difference(victim, onnx_session(model, where=target))
    if not difference <= TOLERANCE:
        raise StaaNetError(
            f"the exported model differs from {victim.name} by {difference:.2g} in its logits; "
            f"{TOLERANCE:g} is allowed",
            where=target,
            remedy="This is a fault of the exporter; nothing was written",
        )
    card = ModelCard(
        sample_rate=victim.sample_rate, labels=victim.labels, minimum_samples=victim.minimum_samples
    )
    storage.write_bytes(target, model)
    text = f"# written by {PRODUCER.decode()} export\n{card.as_toml()}"
    storage.write_text(card_path, text)
    return difference


def _require_exportable(victim: Victim) -> None:
    inner, chain = unwrap(victim)
    if inner.architecture not in EXPORTABLE:
        raise InvalidInput(
            f"{victim.name} is a '{inner.architecture}' and cannot be exported",
            remedy=f"Give a victim of one of these kinds: {', '.join(EXPORTABLE)}",
        )
    for transform in chain:
        if not isinstance(transform, Filter | Quantise):
            why = "draws at random" if transform.is_random else "has no counterpart in ONNX"
            raise InvalidInput(
                f"{victim.name} cannot be exported: its defence {transform} {why}",
                remedy=f"Export {inner.name}, which is inside, and put {transform.name} before it yourself",
            )


def unwrap(victim: Victim) -> tuple[Victim, list[Transform]]:
    """The victim inside all defences, and the transforms in front of it in their order."""
    chain: list[Transform] = []
    while isinstance(victim, Defended):
        chain += victim.chain
        victim = victim.inner
    return victim, chain


def largest_difference(victim: Victim, session: Any) -> float:
    """The largest absolute difference of logits between torch and ONNX, over batches and lengths."""
    shortest, rate = victim.minimum_samples, victim.sample_rate
    generator = torch.Generator().manual_seed(0)
    difference = 0.0
    for batch, time in (
        (1, shortest),
        (3, shortest + 1),
        (2, rate // 2 + 7),
        (1, rate),
        (3, 2 * rate + 1),
    ):
        x = 0.1 * torch.randn(batch, max(time, shortest), generator=generator)
        (outputs,) = session.run(None, {"waveforms": x.numpy()})
        with torch.inference_mode():
            expected = victim(x.to(victim.device)).cpu()
        difference = max(difference, float((torch.from_numpy(outputs) - expected).abs().max()))
    return difference


class _WaveformsToLogits(nn.Module):
    """The function to export, without ``lengths``, of which the exporter would make an input.

    Filters are convolutions here: their product of spectra would be traced for clips of one length.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.chain = unwrap(victim)

    def forward(self, waveforms: Tensor) -> Tensor:
        for transform in self.chain:
            if isinstance(transform, Filter):
                taps = transform.taps(self.victim.sample_rate).to(waveforms)[None, None]
                waveforms = F.conv1d(waveforms[:, None], taps, padding=taps.shape[2] // 2)[:, 0]
                waveforms = waveforms.clamp(-1, 1)
            elif isinstance(transform, Quantise):
                waveforms = transform.round(waveforms)
        logits: Tensor = self.victim(waveforms)
        return logits


def _trace(victim: Victim) -> bytes:
    """The ONNX file by tracing: torch's newer exporter unrolls an LSTM to the length of its example."""
    with needs_extra("onnx", "onnx"):
        import onnx
    buffer = io.BytesIO()
    example = torch.zeros(2, victim.minimum_samples + victim.sample_rate // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what a trace fixes: the comparison finds that
        torch.onnx.export(
            _WaveformsToLogits(victim).eval(),
            (example.to(victim.device),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["waveforms"],
            output_names=["logits"],
            dynamic_axes={"waveforms": {0: "batch", 1: "time"}, "logits": {0: "batch"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.producer_name = PRODUCER.decode()
    return bytes(model.SerializeToString())
