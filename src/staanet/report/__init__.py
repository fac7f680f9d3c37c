"""From results on disk to one HTML page with sound; never touches a model or an attack.

``build`` reads a run folder, holds every figure against the audio files, and writes
``report/index.html`` (self-contained), ``report/figures/`` (PNG, SVG and
PDF), ``matrix.md``, ``matrix.tex`` and, with all tables, ``tables.md`` and ``tables.tex``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staanet import storage
from staanet.core import Progress, Samples, silent

if TYPE_CHECKING:
    from staanet.report.page import ClipView
    from staanet.report.story import Headline
    from staanet.results.run_folder import RunFolder

__all__ = [
    "audit_pages",
    "audit_words",
    "build",
    "draw_certificate",
    "draw_clips",
    "draw_roc",
    "draw_sweep",
]


def build(run: Path | str, progress: Progress = silent, clips: int = 4) -> Path:
    """Write the report of the folder ``run`` and return the path of its page.

    Shows ``clips`` fooled clips and one that held. Raises ``InvalidInput`` where there are no
    results, or where a figure is not that of the files, and then writes nothing.
    """
    from staanet.report import figures, page, story, sweeps, tables
    from staanet.report.verify import verify
    from staanet.results.run_folder import RunFolder
    from staanet.results.transfer_tables import effects_table, transfer_table

    found = RunFolder.read(Path(run))
    unverified = verify(found, progress)
    leads = story.headlines(found)
    views = _views(found, leads[0], clips, progress)
    drawn = page.Drawn(
        forest=figures.forest(story.compared(found, leads[0])),
        heat=figures.heat_map(found),
        victims=figures.victim_curves(found.victims),
        generators=figures.generator_curves(found.generators),
        sweeps=[sweeps.chart(swept) for swept in sweeps.of_run(Path(run))],
    )
    html = page.render(found, leads, views, drawn, unverified)
    files: dict[str, bytes] = {f"clip-{view.shown.id}.png": view.png for view in views}
    charts = (drawn.forest, drawn.heat, drawn.victims, drawn.generators)
    for picture in (*charts, *drawn.sweeps):
        if picture:
            kinds = {"png": picture.png, "svg": picture.svg, "pdf": picture.pdf}
            files |= {f"{picture.name}.{kind}": data for kind, data in kinds.items()}
    out = Path(run) / "report"
    for old in set((out / "figures").glob("clip-*.png")) - {
        out / "figures" / name for name in files
    }:
        storage.remove(old)  # a clip of an earlier report, which this one does not show
    for name, data in files.items():
        storage.write_bytes(out / "figures" / name, data)
    matrix = [t.to_markdown() for t in (transfer_table(found.cells), effects_table(found.cells))]
    more = [
        t for t in (tables.defences(found), tables.channels(found), tables.sounds(found)) if t.rows
    ]
    matrix += [t.to_markdown() for t in more]
    storage.write_text(out / "matrix.md", "\n".join(matrix))
    storage.write_text(out / "matrix.tex", transfer_table(found.cells).to_latex())
    every = tables.every(found, [lead.cell for lead in leads])
    storage.write_text(out / "tables.md", "\n".join(t.to_markdown() for t in every))
    storage.write_text(out / "tables.tex", "\n".join(t.to_latex() for t in every))
    storage.write_text(out / "index.html", html)
    return out / "index.html"


def draw_clips(folder: Path, pairs: Iterable[tuple[str, Samples, Samples, int]]) -> list[Path]:
    """Pictures of pairs ``(id, clean, adversarial, sample rate)`` into the ``pictures/`` of a set."""
    from staanet.report import spectra

    drawn = []
    for name, clean, adversarial, rate in pairs:
        drawn.append(folder / "pictures" / f"{name}.png")
        drawn[-1].parent.mkdir(exist_ok=True)
        storage.write_bytes(drawn[-1], spectra.triptych(clean, adversarial, rate))
    return drawn


def draw_sweep(folder: Path, source: str) -> None:
    """Write ``sweep.png``, ``.svg`` and ``.pdf`` beside the tables of a sweep in ``folder``."""
    from staanet.report import sweeps

    sweeps.write(folder, sweeps.tables_of(folder, source))


def audit_pages(out: Path, told: Mapping[str, Any]) -> None:
    """Write ``audit.md`` and ``audit.html`` of what an audit found into ``out``."""
    from staanet.report import audit

    storage.write_text(out / "audit.md", audit.markdown(told))
    storage.write_text(out / "audit.html", audit.page(told))


def audit_words(told: Mapping[str, Any]) -> list[str]:
    """The verdict of an audit in plain sentences."""
    from staanet.report import audit

    return audit.verdict(told)


def draw_certificate(path: Path, told: Mapping[str, Any]) -> None:
    """Write the curve of certified accuracy against radius as PNG."""
    from staanet.report import guards

    storage.write_bytes(path, guards.certificate(told))


def draw_roc(path: Path, told: Mapping[str, Any]) -> None:
    """Write the ROC curves of a detector, one per attack, as PNG."""
    from staanet.report import guards

    storage.write_bytes(path, guards.roc(told))


def _views(run: RunFolder, lead: Headline, number: int, progress: Progress) -> list[ClipView]:
    from staanet.report import page, spectra, story
    from staanet.report.verify import measure

    chosen = story.choose_clips(run, lead, number)
    ids = [clip.id for clip in chosen]
    answers = run.probabilities(lead.cell.key, ids) if ids else {}
    views = []
    for done, clip in enumerate(chosen, start=1):
        pair = run.sets[lead.cell.key].pair(clip.id)
        clean, adversarial, rate = pair.clean.pcm16, pair.adversarial, pair.clean.sample_rate
        end = round(page.EXCERPT_S * rate)
        views.append(
            page.ClipView(
                shown=clip,
                clean=clean[:end],
                adversarial=adversarial[:end],
                sample_rate=rate,
                whole_seconds=len(clean) / rate,
                distances=measure(clean, adversarial),
                png=spectra.triptych(clean[:end], adversarial[:end], rate),
                answers={
                    target: both for (name, target), both in answers.items() if name == clip.id
                },
            )
        )
        progress("draw clips", done, len(chosen), "")
    return views
