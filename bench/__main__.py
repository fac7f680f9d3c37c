"""``python -m bench runs/quick runs/emodb`` writes the figures of finished runs into results.md.

Start-up time is measured on the spot; everything else is read from the runs' own files, with the
recipe, commit and machine that their cards name. Runs that are not named keep their section. ``bench/notes.md`` is appended as it stands, and so is
``bench/speed.md``, which ``python -m bench speed`` writes. The other commands (``WORDS``, ``fuzz``, ``kill``,
``load`` and ``mutate``) write sections of their own, which the former keeps.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas

from bench import sections
from staanet.attacks import ATTACKS
from staanet.core import NO_CHANNEL
from staanet.evaluation.sweeps import MINIMISING
from staanet.results.run_folder import RunFolder
from staanet.results.transfer_tables import transfer_table

HERE = Path(__file__).parent
WORDS = (
    "ablations",
    "copies",
    "defences",
    "fidelity",
    "gpu",
    "hiding",
    "networks",
    "newcomer",
    "paired",
    "pictures",
    "quiet_budget",
    "selfcheck",
    "speed",
    "strength",
    "universal",
)
"""Commands with a module of their own."""


def main(runs: list[Path]) -> None:
    """Write ``bench/results.md``."""
    parts = [
        "# Results",
        "The commands `python -m bench ...` write this file. Do not edit the tables by hand.",
        start(),
    ]
    parts += (
        run_sections(sections.RESULTS) | {run_name(run): figures(run) for run in runs}
    ).values()
    speed = HERE / "speed.md"
    if speed.exists():
        parts.append(speed.read_text(encoding="utf-8").strip())
    notes = HERE / "notes.md"
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8").strip())
    if sections.RESULTS.exists():
        parts += sections.kept(sections.RESULTS.read_text(encoding="utf-8"))
    (HERE / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def run_sections(results: Path) -> dict[str, str]:
    """The sections of runs that were written before, by the name of their recipe, in their order."""
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    return {
        found["name"]: found[0].strip()
        for found in re.finditer(
            r"^## (?P<name>\S+)\n\nThe command `staanet run .*?(?=^## |^<!-- |\Z)",
            text,
            re.M | re.S,
        )
    }


def run_name(run: Path) -> str:
    """The name of a run's recipe."""
    return str(read(run / "card.json")["recipe"])


def start(repeats: int = 9) -> str:
    """Seconds that import and --help take beyond a bare interpreter, paired, as medians."""
    rows = []
    for name, code in (
        ("import staanet", ["-c", "import staanet"]),
        ("staanet --help", ["-m", "staanet", "--help"]),
    ):
        beyond = [seconds(code) - seconds(["-c", "pass"]) for _ in range(repeats)]
        rows.append(
            f"| `{name}` | {statistics.median(beyond):.2f} | {min(beyond):.2f} to {max(beyond):.2f} |"
        )
    head = "| command | seconds beyond a bare interpreter (median) | range |\n|---|---|---|"
    about = f"The table compares {repeats} pairs of a command and a bare Python interpreter."
    return "\n".join([f"## Start\n\n{about}\n", head, *rows])


def seconds(code: list[str]) -> float:
    """How long an interpreter with these arguments takes."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *code], check=True, capture_output=True)
    return time.perf_counter() - begun


def figures(run: Path) -> str:
    """A run's victims, transfer matrix, times and flags."""
    card, summary = read(run / "card.json"), read(run / "results" / "summary.json")
    command = re.sub(r"corpus=(\w+):\S+", r"corpus=\1:PATH", card["command"])
    command = re.sub(r"--out \S+", f"--out runs/{card['recipe']}", command)  # wherever it lay
    lines = [
        f"## {card['recipe']}",
        f"The command `{command}` ran at commit `{card['commit']}` with {card['machine']}. "
        f"The run took {sum(card['seconds'].values()) / 60:.1f} minutes in total.",
        "| victim | test UAR | dev UAR |\n|---|---|---|\n"
        + "\n".join(
            f"| {name} | {told['test_uar']:.3f} | {told['dev_uar']:.3f} |"
            for name, told in (
                (p.parent.name, read(p)) for p in sorted(run.glob("victims/*/card.json"))
            )
        ),
        "The fooling rate is the share of clips with a changed prediction. The 95 % interval is clustered "
        f"by speaker. The test part has {summary['cells'][0]['count']} test clips of "
        f"{summary['cells'][0]['speakers']} speakers.",
        transfer_table(RunFolder.read(run).cells).to_markdown().strip(),
        "| stage | seconds |\n|---|---|\n"
        + "\n".join(f"| {stage} | {took:.1f} |" for stage, took in card["seconds"].items()),
    ]
    lines += comparisons(run, summary) + fewest(run, summary) + checked(run)
    return "\n\n".join([*lines, *warnings(summary["flags"])])


WEAK = re.compile(r"(.+) from (\S+) fools (.+) no more often than the (.+)")


def warnings(flags: list[str]) -> list[str]:
    """The flags of a run: a table of weak attacks, and a line for each other flag.

    >>> warnings(["PGD from a fools b and c no more often than the random control", "few clips"])[0]
    '| attack | source | target | fools no more clips than |\\n|---|---|---|---|\\n| PGD | a | b and c | random control |'
    """
    weak = [found for flag in flags if (found := WEAK.fullmatch(flag))]
    rows = [f"| {' | '.join(found.groups())} |" for found in weak]
    table = as_table("| attack | source | target | fools no more clips than |", rows)
    return table + [f"* Warning: {flag}" for flag in flags if not WEAK.fullmatch(flag)]


def comparisons(run: Path, summary: dict[str, Any]) -> list[str]:
    """For each attack made with as many samples as another: how the other compares, white box."""
    matched = {
        (told["attack"], told["source"]): str(told["matched"]).partition("__")[0]
        for told in (read(path) for path in sorted(run.glob("adversarial/*/card.json")))
        if told.get("matched")
    }
    white = {(c["attack"], c["source"]): c for c in on_itself(summary)}
    lines = []
    for (attack, source), other in matched.items():
        if (attack, source) not in white:  # an ensemble has no answer of its own in the matrix
            continue
        one, against = white[other, source], white[attack, source]
        rates = [c["fooling_rate"]["value"] for c in (one, against)]
        if one["count"] == against["count"] and rates[1] and not against["control"]:
            times = against["seconds_median"] / one["seconds_median"]
            lines.append(
                f"| {one['title']} | {against['title']} | {source} | {rates[0] / rates[1]:.2f} | 1/{times:.0f} |"
            )
    return as_table(
        "| attack | compared with | source | ratio of fooling rates | ratio of times per clip |",
        lines,
    )


def as_table(head: str, rows: list[str]) -> list[str]:
    """A Markdown table as one paragraph; nothing without rows.

    >>> as_table("| a | b |", ["| 1 | 2 |"]), as_table("| a |", [])
    (['| a | b |\\n|---|---|\\n| 1 | 2 |'], [])
    """
    rule = "|" + "---|" * (head.count("|") - 1)
    return ["\n".join([head, rule, *rows])] if rows else []


def on_itself(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of attacks on the very victim that they were crafted on, without a channel."""
    return [
        c
        for c in summary["cells"]
        if c["source"] == c["target"] and c.get("channel", NO_CHANNEL) == NO_CHANNEL
    ]


def fewest(run: Path, summary: dict[str, Any]) -> list[str]:
    """Of attacks that look for the fewest samples, white box: the median share that they changed."""
    rows = pandas.read_parquet(run / "results" / "results.parquet")
    rows = rows[(rows.source == rows.target) & (rows.channel == NO_CHANNEL)]
    looking = {ATTACKS[name].__name__.lower() for name in MINIMISING}
    medians = rows.groupby(["attack", "source"]).density.median()
    lines = [
        f"| {c['title']} | {c['source']} | {100 * c['fooling_rate']['value']:.1f} % of {c['count']} "
        f"| {100 * medians[c['attack'], c['source']]:.3f} % |"
        for c in on_itself(summary)
        if c["algorithm"] in looking
    ]
    return as_table("| attack | source | fooled clips | median density |", lines)


def checked(run: Path) -> list[str]:
    """What ``staanet selfcheck`` found in the run, where it was asked."""
    if not (run / "selfcheck.json").exists():
        return []
    verdicts = Counter(check["verdict"] for check in read(run / "selfcheck.json")["checks"])
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    return [f"* `staanet selfcheck` made {sum(verdicts.values())} checks: {told}."]


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


if __name__ == "__main__":
    from bench import reliability

    if sys.argv[1:2] and sys.argv[1] in WORDS:
        importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
    elif not reliability.main(sys.argv[1:]):
        main([Path(argument) for argument in sys.argv[1:]])
