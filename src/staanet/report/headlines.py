"""Selects the cells of a run for the headline: the attack, its control and its strongest rival.

The sentence about the classes and speakers that were hit hardest is here, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from staanet.results import formatting
from staanet.results.cells import Cell
from staanet.results.run_folder import RunFolder

METHOD = "staa"
"""Registry name of the attack that this package is about."""
UNIVERSAL = "uap"
"""Registry name of the control that is one vector for all clips."""


@dataclass(frozen=True, slots=True)
class Headline:
    """An attack on its source, and the cells to compare it with."""

    cell: Cell
    control: Cell | None
    """Random changes, if possible of the same size and number."""
    rival: Cell | None
    """The attack that changed the same number of samples (PGD)."""


def headlines(run: RunFolder) -> list[Headline]:
    """Returns a headline per source: of STAA-Net where it was evaluated, else of the first attack."""
    attack = _leading_attack(run)
    sources = dict.fromkeys(cell.source for cell in run.cells if cell.attack == attack)
    return [_headline(run, attack, source) for source in sources]


def _headline(run: RunFolder, attack: str, source: str) -> Headline:
    cells = [cell for cell in run.cells if cell.key == (attack, source)]
    cell = next((cell for cell in cells if cell.white_box), cells[0])
    others = [
        other
        for other in run.cells
        if (other.source, other.target) == (source, cell.target) and other != cell
    ]
    # noise rather than a universal vector, which knows what its training clips have in common
    controls = [c for c in others if c.control and _algorithm(run, c) != UNIVERSAL]
    rivals = [c for c in others if not c.control and _is_rival(run, c, cell)]
    return Headline(cell, _best(controls, run, cell), _best(rivals, run, cell))


def _algorithm(run: RunFolder, cell: Cell) -> str:
    stored = run.sets.get(cell.key)
    return stored.algorithm if stored else cell.attack


def _leading_attack(run: RunFolder) -> str:
    def rank(cell: Cell) -> tuple[bool, bool]:
        return cell.control, _algorithm(run, cell) != METHOD

    return min(run.cells, key=rank).attack if run.cells else ""


def _best(cells: Sequence[Cell], run: RunFolder, headline: Cell) -> Cell | None:
    """The cell that is matched with the headline's set, or else the first."""
    return min(cells, key=lambda cell: not is_matched(run, cell, headline), default=None)


def is_matched(run: RunFolder, cell: Cell, headline: Cell) -> bool:
    """Tells whether a cell's attack changed, clip by clip, as many samples as the headline's."""
    stored = run.sets.get(cell.key)
    return stored is not None and stored.matched == f"{headline.attack}__{headline.source}"


def _is_rival(run: RunFolder, cell: Cell, headline: Cell) -> bool:
    unknown = cell.key not in run.sets
    return is_matched(run, cell, headline) or (unknown and cell.attack == "pgd_sparse")


def compared_cells(run: RunFolder, headline: Headline) -> list[Cell]:
    """Returns the cells of a headline's source for one figure: the attack first, controls last."""
    source = headline.cell.source
    keys = [key for key in run.keys if key[1] == source]
    cells = [cell for key in keys for cell in run.cells if cell.key == key]
    return sorted(
        cells,
        key=lambda c: (c.target != headline.cell.target, c.control, c.key != headline.cell.key),
    )


def cells_of_equal_size(run: RunFolder, headline: Headline) -> list[Cell]:
    """Returns the headline's cell, then those on its target that changed as many samples as far.

    These can be compared by speed: at the headline's epsilon, matched with its set or of its density.
    """
    lead = headline.cell
    density = lead.mean.density or 0.0
    others = [
        cell
        for cell in run.cells
        if (cell.source, cell.target) == (lead.source, lead.target)
        and cell != lead
        and (is_matched(run, cell, lead) or _is_near(cell.mean.density or 0.0, density))
        and (cell.budget and cell.budget.epsilon) == (lead.budget and lead.budget.epsilon)
    ]
    return [lead, *others]


def _is_near(first: float, second: float) -> bool:
    return abs(first - second) <= 0.01 * second


def hardest_hit(run: RunFolder, headline: Headline) -> str:
    """Returns a sentence: the class and the speaker that the attack hit most and least.

    Empty where all classes and all speakers were hit alike.
    """
    cell = headline.cell
    rows = run.rows_of(cell.key, cell.target)
    parts = []
    for group, noun in (("label", "class"), ("speaker", "speaker")):
        outcomes: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            outcomes[getattr(row, group)].append(row.fooled)
        rates = {name: sum(fooled) / len(fooled) for name, fooled in outcomes.items()}
        if not rates or max(rates.values()) == min(rates.values()):
            continue
        most, least = (f(rates, key=lambda n: (rates[n], n)) for f in (max, min))
        parts.append(
            f"the {noun} {most or '(none)'} ({formatting.percent(rates[most])} of "
            f"{len(outcomes[most])}) and least often for the {noun} {least or '(none)'} "
            f"({formatting.percent(rates[least])} of {len(outcomes[least])})"
        )
    if not parts:
        return ""
    return (
        f"{cell.title} changed the answers of {cell.target} most often for {'; for '.join(parts)}."
    )
