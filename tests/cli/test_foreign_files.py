"""No command replaces a file that staanet did not write, wherever its output goes.

The commands run in forked children (``tests.support.forks``).
"""

from __future__ import annotations

import json
import shutil

import pytest
from tests.cli.test_mistakes import SOUND, filled
from tests.support.forks import tree

from staanet import storage
from staanet.errors import InvalidInput
from staanet.storage.foreign import NAMES

MINE = b"my,own,file\n"
SINGLE_FILES = ("corpus", "export")


@pytest.mark.parametrize("name", SOUND)
def test_no_command_replaces_a_file_of_the_user(commands, world, tmp_path, name):
    names = ["out.file"] if name in SINGLE_FILES else sorted(NAMES - {storage.UNFINISHED})
    for file in names:
        (tmp_path / file).write_bytes(MINE)
    out = tmp_path / "out.file" if name in SINGLE_FILES else tmp_path
    before = tree(tmp_path)
    done = commands.run(name, *filled(SOUND[name], world), "--out", out)
    assert done.code == 3 and done.is_clean and "staanet did not write" in done.err, done.err
    assert tree(tmp_path) == before


def test_a_report_and_a_database_replace_nothing_either(commands, world, tmp_path):
    run = shutil.copytree(world.root / "run", tmp_path / "run")
    shutil.rmtree(run / "report", ignore_errors=True)
    for name in ("index.html", "matrix.md"):
        (run / "report").mkdir()
        (run / "report" / name).write_bytes(MINE)
        before = tree(run)
        done = commands.run("report", run)
        assert done.code == 3 and f"{name}: staanet did not write" in done.err, done.err
        assert tree(run) == before
        shutil.rmtree(run / "report")
    adversarial = run / "adversarial" / "random__emo18"
    (adversarial / "db.yaml").write_bytes(MINE)
    done = commands.run("to-audformat", adversarial)
    assert done.code == 3 and (adversarial / "db.yaml").read_bytes() == MINE, done.err


def test_a_page_of_the_user_gets_no_warning_of_ours(tmp_path):
    from staanet import report

    (tmp_path / "report").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "summary.json").write_text("{}")
    (tmp_path / "report" / "index.html").write_bytes(b"<body>mine</body>")
    assert not report.mark_if_stale(tmp_path)
    assert (tmp_path / "report" / "index.html").read_bytes() == b"<body>mine</body>"


def test_files_below_are_protected_also_when_the_work_goes_on(commands, world, tmp_path):
    words = filled(SOUND["attack"], world)
    first = commands.run("attack", *words, "--out", tmp_path / "whole")
    assert first.code == 0, first.err
    clip = sorted((tmp_path / "whole" / "adversarial").iterdir())[-1].name
    mine = tmp_path / "out" / "adversarial" / clip
    mine.parent.mkdir(parents=True)
    mine.write_bytes(MINE)
    for _ in range(2):  # the second time, the folder holds work of ours as well
        done = commands.run("attack", *words, "--out", tmp_path / "out")
        assert done.code == 3 and f"{clip}: staanet did not write" in done.err, done.err
        assert mine.read_bytes() == MINE
    mine.unlink()
    assert commands.run("attack", *words, "--out", tmp_path / "out").code == 0


def test_other_files_stay_beside_the_results(commands, world, tmp_path):
    (tmp_path / "notes.txt").write_bytes(MINE)
    for _ in range(2):
        done = commands.run("attack", *filled(SOUND["attack"], world), "--out", tmp_path)
        assert done.code == 0, done.err
    assert (tmp_path / "notes.txt").read_bytes() == MINE
    listing = json.loads((tmp_path / ".foreign.json").read_text())
    assert listing == {"not_by_staanet": ["notes.txt"]}


def test_a_protected_file_is_neither_written_nor_removed(tmp_path):
    (tmp_path / "mine").write_bytes(MINE)
    with storage.FolderLock(tmp_path):
        for write in (
            lambda: storage.write_bytes(tmp_path / "mine", b"x"),
            lambda: storage.Journal(tmp_path / "mine").append({}),
            lambda: storage.remove(tmp_path / ".." / tmp_path.name / "mine"),
        ):
            with pytest.raises(InvalidInput, match="staanet did not write this file"):
                write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    storage.write_bytes(tmp_path / "mine", b"x")  # nobody holds the folder: it is the caller's


def test_a_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.foreign, "MAX_FILES", 2)
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"")
    with pytest.raises(InvalidInput, match="more than 2 files"):
        storage.FolderLock(tmp_path).__enter__()
    assert len(list(tmp_path.iterdir())) == 3
