"""Text for citing a run: one paragraph with its figures, and BibTeX entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from staanet.core.metrics import Estimate
from staanet.report.headlines import Headline, headlines, is_matched
from staanet.results import formatting
from staanet.results.cells import Cell
from staanet.results.formatting import number, percent, quantity
from staanet.results.run_folder import RunFolder
from staanet.results.transfer_tables import trainings_text

PAPER = """@article{chang2024staanet,
  author  = {Chang, Yi and Ren, Zhao and Zhang, Zixing and Jing, Xin and Qian, Kun and Shao, Xi and Hu, Bin
             and Schultz, Tanja and Schuller, Bj{\\"o}rn W.},
  title   = {{STAA-Net}: A Sparse and Transferable Adversarial Attack for Speech Emotion Recognition},
  journal = {IEEE Transactions on Affective Computing},
  year    = {2024},
  note    = {arXiv:2402.01227}
}"""


@dataclass(frozen=True, slots=True)
class Citation:
    """How to cite a run: a paragraph, warnings and BibTeX."""

    text: str
    """One paragraph in English with every figure that a reader needs."""
    warnings: tuple[str, ...]
    """Sentences that a reader must know before the result."""
    bibtex: str


def cite(run: RunFolder, warnings: tuple[str, ...] = ()) -> Citation:
    """Returns the citation of a run whose figures were checked; of several sources it cites the first."""
    return Citation(" ".join(_sentences(run, headlines(run)[0])), warnings, _bibtex(run))


def _sentences(run: RunFolder, headline: Headline) -> Iterator[str]:
    cell, control = headline.cell, headline.control
    yield (
        f"{_test_set(run, cell)}, {cell.title} changed the answers of {cell.target} on "
        f"{_rate_text(cell.fooling_rate)}."
    )
    if spread := trainings_text(cell):
        yield f"Its generator was also trained from other seeds ({spread} percentage points)."
    yield (
        f"It was crafted on {cell.source}{', the same model,' if cell.white_box else ''} and could change "
        f"{formatting.describe_budget(cell.budget)}. It changed {percent(cell.mean.density)} of the "
        f"samples, at a mean SNR of {number(cell.mean.snr_db, 1, 'dB')}."
    )
    if control is not None:
        alike = " of as many samples" if is_matched(run, control, cell) else ""
        yield (
            f"Random changes{alike} changed the answers of {cell.target} on "
            f"{_rate_text(control.fooling_rate)}{_margin_text(cell)}."
        )
    before, after = cell.uar_before, cell.uar_after
    yield (
        f"The unweighted average recall of {cell.target} fell from {percent(before.value)} to "
        f"{percent(after.value)} (95 % interval {formatting.interval(after)})."
    )
    for other in run.cells:
        if other.key == cell.key and other.target != cell.target:
            yield (
                f"The same files changed the answers of {other.target} on "
                f"{_rate_text(other.fooling_rate)}."
            )
    yield (
        "The intervals are clustered by speaker. All figures were measured on 16-bit files with "
        f"{_versions(run.card)}."
    )


def _test_set(run: RunFolder, cell: Cell) -> str:
    corpus = run.card.get("corpus") or {}
    name = f" of {corpus['name']}" if corpus.get("name") else ""
    clips, speakers = cell.fooling_rate.count, cell.fooling_rate.clusters
    folds = len(run.summary.get("folds") or ())
    protocol = f" ({folds}-fold cross-validation by speaker)" if folds else " (the test part)"
    start = f"On {quantity(clips, 'clip')} by {quantity(speakers, 'speaker')}{name}"
    return start + (protocol if corpus else "")


def _rate_text(rate: Estimate) -> str:
    """Returns a rate with its interval and N."""
    return f"{percent(rate.value)} of clips (95 % interval {formatting.interval(rate)}, N = {rate.count:,})"


def _margin_text(cell: Cell) -> str:
    """Returns how far the attack is above its control, as the end of a sentence; may be empty."""
    above = cell.above_control
    if above is None or above.difference.value is None or above.difference.low is None:
        return ""
    value, low, high = (
        100 * (part or 0.0)
        for part in (above.difference.value, above.difference.low, above.difference.high)
    )
    return f", {value:.1f} percentage points less (paired by clip, 95 % interval {low:.1f} to {high:.1f})"


def _versions(card: Mapping[str, Any]) -> str:
    parts = [f"staanet {card['staanet']}" if card.get("staanet") else "staanet"]
    for name in ("commit", "recipe", "torch", "python"):
        if card.get(name):
            parts.append(f"{name} {card[name]}")
    return ", ".join(parts)


def _bibtex(run: RunFolder) -> str:
    version = str(run.card.get("staanet") or "")
    software = "\n".join(
        [
            "@software{staanet,",
            "  author  = {{The staanet authors}},",
            "  title   = {staanet: how easily an audio classifier is fooled, and how to harden it},",
            *([f"  version = {{{version}}},"] if version else []),
            f"  note    = {{{_versions(run.card).replace('_', chr(92) + '_')}}}",
            "}",
        ]
    )
    return f"{software}\n\n{PAPER}"
