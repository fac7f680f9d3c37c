"""Manifests: columns, rows and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.corpora import ids_are_sorted_and_unique, refusal, write, write_wav

from staanet.corpora import describe, description_text, load_corpus, manifest
from staanet.errors import InvalidInput, UnusableClip


def test_a_manifest_gives_file_label_speaker_and_sex(tmp_path: Path) -> None:
    write_wav(tmp_path / "a" / "x.wav", 1)
    write_wav(tmp_path / "b" / "x.wav", 2)
    csv = "\ufefffile,label,speaker,sex\r\na/x.wav,joy,1,F\r\n\r\n./b//x.wav,rage,2,male\r\n"
    corpus = load_corpus(f"folder:{write(tmp_path / 'list.csv', csv)}")
    assert [(u.id, u.label, u.speaker, u.sex) for u in corpus.utterances] == [
        ("a__x", "joy", "1", "female"),
        ("b__x", "rage", "2", "male"),
    ]
    lines = [
        {"path": "a/x.wav", "emotion": "joy", "actor": 1, "gender": "f"},
        {"path": "b/x.wav", "emotion": "rage", "actor": 2, "gender": "M"},
    ]
    text = "\n".join(map(json.dumps, lines))
    twin = load_corpus(f"folder:{write(tmp_path / 'list.jsonl', text)}")
    assert twin.utterances == corpus.utterances
    shutil.copy(tmp_path / "list.jsonl", tmp_path / "metadata.jsonl")
    assert load_corpus(f"folder:{tmp_path}").utterances == corpus.utterances


def test_the_first_known_column_is_used_and_the_other_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "file,emotion,label,speaker\na.wav,joy,rage,s\n")
    corpus = load_corpus(f"folder:{path}")
    assert corpus.labels == ("rage",)
    assert "column 'emotion' not used, 'label' is" in corpus.notes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused_by_row(encoding: str, tmp_path: Path) -> None:
    text = "file,label,speaker\na.wav,joy,s\nb.wav,Ärger,s\n".encode(encoding)
    row = 3 if encoding == "latin-1" else 1
    message = refusal(write(tmp_path / "list.csv", text))
    assert f"row {row} not UTF-8" in message and "save as UTF-8" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows"),
        ("file,label,speaker\n", "holds no rows"),
        ("file,speaker\na.wav,s\n", "Columns found: file, speaker; wanted: file (or path"),
        ("file;label;speaker\na.wav;joy;s\n", "separated by ';'"),
        ("file\tlabel\na.wav\tjoy\n", "separated by '\\t'"),
        ("file,label,label\na.wav,joy,joy\n", "the column 'label' twice"),
        ("file,label\na.wav,joy,s\n", ":2: 3 cells, the header has 2"),
        ('file,label\n"a.wav,joy\n', "is not CSV"),
        ("file,label\na.wav, \n", ":2: the label is empty"),
        ("file,label\na.wav,joy\nb.wav,7\n", ":3: the label '7' is a number"),
        ("file,label\na.wav,joy\nb.wav,Joy\n", ":3: the label 'Joy' differs from 'joy'"),
        ("file,label\n ,joy\n", ":2: the file is empty"),
        ("file,start,end,label\na.wav,1.5,1,joy\n", ":2: its part ends at 1 s but starts at 1.5 s"),
        ("file,label\n../../x.wav,joy\n", ":2: '../../x.wav' is outside the corpus root"),
        ("file,label\na.wav,joy\n/etc/x,joy\n", ":3: '/etc/x' is outside the corpus root"),
        ("file,label\n..\\x,joy\n", "is outside the corpus root"),
        ("file,label\nC:\\x,joy\n", "is outside the corpus root"),
        ("file,label\n~/x,joy\n", "is outside the corpus root"),
        ("file,label\na/../..,joy\n", "is outside the corpus root"),
    ],
)
def test_a_bad_manifest_is_refused(text: str, said: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "list.csv", text))
    assert said in message and "list.csv" in message and "\n" not in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "a.wav", "label": 3}', "the label is 3"),
        ('{"file": "a.wav", "label": NaN}', "the label is NaN"),
        ('{"file": "a.wav", "label": "joy", "label": "rage"}', "a key stands twice"),
        ('{"file": "a.wav", "label": null}', "the label is empty"),
        ('{"file": ["a.wav"], "label": "joy"}', "the file is"),
        ('["a.wav", "joy"]', "is not a JSON object"),
        ("[" * 200_000, "is not JSON"),
        ('{"file": "a.wav", "label": "joy", "n": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_bad_json_line_is_refused(line: str, said: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "list.jsonl", line))
    assert said in message and "list.jsonl:1" in message and len(message) < 600


def test_too_many_rows_or_bytes_are_refused(tmp_path: Path, monkeypatch) -> None:
    path = write(
        tmp_path / "list.csv", "file,label\n" + "".join(f"{i}.wav,joy\n" for i in range(9))
    )
    monkeypatch.setattr(manifest, "MAX_ROWS", 8)
    assert "more than 8 rows" in refusal(f"folder:{path}")
    monkeypatch.setattr(manifest, "MAX_BYTES", 8)
    assert "larger than 8 bytes" in refusal(f"folder:{path}")


def test_repeated_rows_count_once_and_conflicts_not_at_all(tmp_path: Path) -> None:
    text = (
        "file,label,speaker\na.wav,joy,s\n./a.wav,joy ,s\nb.wav,joy,s\nb.wav,rage,s\nc.wav,joy,t\n"
    )
    corpus = load_corpus(f"folder:{write(tmp_path / 'list.csv', text)}")
    assert [u.id for u in corpus.utterances] == ["a", "c"]
    assert "listed more than once, used once: a.wav" in corpus.notes
    assert "1 file left out, listed under two labels or speakers: b.wav" in corpus.notes


def test_every_file_its_own_speaker_only_where_the_manifest_says_so(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,{'ab'[i % 2]},{i}.wav\n" for i in range(12))
    corpus = load_corpus(
        f"folder:{write(tmp_path / 'list.csv', f'file,label,speaker{chr(10)}{rows}')}"
    )
    assert len(corpus.speakers) == 12 and len(corpus.split(0)) == 3


@pytest.mark.parametrize("file", ["gone.wav", "a\0b.wav", "n" * 300 + ".wav", "\ud800.wav"])
def test_a_file_that_cannot_be_is_put_aside_when_it_is_read(file: str, tmp_path: Path) -> None:
    line = json.dumps({"file": file, "label": "joy\u202e\ud800", "speaker": "s"})
    corpus = load_corpus(f"folder:{write(tmp_path / 'list.jsonl', line)}")
    described = describe(corpus)
    ((name, reason),) = described["problems"]
    assert reason and name.isprintable()
    assert description_text(described).replace("\n", "").isprintable()
    with pytest.raises(UnusableClip):
        corpus.load(corpus.utterances[0], 16_000)


def test_absolute_and_windows_paths_inside_the_folder_are_read(tmp_path: Path) -> None:
    write_wav(tmp_path / "a" / "x.wav", 1)
    write_wav(tmp_path / "a" / "y.wav", 2)
    text = f"file,label\n{tmp_path}/a/x.wav,joy\na\\y.wav,joy\n"
    corpus = load_corpus(f"folder:{write(tmp_path / 'list.csv', text)}")
    assert [u.id for u in corpus.utterances] == ["a__x", "a__y"]
    assert not describe(corpus)["problems"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(st.sampled_from('file,label;"\n\r\\/.~ a1é\0\u202e'), max_size=60),
    data=st.binary(),
)
def test_no_manifest_raises_anything_but_invalid_input(
    text: str, data: bytes, tmp_path: Path
) -> None:
    for name, content in (("m.csv", text.encode()), ("m.jsonl", text.encode()), ("m.csv", data)):
        for start in (b"", b"file,label\n", b'{"file":"a","label":"'):
            try:
                corpus = load_corpus(f"folder:{write(tmp_path / name, start + content)}")
            except InvalidInput:
                continue
            ids_are_sorted_and_unique(corpus)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64, 2**20])
@pytest.mark.parametrize(
    "tail, row",
    [
        (b"b.wav,joy,\xff\n", 3),
        (b"b.wav,j\xc3\xb6y,s\nc.wav,joy,\xc3", 4),
        (b"\xed\xa0\x80", 3),
        (b"b.wav,\xf0\x9f\x98\n", 3),
    ],
)
def test_the_row_that_is_not_utf8_is_told_wherever_a_block_ends(
    block: int, tail: bytes, row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", block)
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbffile,label,speaker\na.wav,joy,\xe2\x82\xac\n" + tail)
    assert f"row {row} not UTF-8. save as UTF-8" in refusal(path)


@pytest.mark.parametrize("block", [1, 3, 2**20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(
    block: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", block)
    rows = ["\ufefffile,label,speaker", 'a.wav,joy,"ö, the first"', "", "b.wav,fear,€"]
    path = tmp_path / "list.csv"
    path.write_bytes(end.join(rows).encode())
    found = load_corpus(f"folder:{path}").utterances
    assert [(u.id, u.speaker, u.row) for u in found] == [
        ("a", "ö, the first", f"{path}:2"),
        ("b", "€", f"{path}:4"),
    ]


def test_the_limits_of_a_manifest_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list.csv", "file,label\na.wav,joy\nb.wav,fear\nc.wav,joy\n")
    monkeypatch.setattr(manifest, "MAX_ROWS", 2)
    assert f"{path}:4: more than 2 rows. Split the manifest" in refusal(path)
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    for name in ("list.csv", "list.jsonl", "list.parquet"):
        (tmp_path / name).write_bytes(b"x" * 11)
        assert "is larger than 10 bytes" in refusal(tmp_path / name)


def test_a_manifest_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch) -> None:
    for name in ("list.csv", "list.jsonl", "list.parquet"):
        path = write(tmp_path / name, "x")
        monkeypatch.setattr(manifest, "_checked", lambda path: path.with_name("gone"))
        assert "cannot be read (No such file or directory)" in refusal(path)
