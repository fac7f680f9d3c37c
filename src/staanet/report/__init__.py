"""Makes one HTML page with sound, tables and charts from results on disk; loads no model, no attack.

``build`` reads a run folder and checks every figure against the audio files. It writes
``report/index.html`` (self-contained), ``report/figures/`` (PNG, SVG and PDF), ``matrix.md`` and
``matrix.tex``, and all tables as ``tables.md`` and ``tables.tex``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staanet import storage
from staanet.core import Progress, Samples, silent

if TYPE_CHECKING:
    from staanet.report.citation import Citation
    from staanet.report.headlines import Headline
    from staanet.report.page import Charts
    from staanet.results.run_folder import RunFolder

__all__ = [
    "build",
    "cite",
    "draw_certificate",
    "draw_clips",
    "draw_roc",
    "draw_sweep",
    "read_doubts",
    "write_audit",
]

STALE = (
    '<p role="alert" class="flags"><strong>This report is older than the results beside it.</strong> '
    "Run staanet report again.</p>"
)
"""The notice on a page whose results have changed."""


def build(run: Path | str, progress: Progress = silent, clips: int = 4) -> Path:
    """Writes the report of the folder ``run`` and returns the path of its page.

    Shows ``clips`` fooled clips and one that was not fooled. Raises ``InvalidInput`` where there are
    no results, where a figure is not that of the files, or where ``report/`` holds a file of the same name
    that staanet did not write; then nothing is written.
    """
    from staanet.report.clip_view import clip_views
    from staanet.report.headlines import headlines
    from staanet.report.page import render_page
    from staanet.report.verify import verify
    from staanet.results.run_folder import RunFolder

    results, out = RunFolder.read(Path(run)), Path(run) / "report"
    unverified = verify(results, progress)
    leads = headlines(results)
    views = clip_views(results, leads[0], clips, progress)
    charts = _charts(results, leads[0])
    html = render_page(results, leads, views, charts, unverified)
    figures = {f"clip-{view.example.id}.png": view.png for view in views} | _chart_files(charts)
    with storage.FolderLock(out):
        for path in set((out / "figures").glob("clip-*.png")):
            if path.name not in figures:  # a clip of an earlier report
                storage.remove(path)
        for name, data in figures.items():
            storage.write_bytes(out / "figures" / name, data)
        _write_tables(results, leads, out)
        storage.write_text(out / "index.html", html)
    return out / "index.html"


def read_doubts(run: Path | str) -> list[str]:
    """Returns what the headlines of a finished run say of a budget that tells nothing of its attack."""
    from staanet.report.budget_doubts import doubt_text
    from staanet.report.headlines import headlines
    from staanet.results.run_folder import RunFolder

    results = RunFolder.read(Path(run))
    return [text for lead in headlines(results) if (text := doubt_text(results, lead))]


def cite(run: Path | str, progress: Progress = silent) -> Citation:
    """Returns what the run in a folder measured, ready to be quoted; writes nothing.

    Raises ``InvalidInput`` as ``build`` does: only figures that the files bear out are quoted.
    """
    from staanet.report import citation
    from staanet.report.flags import run_flags
    from staanet.report.headlines import headlines
    from staanet.report.verify import verify
    from staanet.results.run_folder import RunFolder

    results = RunFolder.read(Path(run))
    unverified = verify(results, progress)
    return citation.cite(results, tuple(run_flags(results, headlines(results), unverified)))


def _charts(run: RunFolder, lead: Headline) -> Charts:
    from staanet.report.charts import forest_chart, heat_map_chart, time_chart
    from staanet.report.headlines import cells_of_equal_size, compared_cells
    from staanet.report.page import Charts
    from staanet.report.sweep_charts import draw_chart
    from staanet.report.sweep_tables import read_all
    from staanet.report.training_charts import generator_curves, victim_curves

    return Charts(
        forest=forest_chart(compared_cells(run, lead)),
        heat=heat_map_chart(run),
        time=time_chart(cells_of_equal_size(run, lead)),
        victims=victim_curves(run.victims),
        generators=generator_curves(run.generators),
        sweeps=[draw_chart(sweep) for sweep in read_all(run.folder)],
    )


def _chart_files(charts: Charts) -> dict[str, bytes]:
    trained = charts.victims, charts.generators
    pictures = (charts.forest, charts.heat, charts.time, *trained, *charts.sweeps)
    return {
        f"{picture.name}.{kind}": data
        for picture in pictures
        if picture
        for kind, data in (("png", picture.png), ("svg", picture.svg), ("pdf", picture.pdf))
    }


def _write_tables(run: RunFolder, leads: Sequence[Headline], out: Path) -> None:
    from staanet.report import tables
    from staanet.results.transfer_tables import effects_table, transfer_table

    matrix = transfer_table(run.cells)
    optional = [tables.defence_table(run), tables.channel_table(run), tables.perceptual_table(run)]
    shown = [matrix, effects_table(run.cells), *(table for table in optional if table.rows)]
    storage.write_text(out / "matrix.md", "\n".join(table.to_markdown() for table in shown))
    storage.write_text(out / "matrix.tex", matrix.to_latex())
    every = tables.result_tables(run, [lead.cell for lead in leads])
    storage.write_text(out / "tables.md", "\n".join(table.to_markdown() for table in every))
    storage.write_text(out / "tables.tex", "\n".join(table.to_latex() for table in every))


def mark_if_stale(run: Path | str) -> bool:
    """Writes a warning into the page of a run whose results have changed since it was built.

    Returns whether the page is older than the results. A run without a page is left alone.
    """
    page, summary = Path(run) / "report" / "index.html", Path(run) / "results" / "summary.json"
    if not (page.is_file() and summary.is_file()):
        return False
    html = page.read_text(encoding="utf-8")
    if f'<meta name="results" content="{storage.sha256(summary)}">' in html:
        return False
    if storage.PAGE_MARK.decode() not in html:  # a page of somebody else
        return False
    if STALE not in html:
        storage.write_text(page, html.replace("<body>", f"<body>\n{STALE}", 1))
    return True


def draw_clips(folder: Path, pairs: Iterable[tuple[str, Samples, Samples, int]]) -> list[Path]:
    """Draws pairs ``(id, clean, adversarial, sample rate)`` into the ``pictures/`` of a set."""
    from staanet.report.clip_pictures import triptych_picture

    paths = []
    for name, clean, adversarial, rate in pairs:
        paths.append(folder / "pictures" / f"{name}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        storage.write_bytes(paths[-1], triptych_picture(clean, adversarial, rate))
    return paths


def draw_sweep(folder: Path, source: str) -> None:
    """Writes ``sweep.png``, ``.svg`` and ``.pdf`` beside the tables of a sweep in ``folder``."""
    from staanet.report.sweep_charts import write
    from staanet.report.sweep_tables import read_tables

    write(folder, read_tables(folder, source))


def write_audit(out: Path, results: Mapping[str, Any], progress: Progress = silent) -> None:
    """Writes ``audit.md`` and ``audit.html`` of the results of an audit into its folder ``out``."""
    from staanet.report.audit_pages import audit_markdown, audit_page
    from staanet.report.audit_view import audit_view
    from staanet.results.run_folder import RunFolder

    view = audit_view(RunFolder.read(out, kind="audit"), results, progress)
    storage.write_text(out / "audit.md", audit_markdown(results))
    storage.write_text(out / "audit.html", audit_page(results, view))


def draw_certificate(path: Path, results: Mapping[str, Any]) -> None:
    """Writes the curve of certified accuracy against radius as PNG."""
    from staanet.report.detector_charts import certificate_chart

    storage.write_bytes(path, certificate_chart(results))


def draw_roc(path: Path, results: Mapping[str, Any]) -> None:
    """Writes the ROC curves of a detector, one per attack, as PNG."""
    from staanet.report.detector_charts import roc_chart

    storage.write_bytes(path, roc_chart(results))
