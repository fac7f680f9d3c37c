"""mkdocs hook: splits ``bench/results.md`` into pages and adds a table and a figure to *Results*.

The hook reads every figure from the sections of ``bench/results.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[2] / "bench" / "results.md"
PAGES = {
    "runs": ("Whole runs", r"quick|emodb(?!_defences)|sex|speakers|How to read|egemaps"),
    "defences": ("Defences", r"emodb_defences|Defences"),
    "speed": ("Speed", r"Start|Speed|On a GPU"),
    "reliability": ("Reliability and first use", r"Reliability|A newcomer"),
    "strength": ("Attack strength and experiments", r""),
}
"""The title of each page and a pattern for its sections. The last page takes all other sections."""
HEADLINE = ("STAA-Net", "PGD, 20 steps, as many samples", "MI-FGSM", "random places")
SOURCE = "emo18"
"""The model on which the attacks of the opening table were crafted."""
LEADS = {
    "runs": "This page shows the figures of complete runs, one section per recipe.",
    "defences": "This page shows attacks on models with a defence.",
    "speed": "This page shows the speed of generators, attacks and training.",
    "reliability": "This page shows tests with killed processes, damaged files and new users.",
    "strength": "This page compares the strength of attacks and lists experiments.",
}
"""The first sentence of each page."""
SOURCE_OF_PAGES = (
    "The text comes from `bench/results.md`. Commands of `python -m bench` wrote that file. "
    "The page [Results](../results.md) shows a summary. "
    "The page [Concepts](../concepts.md) explains the terms."
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of details."""
    pages: dict[str, list[str]] = {name: [] for name in PAGES}
    for title, section in sections(RESULTS.read_text(encoding="utf-8"), "## "):
        pages[page_of(title)].append(section)
    for name, (title, _) in PAGES.items():
        lead = f"# {title}\n\n{LEADS[name]} {SOURCE_OF_PAGES}\n"
        content = "\n\n".join([lead, *pages[name]])
        files.append(File.generated(config, f"results/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Replaces each mark of a page by its table, figure or text."""
    found = dict(sections(RESULTS.read_text(encoding="utf-8"), "## "))
    for mark, text in FRAGMENTS.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", text(found))
    return markdown


def runs_table(found: dict[str, str]) -> str:
    """Returns a table of the complete runs with machine, commit and minutes."""
    lines = ["| recipe | machine | commit | total minutes |", "|---|---|---|---|"]
    for title, section in found.items():
        run = re.search(
            r"^The command `staanet run [^`]*` ran at commit `([\w-]+)` with (.*), torch [^,]*\. "
            r"The run took ([\d.]+) minutes",
            section,
            re.M,
        )
        if run:
            lines.append(f"| `{title}` | {run[2]} | `{run[1]}` | {run[3]} |")
    return "\n".join(lines)


def sections(text: str, mark: str) -> list[tuple[str, str]]:
    """The title and the text of each section, without comments."""
    bare = re.sub(r"<!--.*?-->\n?", "", text)
    parts = re.split(rf"^(?={mark})", bare, flags=re.M)[1:]
    return [(part.partition("\n")[0].removeprefix(mark).strip(), part.rstrip()) for part in parts]


def page_of(title: str) -> str:
    """The page of a section.

    >>> page_of("Reliability: load"), page_of("Ablations")
    ('reliability', 'strength')
    """
    return next(name for name, (_, begins) in PAGES.items() if re.match(begins, title))


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text, as rows of cells, the head first.

    >>> tables("| a | b |\\n|---|---|\\n| 1 | 2 |\\n")
    [[['a', 'b'], ['1', '2']]]
    """
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.M)
    rows = [[line.strip("|").split("|") for line in block.splitlines()] for block in blocks]
    return [
        [[cell.strip() for cell in row] for number, row in enumerate(table) if number != 1]
        for table in rows
    ]


def about_table(section: str) -> str:
    """Returns the text above the table: its command, clips, rows and columns."""
    command, clips = section.splitlines()[2], re.search(r"\d+ test clips of \d+ speakers", section)
    assert clips is not None, "the section names its clips"
    return (
        f"{command} The table shows {clips[0]}. Each row is one attack that was crafted on "
        f"`{SOURCE}`. Each column is a model that receives the adversarial clips. The cells show the "
        "fooling rate in per cent. The brackets hold the 95 % confidence interval, clustered by speaker."
    )


def about_control(section: str) -> str:
    """Returns the fooling rates of the control."""
    table = headline_rows(section)
    rates = [float(cell.split()[0]) for cell in table[-1][1:] if "[" in cell]
    return f"Random signs fool {min(rates):.0f} to {max(rates):.0f} % of the clips."


def headline_rows(section: str) -> list[list[str]]:
    """The main attacks on ``SOURCE`` in the table of the whole comparison, the head first."""
    table = next(table for table in tables(section) if table[0][:2] == ["attack", "source"])
    first, last = 2, table[0].index("density")
    rows = [row for row in table[1:] if row[1] == SOURCE and row[0].startswith(HEADLINE)]
    rows = [row for row in rows if "iteration" not in row[0]]
    keep = [0, *range(first, last), last, table[0].index("snr_db"), table[0].index("seconds")]
    head = [
        f"attack on {SOURCE}",
        *table[0][first:last],
        "changed samples",
        "SNR (dB)",
        "seconds per clip",
    ]
    cells = [[re.sub(r" \((white box|control|N \d+)\)", "", row[i]) for i in keep] for row in rows]
    return [head, *cells]


def headline_table(section: str) -> str:
    """The main attacks as Markdown."""
    head, *rows = ["| " + " | ".join(row) + " |" for row in headline_rows(section)]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


def about_figure(section: str) -> str:
    """Returns the text above the figure: its content, clips and command."""
    command = re.sub(r"(?<=[.]) .*", "", section.splitlines()[2])
    count = re.search(r"\d+ clips of \d+ speakers", section)
    assert count is not None, "the section names its clips"
    return (
        "The figure shows the fooling rate against the level of the change. It compares a generator, "
        f"gradient attacks and random signs on {count[0]}. The intervals are wide because there are few "
        "speakers. The page [Attack strength](results/strength.md#strength) shows the intervals. "
        f"{command}"
    )


def strength_figure(section: str) -> str:
    """Fooling against level, as a picture."""
    from staanet.report.chart_style import draw_picture

    curves = level_curves(tables(dict(sections(section, "### "))["On the source"])[0])
    alt = f"Fooling rate against the level of the change in dB, for {', '.join(curves)}"
    picture = draw_picture("strength", alt, 6.6, lambda width: _draw(curves, width))
    drawings = f'<div class="wide">{picture.wide}</div><div class="narrow">{picture.narrow}</div>'
    flat = re.sub(r"\n\s*\n", "\n", re.sub(r"<!--.*?-->", "", drawings, flags=re.S))
    return f'<div class="drawing" role="img" aria-label="{alt}">{flat}</div>'


def level_curves(table: list[list[str]]) -> dict[str, list[tuple[float, float]]]:
    """Fooling in per cent by level in dB, at the largest share of samples on the first source."""
    head, rows = table[0], [row for row in table[1:] if row[2]]
    most = max((row[3] for row in rows), key=lambda share: float(share.split()[0]))
    chosen = [row for row in rows if row[:2] == rows[0][:2] and row[3] == most]
    return {
        name: [(float(row[2]), float(row[index].split()[0])) for row in chosen]
        for index, name in enumerate(head)
        if index > 3 and all(row[index] for row in chosen)
    }


def _draw(curves: dict[str, list[tuple[float, float]]], width: float) -> Any:
    from matplotlib.figure import Figure

    from staanet.report.chart_style import FAINT
    from staanet.report.level_chart import COLOURS, MARKERS

    figure = Figure(figsize=(width, 3.2))
    axes = figure.subplots()
    inks = iter(zip(COLOURS * 4, MARKERS * 4, strict=True))
    for name, points in curves.items():
        ink, marker = (FAINT, "D") if name.startswith("random") else next(inks)
        x, y = zip(*points, strict=True)
        # dashes let an equal curve below be seen
        line = "--" if "pass" in name else "-"
        axes.plot(x, y, line, marker=marker, color=ink, markersize=4, label=name)
    axes.set_xticks(x)
    axes.set(
        xlabel="level of the change, dB relative to the speech",
        ylabel="fooling rate, %",
        ylim=(-3, 103),
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


FRAGMENTS: dict[str, Callable[[dict[str, str]], str]] = {
    "runs": runs_table,
    "about table": lambda found: about_table(found["emodb_full"]),
    "table": lambda found: headline_table(found["emodb_full"]),
    "control": lambda found: about_control(found["emodb_full"]),
    "about figure": lambda found: about_figure(found["Strength"]),
    "figure": lambda found: strength_figure(found["Strength"]),
}
"""Maps each mark to a function of the sections of ``bench/results.md``."""
