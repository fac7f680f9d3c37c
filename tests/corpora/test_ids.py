"""Ids are safe as file names and never collide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from staanet.corpora.ids import safe_ids


@given(names=st.sets(st.text(max_size=12), max_size=20))
def test_ids_are_safe_unique_and_free_of_order(names: set[str]) -> None:
    ids = safe_ids({name: name for name in names})
    folded = {i.casefold() for i in ids.values()}
    assert len(folded) == len(names)
    assert all(i and i.isascii() and set(i) & set("/\\ \0:") == set() for i in ids.values())
    assert not any(i.startswith((".", "-")) for i in ids.values())
    assert ids == safe_ids({name: name for name in reversed(list(ids))})


def test_equal_base_names_never_collide() -> None:
    names = ("a/x.wav", "a__x.wav", "b/x.wav", "a/X.wav", "a/x.flac", "ü.wav", "u.wav", "..wav")
    assert len({i.casefold() for i in safe_ids({n: n for n in names}).values()}) == len(names)
