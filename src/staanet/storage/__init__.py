"""What reaches the disk: whole files or none, a journal, a folder lock, models with their cards.

A file is written as ``NAME.part`` beside its target, flushed to the disk and renamed, so that a
reader sees the old bytes or the new ones whenever the writer dies. Weights are safetensors beside a
``card.json`` that holds their sha256; pickles are never opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from staanet.errors import FolderLocked, InvalidInput, StorageFault, printable

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
SCHEMA = 1
WEIGHTS, CARD = "model.safetensors", "card.json"
LOCK, UNFINISHED = ".lock", "unfinished.json"
"""What holds a folder, and what unfinished work in it is made from, so that it never goes on with another's."""
_MAX_JSON_BYTES = 256 * 2**20
_MAX_HEADER_BYTES = 100 * 10**6
_MAX_DIGITS = 30
_COPY_BYTES = 2**20
_ATTEMPTS = 100


# ---------------------------------------------------------------- whole files


def write_bytes(path: Path | str, data: bytes) -> None:
    """Put ``data`` at ``path``, wholly or not at all, making its folder where it is missing.

    Raises ``StorageFault`` when the disk fails (what stood at ``path`` stays as it was), and
    ``InvalidInput`` where ``path`` is a device, a link, a folder: those are never replaced.
    """
    with FileWriter(path) as file:
        file.write(data)


class FileWriter:
    """A file written bit by bit that is at ``path`` wholly or not at all; raises as ``write_bytes``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with FileWriter(f"{folder}/a") as file:
    ...         file.write(b"one, ")
    ...         file.write(b"two")
    ...     Path(f"{folder}/a").read_bytes()
    b'one, two'
    """

    def __init__(self, path: Path | str) -> None:
        self.target = Path(path)
        self.part = self.target.with_name(f"{self.target.name}.part")
        self._descriptor = -1

    def __enter__(self) -> Self:
        with _faults(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            for place in (self.target, self.part):
                _refuse_to_replace(place)
            self.part.unlink(missing_ok=True)  # left by a killed writer; never written through
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.part, flags, 0o666)
        return self

    def write(self, data: bytes) -> None:
        """Add ``data`` behind what was written so far."""
        with _faults(self.target):
            _write_all(self._descriptor, data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with _faults(self.target):
                try:
                    if kind is None:
                        os.fsync(self._descriptor)
                finally:
                    os.close(self._descriptor)
                if kind is None:
                    self.part.replace(self.target)
                    _sync_folder(self.target.parent)
        except BaseException:
            self._discard()
            raise
        if kind is not None:
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)


def copy(source: Path | str, target: Path | str) -> None:
    """The bytes of a regular file at another place, in blocks; nothing is done where they are there."""
    with _regular(source) as (stream, size):
        if Path(target).is_file() and Path(target).stat().st_size == size:
            with _regular(target) as (there, _):
                if _blocks_equal(stream, there):
                    return
            stream.seek(0)
        with FileWriter(target) as file:
            while block := stream.read(_COPY_BYTES):
                file.write(block)


def _blocks_equal(one: BufferedReader, other: BufferedReader) -> bool:
    while block := one.read(_COPY_BYTES):
        if block != other.read(_COPY_BYTES):
            return False
    return not other.read(1)


def make_folder(folder: Path | str) -> None:
    """Make a folder and those above it; raises ``StorageFault`` or ``InvalidInput`` where it cannot be.

    >>> make_folder("/dev/null/runs")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: /dev/null/runs: a file stands where a folder is due. ...
    """
    place = Path(folder)
    with _faults(place):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidInput(
                "a file stands where a folder is due",
                where=place,
                remedy="Choose another folder with --out",
            ) from error


def remove(path: Path | str) -> None:
    """Remove a file, if it is there; ``StorageFault`` where the disk does not let us."""
    with _faults(Path(path)):
        Path(path).unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """``write_bytes`` in UTF-8; what UTF-8 cannot hold (undecodable file names) is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, obj: Any) -> None:
    """``write_bytes`` as JSON that is the same for equal content and has no NaN or infinity."""
    text = json.dumps(obj, allow_nan=False, sort_keys=True, indent=2)
    write_bytes(path, f"{text}\n".encode("ascii"))


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, refusing what parsers disagree about.

    Raises ``InvalidInput`` where the file is missing, not UTF-8 (a byte order mark is accepted),
    not JSON, nested too deeply, or holds a key twice, NaN, infinity or a number beyond use.
    """
    return _parse_json(_read_regular(path, _MAX_JSON_BYTES), path)


def read_bytes(path: Path | str, limit: int = _MAX_JSON_BYTES) -> bytes:
    """A regular file of at most ``limit`` bytes; ``InvalidInput`` where it is none or longer."""
    return _read_regular(path, limit)


def sha256(path: Path | str) -> str:
    """The sha256 of a regular file, as 64 hex digits; ``InvalidInput`` where it cannot be read."""
    with _regular(path) as (stream, _):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _refuse_to_replace(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise InvalidInput(
            "exists and is not a regular file", where=path, remedy="Choose another place to write"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder, and need not
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` into the ``StorageFault`` that says what to do about it."""
    try:
        yield
    except OSError as error:
        what, remedy = _explain(error, path.parent)
        raise StorageFault(what, where=path, remedy=remedy) from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise InvalidInput(f"no file can have this name ({error})", where=path) from error


def _explain(error: OSError, folder: Path) -> tuple[str, str]:
    again = "Free space, run again"
    match error.errno:
        case errno.ENOSPC:
            return f"disk full: {_free(folder)} in {printable(str(folder))}", again
        case errno.EDQUOT:
            return f"disk quota used up in {printable(str(folder))}", again
        case errno.EFBIG:
            return "the file-size limit is reached", "Raise it (ulimit -f unlimited), run again"
        case errno.EROFS:
            return "the disk is read-only", "Choose another folder with --out, or mount it writable"
        case errno.ENOTDIR | errno.EEXIST:
            return "a file stands where a folder is due", "Choose another place to write"
        case errno.EACCES | errno.EPERM:
            return "no permission to write", "Choose another folder with --out, or ask for access"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot be written ({reason})", "Check the disk and the folder, run again"


def _free(folder: Path) -> str:
    try:
        space = os.statvfs(folder)
    except OSError:
        return "no space is free"
    if space.f_files and not space.f_favail:
        return f"0 of {space.f_files} files are free"
    free, total = (blocks * space.f_frsize // 2**20 for blocks in (space.f_bavail, space.f_blocks))
    return f"{free} of {total} MiB free"


@contextlib.contextmanager
def _regular(path: Path | str) -> Iterator[tuple[BufferedReader, int]]:
    """An open regular file and its size; never waits for a pipe, never opens a device."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InvalidInput("not a regular file", where=path)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InvalidInput(f"cannot be read ({reason})", where=path) from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise InvalidInput(f"no file can have this name ({error})", where=path) from error


def _read_regular(path: Path | str, limit: int) -> bytes:
    with _regular(path) as (stream, size):
        if size > limit:
            raise InvalidInput(f"{size} bytes; at most {limit} are read", where=path)
        return stream.read(size)


# ---------------------------------------------------------------- JSON without surprises


def _parse_json(data: bytes, where: object) -> Any:
    def refuse(what: str) -> NoReturn:
        raise InvalidInput(what, where=where, remedy="Mend the file, or write it again")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            refuse(f"holds the key '{printable(twice)[:40]}' twice")
        return found

    def integer(text: str) -> int:
        if len(text) > _MAX_DIGITS:
            refuse(f"holds a number of {len(text)} digits")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(f"holds {text[:40]}, which is no finite number")
        return value

    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda name: refuse(f"holds {name}, which is not JSON"),
        )
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"not UTF-8 (byte {error.start})", where=where, remedy="Save as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})",
            where=where,
            remedy="Mend the file, or write it again",
        ) from error
    except RecursionError:
        refuse("nested too deeply")


# ---------------------------------------------------------------- what is done, and by whom


class Journal:
    """An append-only file of JSON lines that says what is done; a torn last line is skipped."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record and flush it to the disk; ``StorageFault`` leaves the file as it was."""
        line = json.dumps(record, allow_nan=False, sort_keys=True).encode("ascii") + b"\n"
        with _faults(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_to_replace(self.path)
            is_new = not self.path.exists()
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666
            )
            try:
                end = _end_of_lines(descriptor)
                os.ftruncate(descriptor, end)  # a torn line must not swallow the next one
                try:
                    _write_all(descriptor, line)
                    os.fsync(descriptor)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                _sync_folder(self.path.parent)

    def records(self) -> list[dict[str, Any]]:
        """All whole records, oldest first; none where the file is missing.

        Raises ``InvalidInput`` where a line other than a torn last one is not a JSON object.
        """
        return list(self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records one by one, however long the file is; see ``records``."""
        if not os.path.lexists(self.path):
            return
        with _regular(self.path) as (stream, _):
            for number, line in enumerate(iter(partial(stream.readline, _MAX_JSON_BYTES), b""), 1):
                where = f"{self.path}:{number}"
                if not line.endswith(b"\n"):
                    if len(line) == _MAX_JSON_BYTES:
                        raise InvalidInput(f"a line of over {_MAX_JSON_BYTES} bytes", where=where)
                    return
                record = _parse_json(line, where)
                if not isinstance(record, dict):
                    raise InvalidInput("not a JSON object", where=where)
                yield record


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65_536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


class FolderLock:
    """Holds a folder for one process, ``with FolderLock(run):``; the kernel frees it on any death.

    The folder is made where it is missing. Where no work was put into it, as after a mistake in the
    command line, it is left as it was before: empty, or not there. Raises ``FolderLocked`` with pid,
    host and time of the holder, and as ``make_folder``.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._descriptor = -1
        self._made: list[Path] = []
        self._was_empty = False

    def __enter__(self) -> Self:
        path = self.folder / LOCK
        self._made = [p for p in (self.folder, *self.folder.parents) if not os.path.lexists(p)]
        if not any(self._taken(path) for _ in range(_ATTEMPTS)):
            raise StorageFault(
                "vanishes while it is locked",
                where=self.folder,
                remedy="Choose another folder with --out",
            )
        with _faults(path):
            try:
                self._was_empty = [one.name for one in self.folder.iterdir()] == [LOCK]
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(holder).encode("ascii"), 0)
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            left = {one.name for one in self.folder.iterdir()}
            if self._was_empty and left <= {LOCK, UNFINISHED}:
                for name in sorted(left, reverse=True):  # the lock is ours until the last
                    (self.folder / name).unlink()
                for folder in self._made:
                    folder.rmdir()
        self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def _taken(self, path: Path) -> bool:
        """Whether the lock is ours and still the file of that name, which whoever held it may have removed."""
        try:
            make_folder(self.folder)
        except (InvalidInput, StorageFault) as problem:
            if isinstance(problem.__cause__, FileNotFoundError | FileExistsError) and not (
                os.path.lexists(self.folder)
            ):
                return False  # removed while it was made
            raise
        with _faults(path):
            _refuse_to_replace(path)
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                return False
            try:
                self._lock()
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._descriptor), path.stat()):
                        return True
            except BaseException:
                self._close()
                raise
            self._close()
            return False

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderLocked(
                f"another run holds the folder ({_holder(os.pread(self._descriptor, 4096, 0))})",
                where=self.folder,
                remedy="Wait until it ends, or choose another folder with --out",
            ) from error
        except OSError as error:
            raise FolderLocked(
                f"the file system has no locks ({os.strerror(error.errno or 0)}): another run may "
                "hold the folder",
                where=self.folder,
                remedy="Choose a folder on a local disk with --out",
            ) from error


def _holder(data: bytes) -> str:
    try:
        holder = json.loads(data)
        return printable(f"pid {holder['pid']} on {holder['host']} since {holder['since']}")
    except (ValueError, TypeError, KeyError):
        return "pid unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---------------------------------------------------------------- cards and models


def write_card(folder: Path | str, card: Mapping[str, Any]) -> None:
    """Write ``card.json``: ``card`` (with its ``kind``) and the versions that made it."""
    assert isinstance(card.get("kind"), str), "a card says what it describes"
    write_json(Path(folder) / CARD, {**card, "schema": SCHEMA, **_versions()})


def read_card(folder: Path | str, kind: str) -> dict[str, Any]:
    """The card of a folder that holds a ``kind`` (``victim``, ``generator``, ``run`` ...).

    Raises ``InvalidInput`` where there is none, it is damaged, of another kind, or newer.
    """
    place = Path(folder)
    remedy = (
        f"Give the folder of {_a(kind)} that staanet wrote; pickles (.pt, .bin) are never loaded"
    )
    if not os.path.lexists(place):
        raise InvalidInput("no such folder", where=folder, remedy=remedy)
    if not place.is_dir():
        raise InvalidInput(f"a file, not a staanet {kind} folder", where=folder, remedy=remedy)
    if not os.path.lexists(place / CARD):
        raise InvalidInput(
            f"not a staanet {kind} folder; no {CARD} in it", where=folder, remedy=remedy
        )
    card = read_json(place / CARD)
    if not isinstance(card, dict):
        raise InvalidInput("not a card: not a JSON object", where=place / CARD, remedy=remedy)
    schema = card.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise InvalidInput("not a card: it names no schema", where=place / CARD, remedy=remedy)
    found = printable(str(card.get("kind")))[:40]
    if schema > SCHEMA:
        raise InvalidInput(
            f"{_a(found)} of schema {schema}; this staanet knows schema {SCHEMA}",
            where=place / CARD,
            remedy="Install a newer staanet",
        )
    if card.get("kind") != kind:
        raise InvalidInput(f"holds {_a(found)}, not {_a(kind)}", where=folder, remedy=remedy)
    return card


def _a(kind: str) -> str:
    thing = "adversarial set" if kind == "adversarial" else kind
    return f"an {thing}" if thing[:1] in "aeiou" else f"a {thing}"


def holds(folder: Path | str, kind: str) -> bool:
    """Whether a folder's card says that it is a ``kind``; False where there is no readable card."""
    try:
        return bool(read_card(folder, kind))
    except InvalidInput:
        return False


def _versions() -> dict[str, str]:
    try:
        own = metadata.version("staanet")
    except metadata.PackageNotFoundError:
        own = "0+unknown"
    found = {"staanet": own, "python": platform.python_version()}
    for name in ("numpy", "torch"):
        if name in sys.modules:
            found[name] = str(sys.modules[name].__version__)
    return found


def save_model(
    folder: Path | str, *, kind: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]
) -> None:
    """Write ``model.safetensors`` and then ``card.json`` with its sha256.

    A writer killed between the two leaves a folder that ``load_model`` refuses.
    """
    data = _serialise(tensors)
    write_bytes(Path(folder) / WEIGHTS, data)
    digest = hashlib.sha256(data).hexdigest()
    write_card(folder, {**card, "kind": kind, "sha256": digest})


def load_model(folder: Path | str, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and card, as ``save_model`` wrote them.

    Raises ``InvalidInput`` where the card is unfit (see ``read_card``), the weights are not
    safetensors, or their sha256 is not the card's.
    """
    card = read_card(folder, kind)
    path = Path(folder) / WEIGHTS
    data, _ = _read_safetensors(path)
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise InvalidInput(
            f"sha256 differs from {CARD}: the weights were changed or the folder is half written",
            where=path,
            remedy="Copy the folder again, or train again",
        )
    return _deserialise(data, path), card


def build_from_card(build: Callable[[], T], folder: Path | str) -> T:
    """``build()``, whose arguments come from a card: what it rejects is the card's fault.

    >>> build_from_card(lambda: 3, "victims/emo18")
    3
    """
    try:
        return build()
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        raise InvalidInput(
            f"describes nothing that can be built ({type(error).__name__}: "
            f"{printable(str(error))[:200]})",
            where=Path(folder) / CARD,
            remedy="Copy the folder again, or train again",
        ) from error


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path | str) -> None:
    """Load ``tensors`` into ``module``, every key in its shape and kind of number, or raise ``InvalidInput``.

    A weight that is no finite number is none either: of answers that are NaN the first class is the
    largest, whatever is asked, so that nothing would ever seem to fool such a network.
    """
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in sorted(own.keys() - tensors.keys())]
    wrong += [f"{printable(name)} is unexpected" for name in sorted(tensors.keys() - own.keys())]
    wrong += [
        f"{name} is {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ] + [
        f"{name} holds {str(tensors[name].dtype)[6:]}, not {str(own[name].dtype)[6:]}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].is_floating_point() != own[name].is_floating_point()
        or tensors[name].is_complex() != own[name].is_complex()
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InvalidInput(
            f"the weights do not fit the network: {', '.join(wrong[:5])}{more}",
            where=Path(folder) / WEIGHTS,
            remedy="Load them with the class and settings that wrote them",
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InvalidInput(
                f"{printable(name)} holds {int((~tensor.isfinite()).sum())} values that are no finite number",
                where=Path(folder) / WEIGHTS,
                remedy="Train again",
            )
    module.load_state_dict(dict(tensors), strict=True)


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(
    folder: Path | str, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write ``step-00000120.safetensors`` with ``state`` (JSON) inside; keep the newest two.

    Files of later steps belong to a course that was given up, and go.
    """
    text = json.dumps(state, allow_nan=False, sort_keys=True)
    sealed = json.dumps({"state": text, "sha256": _seal(text, tensors)})
    write_bytes(
        Path(folder) / f"step-{step:08d}.safetensors", _serialise(tensors, {"checkpoint": sealed})
    )
    past = [(s, path) for s, path in _checkpoints(folder) if s <= step]
    for found in _checkpoints(folder):
        if found not in past[-2:]:
            with _faults(found[1]):
                found[1].unlink(missing_ok=True)


def latest_checkpoint(folder: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest checkpoint that is whole; None where there is none."""
    for _, path in reversed(_checkpoints(folder)):
        try:
            data, header = _read_safetensors(path)
            sealed = header["__metadata__"]["checkpoint"]
            seal = json.loads(sealed)
            tensors = _deserialise(data, path)
            if seal["sha256"] == _seal(seal["state"], tensors):
                state: dict[str, Any] = json.loads(seal["state"])
                return tensors, state
        except (InvalidInput, LookupError, TypeError, ValueError):
            continue  # torn or damaged: the one before it is taken
    return None


def discard_checkpoints(folder: Path | str) -> None:
    """Remove all checkpoints of ``folder``, half-written ones too, once their result is saved."""
    for path in Path(folder).glob("step-*.safetensors*"):
        with _faults(path):
            path.unlink(missing_ok=True)


def _checkpoints(folder: Path | str) -> list[tuple[int, Path]]:
    """Steps and files, oldest first."""
    named = (
        (re.fullmatch(r"step-(\d{8,})\.safetensors", p.name), p) for p in Path(folder).glob("*")
    )
    return sorted((int(match[1]), path) for match, path in named if match)


def _seal(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values."""
    import torch

    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu").contiguous()
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode("ascii"))
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- safetensors


def _serialise(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    from safetensors.torch import save

    # a clone each, as safetensors refuses tensors that share memory
    whole = {n: t.detach().to("cpu").clone().contiguous() for n, t in tensors.items()}
    return save(whole, metadata)


def _read_safetensors(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A safetensors file and its header; ``InvalidInput`` where it is not one at first sight, before
    more of it is read."""
    with _regular(path) as (stream, size):
        header = _safetensors_header(stream, size, path)
        stream.seek(0)
        return stream.read(size), header


def _safetensors_header(stream: BufferedReader, size: int, path: Path) -> dict[str, Any]:
    def refuse(what: str) -> NoReturn:
        remedy = "Copy the file again; only safetensors are read, pickles never"
        raise InvalidInput(what, where=path, remedy=remedy)

    start = stream.read(12)
    if not start:
        refuse("empty (0 bytes)")
    if start[8:9] != b"{":
        said = printable(start.decode("ascii", "backslashreplace"))
        refuse(f"not a safetensors file (starts with '{said}')")
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _MAX_HEADER_BYTES):
        refuse(f"its header claims {length} bytes, the file holds {size}: cut or damaged")
    stream.seek(8)
    header: dict[str, Any] = _parse_json(stream.read(length), path)
    ends = [_end_of(place) for name, place in header.items() if name != "__metadata__"]
    if (due := 8 + length + max(ends, default=0)) != size:
        refuse(f"its header describes {due} bytes, the file holds {size}: cut or damaged")
    return header


def _end_of(place: object) -> int:
    """Where a tensor ends that a header places there; 0 for what places none, which safetensors refuses."""
    match place:
        case {"data_offsets": [int(), int() as end]}:
            return end
    return 0


def _deserialise(data: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"damaged safetensors file ({printable(str(error))[:200]})",
            where=path,
            remedy="Copy the file again",
        ) from error
