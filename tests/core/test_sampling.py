"""A subset is even over labels and speakers, and smaller ones are part of larger ones."""

from __future__ import annotations

import itertools

from tests.support.speech import clip

from staanet.core import stratified_subset


def test_chosen_clips_are_even_over_labels_and_speakers_and_nested():
    many = [
        clip(0.1, id=f"{label}{speaker}{take}", label=label, speaker=speaker)
        for label in "abc"
        for speaker in ("x", "y")
        for take in range(4 if label == "a" else 9)
    ]
    for number in (1, 6, 12, 24):
        chosen = stratified_subset(many, number)
        pairs = [(c.label, c.speaker) for c in chosen]
        counts = {pair: pairs.count(pair) for pair in itertools.product("abc", "xy")}
        assert len(chosen) == number and max(counts.values()) - min(counts.values()) <= 1
        assert {c.id for c in chosen} <= {c.id for c in stratified_subset(many, number + 5)}
    assert (
        stratified_subset(many, 999) == many
        and stratified_subset(many[::-1], 7) == stratified_subset(many, 7)[::-1]
    )
