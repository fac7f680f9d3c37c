"""Runs gallery scripts cell by cell and writes what each cell printed and which files it made.

python docs/hooks/run_scripts.py OUT SCRIPT...

A script is plain Python: a docstring with the title, then cells that begin with ``# %%``; the comment
lines below that mark are the cell's text. Each script runs in an empty folder. The pictures (PNG, SVG)
and sounds (WAV) that a cell leaves at the top of this folder are shown below the cell. All scripts run
in one process, because loading torch takes seconds. The first error ends the run with its traceback.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

SHOWN = (".png", ".svg", ".wav")
MARK = re.compile(r"^# %%.*\n", re.M)
PALETTE = ("VERMILION", "BLUE", "GREEN", "SKY")


@dataclass(frozen=True)
class Cell:
    """The text and the code of one cell, and the line where the code begins."""

    text: str
    code: str
    line: int


def read_script(path: Path) -> tuple[str, str, list[Cell]]:
    """Returns the title of a script, its introduction and its cells."""
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    title, _, introduction = docstring.partition("\n\n")
    cells = []
    marks = [*MARK.finditer(source)]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        lines = source[mark.end() : following.start() if following else None].splitlines()
        count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:count])
        first = source[: mark.end()].count("\n") + count
        cells.append(Cell(text, "\n".join(lines[count:]).strip("\n"), first))
    return title.rstrip("."), introduction, cells


@contextmanager
def captured(path: Path) -> Iterator[None]:
    """Everything that this process and its children print goes into a file."""
    sys.stdout.flush()
    before = os.dup(1)
    with path.open("w", buffering=1, encoding="utf-8") as stream, redirect_stdout(stream):
        os.dup2(stream.fileno(), 1)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(before, 1)
            os.close(before)


def run_script(path: Path, out: Path) -> None:
    """Runs the cells of a script, and writes ``cells.json`` and the files that are shown."""
    import torch

    torch.manual_seed(0)
    out.mkdir(parents=True)
    start, shown, results = processor_seconds(), dict[str, int](), []
    module = types.ModuleType("__main__")
    here, log = Path.cwd(), out / "printed.txt"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in read_script(path)[2]:
                code = "\n" * cell.line + cell.code
                with captured(log):
                    exec(compile(code, str(path), "exec"), module.__dict__)
                new = [name for name, age in _shown_files().items() if shown.get(name) != age]
                for name in new:
                    shutil.copy(name, out / name)
                shown = _shown_files()
                printed = log.read_text(encoding="utf-8").replace(folder, "")
                results.append({"printed": printed, "files": new})
        finally:
            os.chdir(here)
    log.unlink()
    seconds = round(processor_seconds() - start, 1)
    (out / "cells.json").write_text(json.dumps({"cells": results, "seconds": seconds}))


def processor_seconds() -> float:
    """Processor time of this process and of the programs that it ran."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _shown_files() -> dict[str, int]:
    paths = sorted(Path().iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return {path.name: path.stat().st_mtime_ns for path in paths if path.suffix in SHOWN}


def main(out: str, *scripts: str) -> None:
    """Runs scripts in turn; each gets a folder of its name."""
    import matplotlib

    matplotlib.use("agg")
    from staanet.report import chart_style

    inks = [getattr(chart_style, name) for name in PALETTE]
    cycle = {"axes.prop_cycle": matplotlib.cycler(color=inks), "savefig.transparent": True}
    matplotlib.rcParams.update({**chart_style.STYLE, **cycle})
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for script in scripts:
        run_script(Path(script).resolve(), Path(out).resolve() / Path(script).stem)


if __name__ == "__main__":
    main(*sys.argv[1:])
