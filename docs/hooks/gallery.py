"""mkdocs hook: runs ``docs/gallery/*.py`` and shows each as a page with its output.

``GALLERY=0 mkdocs serve`` shows the scripts without running them, for work on other pages.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

HOOKS = Path(__file__).parent
sys.path.insert(0, str(HOOKS))
from run_scripts import read_script  # noqa: E402

log = logging.getLogger("mkdocs.hooks.gallery")
SCRIPTS = HOOKS.parent / "gallery"
INTRODUCTION = """# Gallery

Each page is a short script with its output. The build of this site runs each script. The speech is
synthetic, and the models are small. Each script therefore takes seconds. The figures only illustrate
the methods. They say nothing about your model or about human speech.
"""


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each script, its pictures and sounds, and the page that lists them."""
    scripts = sorted(SCRIPTS.glob("*.py"))
    results = _run(scripts) if os.environ.get("GALLERY", "1") != "0" else {}
    listed = [INTRODUCTION]
    for script in scripts:
        name = script.stem
        content, assets = page_of(script, results.get(name))
        files.append(File.generated(config, f"gallery/{name}.md", content=content))
        for file, data in assets.items():
            files.append(File.generated(config, f"gallery/{name}/{file}", content=data))
        title, introduction, _ = read_script(script)
        summary = re.split(r"(?<=[.]) ", " ".join(introduction.split()))[0]
        listed.append(f"* [{title}]({name}.md): {summary}")
    content = listed[0] + "\n" + "\n".join(listed[1:]) + "\n"
    files.append(File.generated(config, "gallery/index.md", content=content))
    return files


def _run(scripts: list[Path]) -> dict[str, tuple[dict[str, Any], dict[str, bytes]]]:
    """Runs all scripts and returns the output of each. An error stops the build."""
    command = [sys.executable, str(HOOKS / "run_scripts.py")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, folder, *map(str, scripts)],
            env=environment,
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise PluginError(f"a script of the gallery failed:\n{done.stderr[-4000:]}")
        results = {}
        for script in scripts:
            out = Path(folder) / script.stem
            told = json.loads((out / "cells.json").read_text())
            log.info("gallery: %s took %s s", script.stem, told["seconds"])
            made = {path.name: path.read_bytes() for path in out.iterdir()}
            results[script.stem] = told, made
        return results


def page_of(script: Path, result: Any) -> tuple[str, dict[str, bytes]]:
    """Returns the Markdown of a page and the files of its output."""
    title, introduction, cells = read_script(script)
    parts, assets = [f"# {title}", introduction], dict[str, bytes]()
    for number, cell in enumerate(cells):
        parts.append(cell.text)
        if cell.code:
            parts.append(f"```python\n{cell.code}\n```")
        if result:
            told, made = result
            parts += printed_parts(told["cells"][number]["printed"])
            for file in told["cells"][number]["files"]:
                parts.append(shown_file(script.stem, file, made[file]))
                if not file.endswith(".svg"):
                    assets[file] = made[file]
    took = f" It took {result[0]['seconds']:.0f} s of one core here." if result else ""
    parts.append(f"[The script]({script.name}) runs anywhere with `python {script.name}`.{took}")
    return "\n\n".join(part for part in parts if part) + "\n", assets


def printed_parts(text: str) -> list[str]:
    """Returns printed text as Markdown blocks. Markdown tables stay tables.

    >>> printed_parts("a\\n| b |\\n|---|\\n| c |\\n")
    ['```text\\na\\n```', '| b |\\n|---|\\n| c |']
    """
    parts = []
    for block in re.findall(r"(?:^\|.*\n?)+|(?:^(?!\|).*\n?)+", text, re.M):
        bare = block.strip("\n")
        if bare:
            parts.append(bare if bare.startswith("|") else f"```text\n{bare}\n```")
    return parts


def shown_file(name: str, file: str, data: bytes) -> str:
    """Returns a picture or a sound as HTML. Drawings use the colours of the page."""
    from staanet.report.chart_style import inline_svg

    label = html.escape(Path(file).stem.replace("_", " "))
    if file.endswith(".svg"):
        drawing = inline_svg(data, f"{name}-{Path(file).stem}").replace(
            "<svg", f'<svg role="img" aria-label="{label}"', 1
        )
        drawing = re.sub(r"\n\s*\n", "\n", re.sub(r"<!--.*?-->", "", drawing, flags=re.S))
        return f'<div class="drawing">{drawing}</div>'
    if file.endswith(".wav"):
        player = f'<audio controls preload="none" src="{name}/{file}" aria-label="{label}"></audio>'
        return f'<figure class="sound"><figcaption>{label}</figcaption>{player}</figure>'
    return f'<img class="picture" src="{name}/{file}" alt="{label}">'
