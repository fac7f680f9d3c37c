"""Selects example clips of a run by fixed rules: fooled, varied, clear."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from staanet.report.headlines import Headline
from staanet.results.cells import ClipResult
from staanet.results.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class ExampleClip:
    """A clip to show, and its rows, one per target."""

    id: str
    label: str
    speaker: str
    rows: Sequence[ClipResult]

    @property
    def fooled(self) -> int:
        """How many targets it fooled."""
        return sum(row.fooled for row in self.rows)

    @property
    def wrong(self) -> int:
        """How many targets misjudged it when it was clean."""
        return sum(row.clean_prediction != row.label for row in self.rows)

    @property
    def snr_db(self) -> float:
        """Its SNR; 0 dB where it is not defined."""
        return self.rows[0].distances.snr_db or 0.0


def choose_clips(run: RunFolder, lead: Headline, number: int) -> list[ExampleClip]:
    """Returns ``number`` clips that fooled most targets, and one that did not fool the source.

    In this order: more targets fooled, another label, another speaker, right when clean, better SNR.
    """
    stored = run.sets.get(lead.cell.key)
    by_id: dict[str, list[ClipResult]] = defaultdict(list)
    for row in run.rows_of(lead.cell.key):
        if stored and row.id in stored.rows and stored.has_audio(row.id):
            by_id[row.id].append(row)
    clips = [
        ExampleClip(key, rows[0].label, rows[0].speaker, rows)
        for key, rows in sorted(by_id.items())
    ]
    candidates = [clip for clip in clips if clip.fooled]
    chosen: list[ExampleClip] = []
    while candidates and len(chosen) < number:
        labels, speakers = (
            Counter(getattr(clip, name) for clip in chosen) for name in ("label", "speaker")
        )

        def rank(clip: ExampleClip) -> tuple[float | str, ...]:
            repeats = labels[clip.label], speakers[clip.speaker]  # noqa: B023 (used at once)
            return -clip.fooled, *repeats, clip.wrong, -clip.snr_db, clip.id

        chosen.append(min(candidates, key=rank))
        candidates.remove(chosen[-1])
    target = lead.cell.target
    unfooled = [
        clip
        for clip in clips
        if clip not in chosen and not any(r.fooled for r in clip.rows if r.target == target)
    ]
    unfooled.sort(key=lambda c: (c.fooled, c.wrong, -c.snr_db, c.id))
    return chosen + unfooled[:1]
