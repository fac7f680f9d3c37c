"""Stages that write a line each, for tests of worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from staanet import storage
from staanet.core import Clip
from staanet.errors import InvalidInput
from staanet.pipeline import Context, Stage
from staanet.pipeline.stage import Inputs, NotReady


def sums(out: Path, context: Context) -> Iterator[Stage]:
    """``both`` needs ``left`` and ``right``, and stands before them."""
    yield _stage(out, context, "both", needs=("left", "right"))
    yield _stage(out, context, "left")
    yield _stage(out, context, "right")
    yield Stage(name="last", folder=out, kind="sum", inputs=None, work=lambda _: None)


def refused(out: Path, context: Context) -> Iterator[Stage]:
    """A stage that the user has to correct."""

    def work(_: Inputs) -> None:
        raise InvalidInput("no clips", where=out, remedy="Add clips")

    yield Stage(name="refused", folder=out / "refused", kind="sum", inputs=dict, work=work)


def killed(out: Path, context: Context) -> Iterator[Stage]:
    """A stage whose process is killed, as for its memory."""
    kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    yield Stage(name="killed", folder=out / "killed", kind="sum", inputs=dict, work=kill)


def _stage(out: Path, context: Context, name: str, needs: tuple[str, ...] = ()) -> Stage:
    def inputs() -> Inputs:
        for other in needs:
            if not (out / other / storage.CARD).exists():
                raise NotReady(other)
        return {"name": name}

    return Stage(
        name=name,
        folder=out / name,
        kind="sum",
        inputs=inputs,
        work=partial(_write, out / name, context, name),
    )


def _write(folder: Path, context: Context, name: str, inputs: Inputs) -> None:
    context.progress(name, 1, 1, "")
    context.quarantine.put({"id": "noise", "file": "noise.wav", "reason": "no speech"})
    context.quarantine.recordings.add(Clip(name, [], 8000, notes=("clipped",)))  # type: ignore[arg-type]
    context.quarantine.recordings.add(Clip("same", [], 8000, notes=("clipped",)))  # type: ignore[arg-type]
    storage.write_card(folder, {"kind": "sum", "inputs": dict(inputs), "pid": os.getpid()})
