"""A million rows in little memory: what is packed is what was put in, and takes no object for each row."""

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from staanet.core import Corpus, Utterance
from staanet.corpora.folder import read_folder
from staanet.corpora.ids import distinct_ids, safe_ids
from staanet.corpora.row_corpus import build_from_rows
from staanet.corpora.rows import Listing, Row, Rows
from staanet.storage import lazy_rows

ANY_TEXT = st.text(st.characters())  # half surrogate pairs too, which JSON may hold
TIMES = st.floats(0, 1e6)


@given(st.lists(ANY_TEXT))
def test_texts_come_back(texts):
    packed = lazy_rows.TextColumn(texts)
    assert list(packed) == texts and len(packed) == len(texts)
    with pytest.raises(IndexError):
        packed[len(texts)]
    order = packed.sorted_indices().tolist()
    assert [texts[n] for n in order] == sorted(
        texts, key=lambda t: t.encode("utf-8", "surrogatepass")
    )


def test_texts_of_several_chunks_come_back_and_sort():
    texts = [f"{n * 7919 % 10_007:05d}" for n in range(10_000)]
    packed = lazy_rows.TextColumn(texts)
    assert list(packed) == texts and [packed[n] for n in (0, 4095, 4096, 9999)] == [
        texts[n] for n in (0, 4095, 4096, 9999)
    ]
    assert [texts[n] for n in packed.sorted_indices()] == sorted(texts)
    assert len(pickle.loads(pickle.dumps(packed))) == 10_000


@given(st.lists(st.none() | ANY_TEXT))
def test_words_come_back_and_are_kept_once(words):
    packed = lazy_rows.CategoryColumn(words)
    assert [packed[n] for n in range(len(packed))] == words
    assert len(packed.categories) == len(set(words))


@given(
    st.lists(
        st.builds(
            Row,
            source=ANY_TEXT | st.from_regex(r"m\.csv:[0-9]{1,25}", fullmatch=True),
            file=ANY_TEXT,
            label=ANY_TEXT,
            speaker=ANY_TEXT,
            sex=st.sampled_from([None, "female"]),
            start_s=TIMES,
            end_s=st.none() | TIMES,
            part=st.none() | ANY_TEXT,
            content=ANY_TEXT,
            inner_name=ANY_TEXT,
        )
    )
)
@example([Row("0", "", "", ""), Row("m.csv:0", "", "", ""), Row(":0", "", "", "")])
def test_rows_come_back(rows):
    packed = Rows(rows)
    assert list(packed) == rows and packed[1:] == rows[1:]
    for number, row in enumerate(rows):
        assert (packed.key(number), packed.name(number)) == (row.key, row.name)


@given(st.lists(st.sampled_from("abcdef")))
def test_repeated_texts_are_found_with_all_their_places(texts):
    found = list(lazy_rows.duplicate_groups(lazy_rows.digests_of(texts)))
    wanted = [[n for n, t in enumerate(texts) if t == text] for text in dict.fromkeys(texts)]
    assert found == [places for places in wanted if len(places) > 1]


def test_places_of_a_repeated_text_in_another_order():
    digests = lazy_rows.digests_of(["a", "b", "a", "a"])
    assert list(lazy_rows.duplicate_groups(digests, np.array([3, 0, 1, 2]))) == [[2, 3, 0]]


@given(st.dictionaries(st.text(), st.text("aAbü./-_ ", max_size=5)))
def test_ids_are_distinct_safe_and_the_same_in_any_order(names):
    ids = safe_ids(names)
    assert len({i.casefold() for i in ids.values()}) == len(names)
    assert all(i.isascii() and i and "/" not in i and not i.startswith(".") for i in ids.values())
    backwards = {key: names[key] for key in reversed(names)}
    assert safe_ids(backwards) == ids
    keys = list(names)
    assert list(distinct_ids(len(keys), keys.__getitem__, lambda n: names[keys[n]])) == list(
        ids.values()
    )


def corpora(folder: Path) -> tuple[Corpus, Corpus]:
    """The same corpus, with rows to be made and with a tuple of objects."""
    rows = [
        Row(
            f"m.csv:{n + 2}",
            f"s{n % 7}/{n:03d}.wav",
            ("joy", "fear")[n % 2],
            f"s{n % 7}",
            "female" if n % 7 < 3 else "male",
            part=("train", "dev", "test")[min(n % 7, 2)],
            content=f"c{n % 5}",
        )
        for n in range(140)
    ]
    packed = build_from_rows(Listing(folder, folder, Rows(rows)), "audio")
    return packed, replace(packed, utterances=tuple(packed.utterances))


@pytest.mark.parametrize("protocol", [None, "manifest", "speakers:s0,s1/s2"])
def test_a_corpus_of_rows_is_split_like_one_of_objects(tmp_path, protocol):
    packed, plain = corpora(tmp_path)
    assert isinstance(packed.utterances, lazy_rows.LazyRows) and packed == plain and plain == packed
    assert packed.speakers == plain.speakers and packed.contents == plain.contents
    for one, other in zip(packed.split(3, protocol), plain.split(3, protocol), strict=True):
        assert one == other and one.split_hash == other.split_hash and len(one) > 0
        assert isinstance(one.utterances, lazy_rows.LazyRows) and isinstance(
            other.utterances, tuple
        )
    shuffled = replace(plain, utterances=plain.utterances[::-1])
    assert shuffled.split(3, protocol)[0].split_hash == packed.split(3, protocol)[0].split_hash


def test_a_field_is_told_without_its_objects_and_is_theirs(tmp_path):
    packed, plain = corpora(tmp_path)
    for name in (
        "id",
        "label",
        "speaker",
        "sex",
        "part",
        "content",
        "path",
        "start_s",
        "end_s",
        "row",
    ):
        told = list(lazy_rows.attribute_values(packed.utterances, name))
        assert told == [getattr(u, name) for u in plain.utterances]


def test_rows_to_be_made_travel_and_slice(tmp_path):
    packed, plain = corpora(tmp_path)
    again = pickle.loads(pickle.dumps(packed))
    assert again == packed and hash(again.utterances) == hash(packed.utterances)
    assert packed.utterances[5::7] == plain.utterances[5::7]
    assert packed.utterances[-1] == plain.utterances[-1]
    assert packed.utterances != plain.utterances[1:] and packed.utterances != "text"
    assert repr(packed.utterances).endswith(", ...)")


def test_a_manifest_takes_little_memory_for_each_row(tmp_path):
    """As many rows more take at most 300 bytes each when they are kept, and 600 while they are read."""
    kept, peaks = [], []
    for count in (2_000, 12_000):
        path = tmp_path / f"{count}.csv"
        lines = (
            f"s{n % 97}/clip{n}.wav,{('joy', 'fear')[n % 2]},s{n % 97}\n" for n in range(count)
        )
        path.write_text("file,label,speaker\n" + "".join(lines))
        tracemalloc.start()
        corpus = read_folder(path)
        kept.append(tracemalloc.get_traced_memory()[0])
        corpus.split(0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(corpus) == count and corpus.utterances[0] == Utterance(
            "s0__clip0", tmp_path / "s0" / "clip0.wav", "joy", "s0", row=f"{path}:2"
        )
    assert (kept[1] - kept[0]) / 10_000 < 300
    assert (peaks[1] - peaks[0]) / 10_000 < 600
