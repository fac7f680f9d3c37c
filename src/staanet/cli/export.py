"""The command ``export``: writes a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from staanet.cli.app import command
from staanet.cli.options import Output
from staanet.cli.printing import finish
from staanet.cli.progress import Bars


@command("export", "staanet export runs/quick/generators/emo18 --out emo18.onnx")
def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Folder of a generator, or of a victim emo18 or zhao19."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="ONNX file to write. The card of a victim is written to FILE.toml.")
    ],
    output: Output,
) -> None:
    """Export a model as an ONNX file and compare it with torch.

    The ONNX file accepts clips of any length. Name an exported victim as onnx:FILE.
    staanet.generators.runtime runs an exported generator without torch.
    """
    from staanet import pipeline, storage, victims
    from staanet.victims.export import export_onnx

    result: dict[str, Any]
    with Bars.shown() as progress:
        progress("export", 0, 1, "")
        if storage.holds(model, "generator"):
            result = pipeline.export_generator(model, out)
            text = (
                f"{result['differing']} of {result['changed']} changed samples differ from torch's"
            )
        else:
            result = {"difference": export_onnx(victims.load_victim(model), out)}
            text = f"logits differ by at most {result['difference']:.1e}"
        progress("export", 1, 1, "")
    finish(output, {"out": str(out), **result}, [f"{text} -> {out}"])
