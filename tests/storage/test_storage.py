"""What storage promises: whole files or none, whatever fails; nothing unproven is ever loaded."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

import staanet
from staanet import storage
from staanet.errors import FolderLocked, InvalidInput, StorageFault
from staanet.storage import FolderLock, Journal
from staanet.storage import journal as journal_module
from staanet.storage.files import blocks_equal

SOURCE = str(Path(staanet.__file__).parents[1])


def script(body: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs ``body`` with this staanet."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str]) -> int:
    process.kill()
    process.communicate()
    return process.returncode


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        call()
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------- whole files


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    storage.write_bytes(path, b"old")
    storage.write_text(str(path), "new: grüße")
    assert path.read_text("utf-8") == "new: grüße"
    assert names(path.parent) == ["c.txt"]
    assert storage.sha256(path) == hashlib.sha256("new: grüße".encode()).hexdigest()


def test_an_empty_and_a_large_file_are_written_whole(tmp_path) -> None:
    for data in (b"", os.urandom(3 * 2**20)):
        storage.write_bytes(tmp_path / "x", data)
        assert (tmp_path / "x").read_bytes() == data


def test_text_that_utf8_cannot_hold_is_escaped(tmp_path) -> None:
    storage.write_text(tmp_path / "x", "a\udcffb")
    assert (tmp_path / "x").read_bytes() == rb"a\udcffb"


@pytest.mark.parametrize(("mask", "mode"), [(0o027, 0o640), (0, 0o666)])
def test_permissions_follow_the_umask(tmp_path, mask, mode) -> None:
    before = os.umask(mask)
    try:
        storage.write_bytes(tmp_path / "x", b"")
        Journal(tmp_path / "notes.jsonl").append({})
        with FolderLock(tmp_path):
            pass
    finally:
        os.umask(before)
    for name in names(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_copy_has_the_same_bytes_and_what_is_there_already_stays(tmp_path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    for size in (0, 5, 2**20, 2**20 + 1, 3 * 2**20):
        source.write_bytes(os.urandom(size))
        for _ in range(2):
            storage.copy(source, str(target))
            assert target.read_bytes() == source.read_bytes()
    before = target.stat()
    storage.copy(source, target)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for place in (0, 2**20, -1):  # one byte in another block, and a length of its own
        data = bytearray(source.read_bytes())
        data[place] ^= 1
        target.write_bytes(data)
        storage.copy(source, target)
        assert target.read_bytes() == source.read_bytes()
    target.write_bytes(source.read_bytes()[:-1])
    storage.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert names(target.parent) == ["target"]
    assert "No such file" in refusal(lambda: storage.copy(tmp_path / "none", target))
    assert "not a regular file" in refusal(lambda: storage.copy(source, tmp_path / "new"))
    assert target.read_bytes() == source.read_bytes()


def test_blocks_are_equal_only_to_the_end() -> None:
    def equal(one: bytes, other: bytes) -> bool:
        streams = [io.BufferedReader(io.BytesIO(data)) for data in (one, other)]
        return blocks_equal(*streams)

    assert equal(b"", b"") and equal(b"ab", b"ab")
    assert not (equal(b"a", b"b") or equal(b"a", b"ab") or equal(b"ab", b"a"))


def test_what_is_removed_is_gone_and_need_not_be_there(tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"")
    for _ in range(2):
        storage.remove(str(tmp_path / "x"))
        assert names(tmp_path) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageFault, match="cannot be written"):
        storage.remove(tmp_path / "folder")


def test_a_folder_is_made_with_those_above_it(tmp_path, monkeypatch) -> None:
    for _ in range(2):
        storage.make_folder(str(tmp_path / "a" / "b"))
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "x"):
        message = refusal(lambda place=place: storage.make_folder(place))
        assert message == (
            f"{place}: a file stands where a folder is due. Choose another folder with --out"
        )

    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "a file stands" in refusal(lambda: storage.make_folder(tmp_path / "dangling"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StorageFault, match="disk full"):
        storage.make_folder(tmp_path / "new")


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(
    tmp_path, monkeypatch
) -> None:
    make, calls = Path.mkdir, []

    def racing(path: Path, **options: bool) -> None:
        calls.append(path)
        if len(calls) == 1:  # it was there, and is gone when its kind is looked up
            raise FileExistsError(errno.EEXIST, "File exists")
        make(path, **options)

    monkeypatch.setattr(Path, "mkdir", racing)
    storage.make_folder(tmp_path / "out")
    assert (tmp_path / "out").is_dir() and len(calls) == 2


@pytest.mark.parametrize("taken", ["device", "link", "folder", "pipe", "socket"])
@pytest.mark.parametrize("name", ["x", "x.part"])
def test_only_regular_files_are_replaced(tmp_path, taken, name) -> None:
    place, other = tmp_path / name, tmp_path / "other"
    other.write_bytes(b"kept")
    with socket.socket(socket.AF_UNIX) as server:
        match taken:
            case "device":
                place.symlink_to("/dev/null")
            case "link":
                place.symlink_to(other)
            case "folder":
                place.mkdir()
            case "pipe":
                os.mkfifo(place)
            case "socket":
                server.bind(str(place))
        before = place.lstat().st_mode
        message = refusal(lambda: storage.write_bytes(tmp_path / "x", b"new"))
    assert f"{place}: exists and is not a regular file" in message
    assert place.lstat().st_mode == before
    assert other.read_bytes() == b"kept"


def test_a_device_node_is_never_renamed_away() -> None:
    device = Path("/dev/null")
    before = device.stat()
    assert "not a regular file" in refusal(lambda: storage.write_bytes(device, b"x"))
    assert stat.S_ISCHR(device.stat().st_mode)
    assert device.stat().st_ino == before.st_ino


def test_the_part_of_a_killed_writer_is_replaced_not_written_through(tmp_path) -> None:
    (tmp_path / "precious").write_bytes(b"kept")
    os.link(tmp_path / "precious", tmp_path / "x.part")
    storage.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "precious").read_bytes() == b"kept"
    assert names(tmp_path) == ["precious", "x"]


def test_a_name_that_no_file_can_have_is_refused(tmp_path) -> None:
    for name in ("a\0b", "\ud800"):
        assert "no file can have this name" in refusal(
            lambda name=name: storage.write_bytes(tmp_path / name, b"")
        )
        assert "no file can have this name" in refusal(
            lambda name=name: storage.sha256(tmp_path / name)
        )
    with pytest.raises(StorageFault, match="File name too long"):
        storage.write_bytes(tmp_path / ("x" * 254), b"")


def test_a_folder_that_is_a_file_is_a_fault(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFault, match="a file stands where a folder is due"):
        storage.write_bytes(tmp_path / "file" / "x", b"")


# ---------------------------------------------------------------- a disk that fails


class Faults:
    """Lets the ``at``-th call that reaches the disk fail, once or for ever after."""

    CALLS = ("open", "write", "fsync", "replace", "ftruncate")

    def __init__(self, patch: pytest.MonkeyPatch, at: int, number: int, *, always: bool) -> None:
        self.count, self.at, self.number, self.always = 0, at, number, always
        for name in self.CALLS:
            patch.setattr(os, name, self.failing(getattr(os, name)))

    def failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at or (self.always and self.count > self.at):
                raise OSError(self.number, os.strerror(self.number))
            return call(*args, **options)

        return replacement


FAULTS = [
    (errno.ENOSPC, "disk full: "),
    (errno.EDQUOT, "disk quota used up in "),
    (errno.EFBIG, "the file-size limit is reached. Raise it (ulimit -f unlimited), run again"),
    (errno.EROFS, "the disk is read-only. Choose another folder with --out"),
    (errno.EACCES, "no permission to write. Choose another folder with --out"),
    (errno.EIO, "cannot be written (Input/output error). Check the disk and the folder"),
]


@pytest.mark.parametrize("always", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize(("number", "text"), FAULTS, ids=[errno.errorcode[n] for n, _ in FAULTS])
def test_when_a_call_fails_the_old_file_or_the_new_one_stands(
    tmp_path, number, text, at, always
) -> None:
    path = tmp_path / "x"
    storage.write_bytes(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, at, number, always=always)
        with pytest.raises(StorageFault) as caught:
            storage.write_bytes(path, b"new")
        assert faults.count >= at
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert caught.value.exit_code == 5
    # the calls are open, write, fsync, replace; and then open and fsync of the folder
    assert path.read_bytes() == (b"old" if at <= 4 else b"new")
    assert names(tmp_path) == ["x"]
    storage.write_bytes(path, b"again")
    assert path.read_bytes() == b"again"


def test_a_full_disk_names_free_space_and_what_to_do(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Space:
        f_files, f_favail, f_frsize, f_bavail, f_blocks = 100, 9, 4096, 5, 3 * 1024

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "statvfs", lambda _: Space)
    with pytest.raises(StorageFault) as caught:
        storage.write_bytes(tmp_path / "x", b"data")
    free = f"{tmp_path / 'x'}: disk full: 0 of 12 MiB free in {tmp_path}. Free space, run again"
    assert str(caught.value) == free
    assert names(tmp_path) == []

    Space.f_favail = 0
    with pytest.raises(StorageFault, match=r"disk full: 0 of 100 files are free in"):
        storage.write_bytes(tmp_path / "x", b"data")
    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(StorageFault, match=r"disk full: no space is free in"):
        storage.write_bytes(tmp_path / "x", b"data")


def test_a_real_file_size_limit_is_a_fault_and_leaves_nothing(tmp_path) -> None:
    process = script(
        """
        import resource, sys
        from staanet import errors, storage
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        storage.write_bytes(sys.argv[1], bytes(99_999))
        try:
            storage.write_bytes(sys.argv[1], bytes(200_000))
        except errors.StorageFault as fault:
            print(fault)
        """,
        tmp_path / "x",
    )
    assert "the file-size limit is reached" in process.communicate()[0]
    assert (tmp_path / "x").stat().st_size == 99_999
    assert names(tmp_path) == ["x"]


def test_a_disk_that_writes_little_at_a_time_still_gets_everything(tmp_path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    storage.write_bytes(tmp_path / "x", bytes(range(100)))
    assert (tmp_path / "x").read_bytes() == bytes(range(100))


def test_a_file_system_that_cannot_flush_folders_is_fine(tmp_path, monkeypatch) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    storage.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_ctrl_c_leaves_no_part(tmp_path, monkeypatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(tmp_path / "x", b"new")
    assert names(tmp_path) == []


def test_a_writer_killed_at_any_moment_leaves_a_whole_file_and_a_readable_journal(tmp_path) -> None:
    rng, path, journal = random.Random(0), tmp_path / "x", Journal(tmp_path / "journal.jsonl")
    for _ in range(12):
        process = script(
            """
            import hashlib, os, sys
            from staanet import storage
            path, journal = sys.argv[1], storage.Journal(sys.argv[2])
            count = len(journal.records())
            while True:
                data = os.urandom(1 + count * 7919 % 300_000)
                storage.write_bytes(path, hashlib.sha256(data).digest() + data)
                journal.append({"item": count})
                count += 1
                if count % 3 == 0:
                    print("going", flush=True)
            """,
            path,
            journal.path,
        )
        first_line(process)
        time.sleep(rng.uniform(0, 0.03))
        assert end(process) == -signal.SIGKILL
        data = path.read_bytes()
        assert hashlib.sha256(data[32:]).digest() == data[:32]
        done = [record["item"] for record in journal.records()]
        assert done == list(range(len(done)))
    assert set(names(tmp_path)) <= {"x", "x.part", "journal.jsonl"}
    storage.write_bytes(path, b"last")
    assert names(tmp_path) == ["journal.jsonl", "x"]


# ---------------------------------------------------------------- JSON

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
@settings(max_examples=25, deadline=None)
def test_json_comes_back_as_it_was_written(tmp_path_factory, value) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    storage.write_json(path, value)
    assert storage.read_json(path) == value


def test_equal_content_is_the_same_file(tmp_path) -> None:
    storage.write_json(tmp_path / "a", {"b": 1, "a": [2.5]})
    storage.write_json(tmp_path / "b", {"a": [2.5], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text() == '{\n  "a": [\n    2.5\n  ],\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_written(tmp_path, value) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "x", {"a": value})
    assert names(tmp_path) == []


def test_a_byte_order_mark_is_accepted(tmp_path) -> None:
    (tmp_path / "x").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert storage.read_json(tmp_path / "x") == {"a": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON (Expecting value at line 1, column 1)"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": 1}{"a": 1}', "not JSON (Extra data"),
        (b"\xff\xfe{\0}\0", "not UTF-8 (byte 0). Save as UTF-8"),
        ('{"é": 1}'.encode("latin-1"), "not UTF-8 (byte 2)"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "holds the key 'c' twice"),
        (b'{"a": NaN}', "holds NaN, which is not JSON"),
        (b'{"a": -Infinity}', "holds -Infinity, which is not JSON"),
        (b'{"a": 1e999}', "holds 1e999, which is no finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "holds a number of 5000 digits"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_json_that_parsers_disagree_about_is_refused(tmp_path, data, reason) -> None:
    (tmp_path / "x").write_bytes(data)
    message = refusal(lambda: storage.read_json(tmp_path / "x"))
    assert message.startswith(f"{tmp_path / 'x'}: ")
    assert reason in message


def test_a_file_of_just_the_limit_is_read_and_of_one_byte_more_is_not(tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    assert storage.read_bytes(tmp_path / "x", 4) == b"1234"
    message = refusal(lambda: storage.read_bytes(str(tmp_path / "x"), 3))
    assert message == f"{tmp_path / 'x'}: 4 bytes; at most 3 are read"


def test_a_number_of_just_the_most_digits_is_read(tmp_path) -> None:
    (tmp_path / "x").write_text("9" * 30)
    assert storage.read_json(tmp_path / "x") == int("9" * 30)
    (tmp_path / "x").write_text("9" * 31)
    assert "holds a number of 31 digits" in refusal(lambda: storage.read_json(tmp_path / "x"))


@pytest.mark.parametrize("read", [storage.read_json, storage.sha256])
def test_only_regular_files_are_read(tmp_path, read) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert "not a regular file" in refusal(lambda place=place: read(place))
    assert "No such file" in refusal(lambda: read(tmp_path / "none"))


def test_a_json_file_of_an_absurd_size_is_not_read(tmp_path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)
    assert "1099511627776 bytes; at most" in refusal(lambda: storage.read_json(tmp_path / "x"))


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE-nulltrue \\u', max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_are_json_or_refused(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    try:
        storage.read_json(path)
    except InvalidInput as problem:
        assert problem.where == str(path)


# ---------------------------------------------------------------- the journal


def test_records_come_back_in_order(tmp_path) -> None:
    journal = Journal(tmp_path / "runs" / "journal.jsonl")
    assert journal.records() == []
    for number in range(3):
        journal.append({"id": f"clip\n{number}", "seconds": 0.5})
    assert [record["id"] for record in Journal(journal.path).records()] == [
        f"clip\n{number}" for number in range(3)
    ]


@pytest.mark.parametrize("torn", [b'{"b', b'{"b": 2}', b"\0\0\0", b"x" * 200_000])
def test_a_torn_last_line_is_ignored_and_never_swallows_the_next(tmp_path, torn) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": 1})
    with journal.path.open("ab") as file:
        file.write(torn)
    assert journal.records() == [{"a": 1}]
    journal.append({"c": 3})
    assert journal.records() == [{"a": 1}, {"c": 3}]


def test_a_journal_torn_in_its_first_line_begins_anew(tmp_path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b'{"a"')
    journal.append({"c": 3})
    assert journal.records() == [{"c": 3}]


@pytest.mark.parametrize(
    ("line", "reason"), [(b'{"a": ', "not JSON"), (b"[1]", "not a JSON object"), (b"", "not JSON")]
)
def test_a_torn_middle_line_is_refused_with_its_number(tmp_path, line, reason) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    message = refusal(Journal(path).records)
    assert message.startswith(f"{path}:2: ")
    assert reason in message


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_append_leaves_the_journal_as_it_was(tmp_path, at, number) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": 1})
    with pytest.MonkeyPatch.context() as patch:
        Faults(patch, at, number, always=False)
        with pytest.raises(StorageFault):
            journal.append({"b": 2})
    assert journal.records() == [{"a": 1}]
    journal.append({"c": 3})
    assert journal.records() == [{"a": 1}, {"c": 3}]


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path, monkeypatch) -> None:
    journal, write = Journal(tmp_path / "journal.jsonl"), os.write
    journal.append({"a": 1})
    size = journal.path.stat().st_size

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFault, match="disk full"):
        journal.append({"b": "long enough"})
    assert journal.path.stat().st_size == size


def test_a_line_beyond_every_limit_is_refused_and_the_longest_is_read(
    tmp_path, monkeypatch
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": "x" * 80})
    monkeypatch.setattr(journal_module, "MAX_READ_BYTES", journal.path.stat().st_size)
    assert journal.records() == [{"a": "x" * 80}]
    monkeypatch.setattr(journal_module, "MAX_READ_BYTES", 30)
    assert f"{journal.path}:1: this line is longer than 30 bytes" in refusal(journal.records)


@pytest.mark.parametrize("length", [65_530, 65_536, 65_537, 140_000])
def test_the_end_of_a_long_line_is_found_wherever_blocks_end(tmp_path, length) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": 1})
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b"x" * length)
    journal.append({"b": 2})
    assert journal.path.read_bytes() == whole + b'{"b": 2}\n'


def test_a_new_journal_is_flushed_with_its_folder_and_an_old_one_without(
    tmp_path, monkeypatch
) -> None:
    flushed, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({})
    journal.append({})
    assert flushed == [False, True, False]


def test_a_journal_is_never_written_through_a_link(tmp_path) -> None:
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "other")
    assert "not a regular file" in refusal(lambda: Journal(tmp_path / "journal.jsonl").append({}))
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------- the lock


def test_a_held_folder_names_its_holder(tmp_path) -> None:
    with FolderLock(tmp_path / "run") as lock, pytest.raises(FolderLocked) as caught:
        assert lock.folder == tmp_path / "run"
        FolderLock(tmp_path / "run").__enter__()
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'run'}: another run holds the folder (pid {os.getpid()}"
    )
    assert f"on {socket.gethostname()} since 20" in message
    assert caught.value.exit_code == 6


def test_a_folder_is_free_again_after_the_block(tmp_path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), FolderLock(tmp_path):
            (tmp_path / "work").write_bytes(b"done")
            raise RuntimeError
    assert (tmp_path / ".lock").read_bytes() == b""  # equal for every finished run


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_another_run_removes_while_it_is_made_is_made_again(
    tmp_path, monkeypatch, error
) -> None:
    make, failed = Path.mkdir, []

    def raced(path: Path, *args: Any, **kwargs: Any) -> None:
        if not failed:
            failed.append(path)
            raise error(errno.ENOENT, "gone")
        make(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", raced)
    with FolderLock(tmp_path / "new" / "run") as lock:
        assert (lock.folder / ".lock").exists() and failed


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_that_is_no_file_is_refused(tmp_path, kind) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    if kind == "link":
        (tmp_path / ".lock").symlink_to("other")
    else:
        os.mkfifo(tmp_path / ".lock")
    assert "not a regular file" in refusal(lambda: FolderLock(tmp_path).__enter__())
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_no_descriptor_is_left_open(tmp_path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for number in range(20):
        storage.write_bytes(tmp_path / "a", b"1")
        Journal(tmp_path / "notes.jsonl").append({"number": number})
        storage.copy(tmp_path / "a", tmp_path / f"b{number % 2}")
        with FolderLock(tmp_path), pytest.raises(FolderLocked):
            FolderLock(tmp_path).__enter__()
    assert opened() == before


def test_what_is_no_number_is_written_into_no_checkpoint_or_journal(tmp_path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.save_checkpoint(tmp_path, 1, {"w": torch.ones(1)}, {"loss": math.nan})
    with pytest.raises(ValueError, match="JSON compliant"):
        Journal(tmp_path / "journal.jsonl").append({"loss": math.inf})
    assert storage.latest_checkpoint(tmp_path) is None and not list(tmp_path.iterdir())


def test_a_folder_without_work_is_left_as_it_was(tmp_path) -> None:
    out = tmp_path / "new" / "run"
    for note in ("", storage.UNFINISHED):
        with pytest.raises(RuntimeError), FolderLock(out):
            assert json.loads((out / ".lock").read_text())["pid"] == os.getpid()
            if note:
                (out / note).write_bytes(b"{}")
            raise RuntimeError
        assert not list(tmp_path.iterdir())
    with FolderLock(out):
        (out / "work").write_bytes(b"done")
    assert (out / "work").exists()


def test_what_was_there_before_is_never_removed(tmp_path) -> None:
    with FolderLock(tmp_path):
        pass
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())
    (tmp_path / storage.UNFINISHED).write_bytes(b"{}")  # of a run that was killed
    with FolderLock(tmp_path):
        pass
    assert (tmp_path / storage.UNFINISHED).read_bytes() == b"{}"


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch) -> None:
    """Another run may end, and remove file and folder, between the opening and the locking."""
    out, lock, again = tmp_path / "run", fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not again:
            again.append(True)
            shutil.rmtree(out)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with FolderLock(out), pytest.raises(FolderLocked):
        FolderLock(out).__enter__()
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: shutil.rmtree(out))
    with pytest.raises(StorageFault, match="vanishes while it is locked"):
        FolderLock(out).__enter__()


def test_the_kernel_frees_the_lock_of_a_killed_run(tmp_path) -> None:
    process = script(
        """
        import sys, time
        from staanet.storage import FolderLock
        with FolderLock(sys.argv[1]):
            print("held", flush=True)
            time.sleep(60)
        """,
        tmp_path,
    )
    assert first_line(process) == "held\n"
    with pytest.raises(FolderLocked, match=rf"pid {process.pid} on"):
        FolderLock(tmp_path).__enter__()
    end(process)
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_holder_that_has_not_signed_yet_is_unknown(tmp_path) -> None:
    with FolderLock(tmp_path):
        for text in ("", "{}", "[]", "{"):
            (tmp_path / ".lock").write_text(text)
            with pytest.raises(FolderLocked, match="pid unknown"):
                FolderLock(tmp_path).__enter__()


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(FolderLocked, match="has no locks") as caught:
        FolderLock(tmp_path).__enter__()
    assert "local disk" in caught.value.remedy


def test_a_full_disk_frees_the_lock_again(tmp_path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Faults(patch, 2, errno.ENOSPC, always=False)
        with pytest.raises(StorageFault, match="disk full"):
            FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path):
        pass


# ---------------------------------------------------------------- cards


def test_a_card_says_kind_schema_and_versions(tmp_path) -> None:
    storage.write_card(tmp_path, {"kind": "run", "recipe": "quick", "schema": 99})
    card = storage.read_card(tmp_path, "run")
    assert (card["kind"], card["schema"], card["recipe"]) == ("run", storage.SCHEMA, "quick")
    assert card["torch"] == torch.__version__
    assert {"staanet", "python", "numpy"} <= card.keys()


def test_versions_name_only_what_is_loaded_and_an_unknown_staanet(tmp_path) -> None:
    process = script(
        """
        import sys
        from importlib import metadata
        from staanet import storage
        def missing(name):
            raise metadata.PackageNotFoundError(name)
        metadata.version = missing
        storage.write_card(sys.argv[1], {"kind": "run"})
        """,
        tmp_path,
    )
    process.communicate()
    card = storage.read_card(tmp_path, "run")
    assert card["staanet"] == "0+unknown"
    assert "torch" not in card


def test_a_card_without_a_kind_is_our_own_mistake(tmp_path) -> None:
    with pytest.raises(AssertionError):
        storage.write_card(tmp_path, {"recipe": "quick"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "not a staanet victim folder; no card.json in it"),
        ("[]", "not a card: not a JSON object"),
        ('{"kind": "victim"}', "not a card: it names no schema"),
        ('{"kind": "victim", "schema": true}', "names no schema"),
        ('{"kind": "victim", "schema": 0}', "names no schema"),
        ('{"kind": "victim", "schema": "1"}', "names no schema"),
        ('{"kind": "generator", "schema": 1}', "holds a generator, not a victim"),
        ('{"schema": 1}', "holds a None, not a victim"),
        (
            '{"kind": "generator", "schema": 2}',
            "a generator of schema 2; this staanet knows schema 1. Install a newer staanet",
        ),
        ('{"kind": "victim", "kind": "victim", "schema": 1}', "holds the key 'kind' twice"),
        ('{"kind": "victim"', "not JSON"),
    ],
)
def test_an_unfit_card_is_refused(tmp_path, text, reason) -> None:
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    assert reason in refusal(lambda: storage.read_card(tmp_path, "victim"))


def test_a_folder_holds_what_its_card_says(tmp_path) -> None:
    assert not storage.holds(tmp_path, "victim")
    storage.write_card(tmp_path, {"kind": "victim"})
    assert storage.holds(tmp_path, "victim") and not storage.holds(tmp_path, "generator")
    (tmp_path / "card.json").write_text("[]")
    assert not storage.holds(tmp_path, "victim")


def test_what_is_no_folder_has_no_card(tmp_path) -> None:
    (tmp_path / "model.pt").write_bytes(b"<html>404</html>")
    message = refusal(lambda: storage.read_card(tmp_path / "model.pt", "victim"))
    assert "a file, not a staanet victim folder" in message
    assert "pickles (.pt, .bin) are never loaded" in message
    assert "no such folder" in refusal(lambda: storage.read_card(tmp_path / "none", "victim"))


# ---------------------------------------------------------------- models


def tensors() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 4, generator=rng),
        "count": torch.tensor(7),
        "half": torch.randn(5, generator=rng).half(),
        "brain": torch.randn(5, generator=rng).bfloat16(),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left
    )


def saved(folder: Path, weights: bytes | None = None) -> Path:
    """A victim folder; with ``weights``, one whose card vouches for them."""
    storage.save_model(folder, kind="victim", tensors=tensors(), card={"labels": ["joy"]})
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        digest = hashlib.sha256(weights).hexdigest()
        storage.write_card(folder, {"kind": "victim", "sha256": digest})
    return folder


def test_a_model_comes_back_bit_by_bit(tmp_path) -> None:
    loaded, card = storage.load_model(saved(tmp_path), kind="victim")
    assert equal(loaded, tensors())
    assert card["labels"] == ["joy"]
    assert card["sha256"] == storage.sha256(tmp_path / "model.safetensors")
    assert names(tmp_path) == ["card.json", "model.safetensors"]


def test_equal_models_are_equal_files(tmp_path) -> None:
    for folder in ("a", "b"):
        saved(tmp_path / folder)
    assert storage.sha256(tmp_path / "a/card.json") == storage.sha256(tmp_path / "b/card.json")


def test_tied_and_transposed_weights_are_saved(tmp_path) -> None:
    base = torch.arange(6.0).reshape(2, 3).requires_grad_()
    views = {"a": base, "b": base.T, "c": base[0]}
    storage.save_model(tmp_path, kind="victim", tensors=views, card={})
    assert equal(storage.load_model(tmp_path, kind="victim")[0], views)


def test_one_flipped_bit_anywhere_in_the_weights_is_refused(tmp_path) -> None:
    path = saved(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    rng = random.Random(0)
    for place in [len(data) - 1, *(rng.randrange(len(data)) for _ in range(40))]:
        path.write_bytes(
            data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        )
        message = refusal(lambda: storage.load_model(tmp_path, kind="victim"))
        assert message.startswith(str(path))
    assert "sha256 differs from card.json" in message or "not" in message
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = refusal(lambda: storage.load_model(tmp_path, kind="victim"))
    assert "sha256 differs from card.json" in message


def test_a_writer_killed_between_weights_and_card_leaves_no_model(tmp_path) -> None:
    storage.write_bytes(tmp_path / "model.safetensors", save(tensors()))
    assert "no card.json" in refusal(lambda: storage.load_model(tmp_path, kind="victim"))
    saved(tmp_path)
    storage.write_bytes(tmp_path / "model.safetensors", save({"other": torch.zeros(1)}))
    assert "sha256 differs" in refusal(lambda: storage.load_model(tmp_path, kind="victim"))


def test_a_card_without_a_hash_vouches_for_nothing(tmp_path) -> None:
    saved(tmp_path)
    storage.write_card(tmp_path, {"kind": "victim"})
    assert "sha256 differs" in refusal(lambda: storage.load_model(tmp_path, kind="victim"))


def test_a_card_without_weights_is_refused(tmp_path) -> None:
    (saved(tmp_path) / "model.safetensors").unlink()
    assert "No such file" in refusal(lambda: storage.load_model(tmp_path, kind="victim"))


def framed(header: bytes | dict[str, Any], body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


GOOD = save({"a": torch.arange(6.0)})


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"<html><body>404</body>", "not a safetensors file (starts with '<html><body>')"),
        (b"\x80\x02}q\0." + bytes(60), r"not a safetensors file (starts with '\x80\x02}q\x00."),
        (b"PK\3\4" + bytes(60), "not a safetensors file (starts with 'PK"),
        (b"short", "not a safetensors file (starts with 'short')"),
        (struct.pack("<Q", 2**63) + GOOD[8:], "its header claims 9223372036854775808 bytes"),
        (struct.pack("<Q", 200 * 10**6) + GOOD[8:], "its header claims 200000000 bytes"),
        (GOOD[:20], "cut or damaged"),
        (GOOD[:-3], "its header describes 88 bytes, the file holds 85: cut or damaged"),
        (framed({"a": 3}), "damaged safetensors file"),
        (framed({"a": {"data_offsets": "x"}}), "damaged safetensors file"),
        (GOOD + b"more", "its header describes 88 bytes, the file holds 92: cut or damaged"),
        (framed({"a": entry(), "b": entry()}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(shape=[3])}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(shape=[2**40, 2**40])}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(shape=[-2])}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(dtype="F99")}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(dtype="F4", shape=[16])}, bytes(8)), "damaged safetensors file"),
        (framed({"a": entry(data_offsets=[8, 16])}, bytes(16)), "damaged safetensors file"),
        (framed(b'{"a": 1, "a": 2}'), "holds the key 'a' twice"),
        (framed(b'{"a":' * 200_000), "nested too deeply"),
        (framed(b'{"\xff": 1}'), "not UTF-8"),
    ],
)
def test_a_false_safetensors_file_is_refused_even_if_its_card_vouches_for_it(
    tmp_path, weights, reason
) -> None:
    message = refusal(lambda: storage.load_model(saved(tmp_path, weights), kind="victim"))
    assert message.startswith(str(tmp_path / "model.safetensors"))
    assert reason in message


def test_a_huge_file_that_is_none_is_refused_before_it_is_read(tmp_path) -> None:
    saved(tmp_path, GOOD)
    for start in (b"", GOOD):
        with open(tmp_path / "model.safetensors", "wb") as out:
            out.write(start)
            out.truncate(2**43)  # of zeros that take no room
        begun = time.monotonic()
        message = refusal(lambda: storage.load_model(tmp_path, kind="victim"))
        assert "not a safetensors file" in message or "the file holds 8796093022208" in message
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.fill_(math.nan), "weight holds 6 values that are no finite number"),
        (lambda w: w[0].fill_(-math.inf), "weight holds 2 values that are no finite number"),
        (lambda w: w.to(torch.complex64), "weight holds complex64, not float32"),
        (lambda w: w.to(torch.int32), "weight holds int32, not float32"),
    ],
)
def test_weights_that_are_no_numbers_of_the_networks_kind_are_refused(change, reason) -> None:
    module = nn.Linear(2, 3)
    given = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    changed = change(given["weight"])
    given["weight"] = given["weight"] if changed.dtype == torch.float32 else changed
    assert reason in refusal(lambda: storage.fill_module(module, given, "a"))
    half = {name: tensor.half() for name, tensor in module.state_dict().items()}
    storage.fill_module(module, half, "a")  # fewer bits of the same kind are numbers, too


def test_nothing_is_ever_unpickled(tmp_path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"weight": Bomb()}, tmp_path / "model.pt")
    found = []
    sys.addaudithook(lambda event, _: found.append(event) if event.startswith("pickle") else None)
    refusal(lambda: storage.load_model(tmp_path, kind="victim"))
    refusal(lambda: storage.load_model(tmp_path / "model.pt", kind="victim"))
    weights = (tmp_path / "model.pt").read_bytes()
    folder = saved(tmp_path / "victim", weights)
    message = refusal(lambda: storage.load_model(folder, kind="victim"))
    assert "not a safetensors file (starts with 'PK" in message
    assert not (tmp_path / "owned").exists()
    assert "pickle.find_class" not in found


@pytest.mark.parametrize(
    "error",
    [TypeError("x"), ValueError("x"), KeyError("x"), RuntimeError("x"), ZeroDivisionError("x")],
)
def test_what_a_constructor_rejects_is_the_cards_fault(error) -> None:
    def build() -> int:
        raise error

    message = refusal(lambda: storage.build_from_card(build, "runs/a"))
    assert message.startswith("runs/a/card.json: describes nothing that can be built")
    assert type(error).__name__ in message


def test_a_constructor_that_explains_itself_is_heard() -> None:
    def build() -> int:
        raise InvalidInput("4 labels", where="here")

    assert refusal(lambda: storage.build_from_card(build, "runs/a")) == "here: 4 labels"


def test_weights_that_fit_are_filled_in() -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    storage.fill_module(target, source.state_dict(), "runs/a")
    assert torch.equal(source.weight, target.weight)


def test_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "extra\n": torch.zeros(1)}
    message = refusal(lambda: storage.fill_module(module, given, "runs/a"))
    assert message.startswith("runs/a/model.safetensors: the weights do not fit the network: ")
    assert "1.bias is missing, 1.weight is missing, 2.bias is missing" in message
    assert r"extra\n is unexpected" in message
    assert "and 1 more" in message
    assert equal(dict(module.state_dict()), before)
    message = refusal(lambda: storage.fill_module(nn.Linear(2, 3), {"bias": given["0.bias"]}, "a"))
    assert "weight is missing, bias is [4], not [3]. Load" in message


# ---------------------------------------------------------------- checkpoints


def step(folder: Path, number: int) -> Path:
    return folder / f"step-{number:08d}.safetensors"


def test_the_newest_two_checkpoints_are_kept_and_the_newest_is_given(tmp_path) -> None:
    assert storage.latest_checkpoint(tmp_path / "none") is None
    for number in (40, 80, 120):
        state = {"step": number, "rng": [1, 2], "best": 0.1 + 0.2}
        storage.save_checkpoint(tmp_path, number, tensors(), state)
    assert names(tmp_path) == [step(tmp_path, 80).name, step(tmp_path, 120).name]
    found = storage.latest_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == state
    assert equal(found[0], tensors())


def test_equal_checkpoints_are_equal_files(tmp_path) -> None:
    digests = set()
    for name in "abc":
        storage.save_checkpoint(tmp_path / name, 1, tensors(), {"b": 1, "a": 2})
        digests.add(storage.sha256(step(tmp_path / name, 1)))
    assert len(digests) == 1


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path) -> None:
    storage.save_checkpoint(tmp_path, 1, tensors(), {"step": 1})
    storage.save_checkpoint(tmp_path, 2, tensors(), {"step": 2})
    whole, rng = step(tmp_path, 2).read_bytes(), random.Random(0)
    places = [rng.randrange(len(whole)) for _ in range(60)]
    flipped = [whole[:p] + bytes([whole[p] ^ 1]) + whole[p + 1 :] for p in places]
    lacking = save({"weight": torch.zeros(1)})  # safetensors, but none of ours
    for damaged in [b"", whole[:-1], whole[: len(whole) // 2], lacking, b"<html>", *flipped]:
        step(tmp_path, 2).write_bytes(damaged)
        found = storage.latest_checkpoint(tmp_path)
        assert found is not None
        if found[1] == {"step": 2}:  # padding was hit: nothing of it is read
            assert equal(found[0], tensors())
        else:
            assert found[1] == {"step": 1}
    step(tmp_path, 1).write_bytes(b"")
    step(tmp_path, 2).unlink()
    step(tmp_path, 3).mkdir()
    assert storage.latest_checkpoint(tmp_path) is None


def test_checkpoints_of_a_course_given_up_go(tmp_path) -> None:
    for number in (100, 200):
        storage.save_checkpoint(tmp_path, number, tensors(), {})
    storage.save_checkpoint(tmp_path, 150, tensors(), {"resumed": True})
    assert names(tmp_path) == [step(tmp_path, 100).name, step(tmp_path, 150).name]


def test_checkpoints_are_discarded_with_their_parts_and_nothing_else(tmp_path) -> None:
    storage.save_checkpoint(tmp_path, 5, tensors(), {})
    (tmp_path / "step-00000006.safetensors.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"kept")
    storage.discard_checkpoints(tmp_path)
    storage.discard_checkpoints(tmp_path / "none")
    assert names(tmp_path) == ["notes.txt"]


def test_a_full_disk_leaves_the_checkpoints_that_were(tmp_path) -> None:
    for number in (1, 2):
        storage.save_checkpoint(tmp_path, number, tensors(), {"step": number})
    with pytest.MonkeyPatch.context() as patch:
        Faults(patch, 2, errno.ENOSPC, always=True)
        with pytest.raises(StorageFault, match="disk full"):
            storage.save_checkpoint(tmp_path, 3, tensors(), {"step": 3})
    assert names(tmp_path) == [step(tmp_path, 1).name, step(tmp_path, 2).name]
    found = storage.latest_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == {"step": 2}
