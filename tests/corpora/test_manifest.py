"""Manifests: columns, rows and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.corpora import (
    ids_are_sorted_and_unique,
    put,
    refusal,
    write,
    write_parquet,
    write_wav,
)

from staanet.corpora import describe, description_text, load_corpus, manifest, records
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
        ('{"file": "a.wav", "label": 3}', "the label '3' is a number"),
        ('{"file": "a.wav", "label": NaN}', "the label is empty"),
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
    monkeypatch.setattr(records, "MAX_BYTES", 8)
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
    monkeypatch.setattr(records, "BLOCK", block)
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbffile,label,speaker\na.wav,joy,\xe2\x82\xac\n" + tail)
    assert f"row {row} not UTF-8. save as UTF-8" in refusal(path)


@pytest.mark.parametrize("block", [1, 3, 2**20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(
    block: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK", block)
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
    for name in ("list.csv", "list.jsonl", "list.json"):
        (tmp_path / name).write_bytes(b"x" * 11)
    write_parquet(tmp_path / "list.parquet", file=["a.wav"], label=["joy"])
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    for name in ("list.csv", "list.jsonl", "list.json", "list.parquet"):
        assert "is larger than 10 bytes" in refusal(tmp_path / name)


def test_a_manifest_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch) -> None:
    def fail(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("list.csv", "list.jsonl", "list.json", "list.parquet"):
        path = write(tmp_path / name, "x")
        monkeypatch.setattr(records, "open", fail, raising=False)
        assert "cannot be read (Permission denied)" in refusal(path)


# ---------------------------------------------------------------- columns and root by name


def test_columns_are_taken_by_name(tmp_path: Path) -> None:
    text = "clip,annotator1,who,emotion\nx.wav,joy,s,rage\n"
    path = write(tmp_path / "list.csv", text)
    columns = {"file": "clip", "label": "annotator1", "speaker": "WHO"}
    corpus = load_corpus(f"folder:{path}", columns=columns)
    assert [(u.id, u.label, u.speaker) for u in corpus.utterances] == [("x", "joy", "s")]
    message = refusal(path, columns=columns | {"label": "anotator1"})
    assert "unknown column 'anotator1'" in message and "Did you mean 'annotator1'?" in message
    message = refusal(path, columns={"lable": "emotion"})
    assert "unknown column 'lable'. Did you mean 'label'?" in message


def test_a_manifest_may_lie_anywhere(tmp_path: Path) -> None:
    put(tmp_path / "audio", "a/x.wav", "b.wav")
    lines = [
        {"file": "a/x.wav", "label": "joy"},
        {"file": str(tmp_path / "audio" / "b.wav"), "label": "rage"},
    ]
    path = write(tmp_path / "lists" / "m.jsonl", "\n".join(map(json.dumps, lines)))
    message = refusal(path)
    assert "m.jsonl:2" in message and "outside the corpus root" in message and "(root)" in message
    corpus = load_corpus(f"folder:{path}", root=tmp_path / "audio")
    assert [u.id for u in corpus.utterances] == ["a__x", "b"] and not describe(corpus)["problems"]
    text = "file,label\n../lists/m.jsonl,joy\n"
    message = refusal(write(tmp_path / "m.csv", text), root=tmp_path / "audio")
    assert "m.csv:2" in message and "outside the corpus root" in message
    assert "is no folder" in refusal(path, root=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="lies inside the corpus"):
        load_corpus(f"folder:{path}", root=tmp_path / "audio", out=tmp_path / "audio" / "runs")


@pytest.mark.parametrize("options", [{"root": "."}, {"columns": {"label": "emo"}}])
def test_columns_and_root_belong_to_manifests(options: dict, tmp_path: Path) -> None:
    put(tmp_path, "joy/a.wav", "03a01Fa.wav")
    assert "holds no manifest" in refusal(tmp_path, **options)
    assert "has no manifest" in refusal(f"emodb:{tmp_path}", **options)


# ---------------------------------------------------------------- split columns with numbers


def test_numbered_folds_are_protocols(tmp_path: Path) -> None:
    rows = [
        f"{s}{n}.wav,{'joy' if n else 'rage'},{s},{fold}"
        for fold, s in enumerate("abcd", start=1)
        for n in range(2)
    ]
    path = write(tmp_path / "m.csv", "file,label,speaker,split\n" + "\n".join(rows))
    corpus = load_corpus(f"folder:{path}")
    assert {"folds", "fold:1", "fold:4"} <= set(corpus.protocols)
    parts = {p.part: p.speakers for p in corpus.split(0, "fold:2")}
    assert parts == {"train": ("c", "d"), "dev": ("a",), "test": ("b",)}
    assert corpus.split(3, "folds")[2].speakers == ("d",)
    shared = path.read_text().replace("a0.wav,rage,a", "a0.wav,rage,b")
    corpus = load_corpus(f"folder:{write(path, shared)}")
    assert "fold:1" not in corpus.protocols, "a speaker in two folds"


def test_a_split_column_of_floats_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_parquet(path, file=["a.wav", "b.wav"], label=["joy", "rage"], split=[1.0, float("nan")])
    assert [u.part for u in load_corpus(f"folder:{path}").utterances] == ["1", None]


# ---------------------------------------------------------------- rows put aside


def test_unusable_rows_are_put_aside_with_number_and_reason(tmp_path: Path) -> None:
    rows = [f"{n}.wav,joy,s," for n in range(300)]
    rows[7] = "7.wav,joy,s,later"
    rows[9] = "9.wav,NaN,s,"
    corpus = load_corpus(
        f"folder:{write(tmp_path / 'm.csv', 'file,label,speaker,end' + chr(10) + chr(10).join(rows))}"
    )
    assert len(corpus) == 298 and corpus.labels == ("joy",)
    assert corpus.put_aside == (
        (f"{tmp_path / 'm.csv'}:9", "the end is 'later', no time"),
        (f"{tmp_path / 'm.csv'}:11", "the label is missing ('NaN')"),
    )
    (note,) = [note for note in corpus.notes if "put aside" in note]
    assert note.startswith(
        "2 of 300 rows put aside: m.csv:9 (the end is 'later', no time), m.csv:11"
    )
    assert not any("put aside" in warning for warning in corpus.warnings), "less than 1 %"
    assert describe(corpus)["problems"][0] == corpus.put_aside[0]


def test_more_than_a_hundredth_put_aside_is_a_warning(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'joy' if n > 2 else ''},s" for n in range(200)]
    corpus = load_corpus(
        f"folder:{write(tmp_path / 'm.csv', 'file,label,speaker' + chr(10) + chr(10).join(rows))}"
    )
    (warning,) = [warning for warning in corpus.warnings if "put aside" in warning]
    assert warning.startswith("1.5 % of the rows cannot be used. 3 of 200 rows put aside: m.csv:2")
    assert warning in describe(corpus)["warnings"]
    assert f"warning   {warning}" in description_text(describe(corpus))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.wav,joy,s,1,2,3", "6 cells, the header has 5"),
        (",joy,s,,", "the file is empty"),
        ("b.wav,,s,,", "the label is empty"),
        ("b.wav,joy,s,2,1", "its part ends at 1 s but starts at 2 s"),
        (f"b.wav,{'x' * 201},s,,", "the label has 201 characters; at most 200 are taken"),
    ],
)
def test_one_bad_row_never_refuses_the_others(row: str, reason: str, tmp_path: Path) -> None:
    text = f"file,label,speaker,start,end\na.wav,joy,s,,\n{row}\nc.wav,rage,t,,\n"
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}")
    assert [u.id for u in corpus.utterances] == ["a", "c"]
    assert corpus.put_aside == ((f"{tmp_path / 'm.csv'}:3", reason),)


def test_bad_lines_of_json_never_refuse_the_others(tmp_path: Path) -> None:
    lines = [
        '{"file": "a.wav", "label": "joy"}',
        '{"file": "b.wav", "label": ["joy"]}',
        "not json",
        '{"file": "c.wav", "label": "joy", "label": "rage"}',
        '{"file": "d.wav", "emotions": "joy"}',
        '{"file": "e.wav", "label": "rage", "start": "soon"}',
        '{"file": "f.wav", "label": "rage"}',
    ]
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.jsonl', chr(10).join(lines))}")
    assert [u.id for u in corpus.utterances] == ["a", "f"]
    reasons = [reason for _, reason in corpus.put_aside]
    assert [where.rpartition(":")[2] for where, _ in corpus.put_aside] == ["2", "3", "4", "5", "6"]
    expected = ("the label is", "is not JSON", "a key stands twice", "no column 'label'", "no time")
    assert all(text in reason for text, reason in zip(expected, reasons, strict=True))


def test_where_no_row_is_left_the_first_reason_is_told(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "m.csv", "file,label\na.wav,\nb.wav,-\n"))
    assert "m.csv:2: the label is empty, and none of the 2 rows can be used" in message


# ---------------------------------------------------------------- twins


def test_names_that_are_twins_on_other_systems_are_noted(tmp_path: Path) -> None:
    names = ("s/A.wav", "s/a.wav", "J\u00fcrgen.wav", "Ju\u0308rgen.wav", "b.wav")
    text = "file,label\n" + "".join(f"{name},joy\n" for name in names)
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}")
    (note,) = [note for note in corpus.warnings if "one name on some other systems" in note]
    assert "'s/A.wav' and 's/a.wav'" in note and "'J\\xfcrgen.wav'" in note and "b.wav" not in note
    segments = "file,start,end,label\na.wav,0,1,joy\na.wav,1,2,joy\n"
    corpus = load_corpus(f"folder:{write(tmp_path / 'n.csv', segments)}")
    assert not [note for note in corpus.warnings if "other systems" in note]


def test_the_command_writes_a_manifest_of_mapped_labels_and_named_columns(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from staanet.cli import app

    put(tmp_path / "audio", "a.wav", "b.wav")
    path = write(tmp_path / "lists" / "m.csv", "clip,code,who\na.wav,1,s\nb.wav,2,t\n")
    words = ["corpus", f"folder:{path}", "--root", str(tmp_path / "audio")]
    words += ["--column", "file=clip,label=code", "--column", "speaker=who"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3 and "is a number" in result.stderr
    out = tmp_path / "named.csv"
    words += ["--label-map", "1=neutral,2=anger", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert "classes   anger 1, neutral 1" in result.stdout
    corpus = load_corpus(f"folder:{out}")
    assert [(u.path.name, u.label, u.speaker) for u in corpus.utterances] == [
        ("a.wav", "neutral", "s"),
        ("b.wav", "anger", "t"),
    ]
