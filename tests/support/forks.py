"""The real command line in forked children: thousands of commands for one import of torch.

``python -m tests.support.forks`` is a server that has imported everything and forks a child for each request;
``Commands`` is its client. A child may be given faults: its n-th write, fsync or rename fails with an
errno, once or for ever, or kills it with SIGKILL. They are put into the child by the server, so that
the product has no hook. The clock of measured times stands still where asked, so that a resumed folder
can be compared with an uninterrupted one byte by byte.

>>> with Commands() as commands:
...     done = commands.run("corpus", "emo:x")
>>> done.code, "Did you mean 'emodb'" in done.err
(3, True)
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import html
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.support import audit_hook

ROOT = Path(__file__).resolve().parents[2]
KILL = 0
"""The errno of a fault that is no error but SIGKILL."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The ``nth`` of the calls (write, fsync, replace or any of them) fails with ``errno``."""

    nth: int
    errno: int = KILL
    call: str = "any"
    for_ever: bool = False
    after: bool = False
    """A kill after the call has done its work, not before it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (minus the signal's number), what it said, how long it took,
    how many calls to write, fsync and replace it made, and its largest memory in MiB."""

    code: int
    out: str
    err: str
    seconds: float
    calls: int = 0
    peak_mib: float = 0.0

    @property
    def is_clean(self) -> bool:
        """No traceback, no bug reported, at most three lines of error."""
        return "Traceback" not in self.err + self.out and "a bug in staanet" not in self.err


class Commands:
    """Runs ``staanet ARGUMENTS`` in forked children of one server."""

    def __init__(self, cwd: Path | str = ".") -> None:
        self.cwd = Path(cwd).absolute()
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None and self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def start(
        self,
        *arguments: object,
        cwd: Path | str | None = None,
        fault: Fault | None = None,
        still: bool = False,
        limits: Mapping[str, int] | None = None,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
        stdout: str | None = None,
        undrawn: bool = False,
    ) -> int:
        """Begin a command; returns its process id. ``still`` stops the clock of measured times,
        ``undrawn`` puts a digest of what they show in the place of pictures, ``limits`` are names of
        ``resource.RLIMIT_*``, ``user`` a user id without privileges."""
        told = self._ask(
            do="start",
            arguments=[os.fsencode(str(a)).hex() for a in arguments],
            cwd=str(cwd or self.cwd),
            fault=fault and asdict(fault),
            still=still,
            limits=dict(limits or {}),
            user=user,
            environment=dict(environment or {}),
            stdout=stdout,
            undrawn=undrawn,
        )
        return int(told["pid"])

    def wait(self, pid: int, timeout: float = 120) -> Outcome:
        """The end of a command; it is killed (code -9) after ``timeout`` seconds."""
        return Outcome(**self._ask(do="wait", pid=pid, timeout=timeout))

    def run(self, *arguments: object, timeout: float = 120, **options: Any) -> Outcome:
        """``start`` and ``wait``."""
        return self.wait(self.start(*arguments, **options), timeout)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._server is not None and self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        told: dict[str, Any] = json.loads(self._server.stdout.readline())
        return told


# ---------------------------------------------------------------- the server


def serve() -> None:
    """Answer requests until standard input ends."""
    _warm_up()
    gc.collect()
    gc.freeze()  # a child's collector would touch, and so copy, every page of the imports
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder = Path(tempfile.mkdtemp(prefix="staanet-forks-"))
    begun: dict[int, float] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("do") == "start":
            child = os.fork()
            if child == 0:
                answers.close()
                _become(folder, request)
            begun[child] = time.monotonic()
            told: dict[str, Any] = {"pid": child}
        else:
            told = _waited(folder, request["pid"], request["timeout"], begun)
        answers.write(json.dumps(told) + "\n")
        answers.flush()
    folder.rmdir()


def _warm_up() -> None:
    """Everything that commands import, and nothing that starts threads."""
    import importlib.readers  # noqa: F401

    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset
    import pyarrow.pandas_compat
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.signal
    import scipy.stats  # noqa: F401
    import soundfile  # noqa: F401
    import soxr  # noqa: F401
    import torch
    import torch._dynamo  # an optimiser imports it: 3 s

    with contextlib.suppress(ModuleNotFoundError):  # typer 0.19 has none
        import typer._adapters  # noqa: F401
    import typer.main

    from staanet import cli, config, pipeline  # noqa: F401
    from staanet.report import charts, page, sweep_charts, tables, training_charts, verify  # noqa: F401
    from staanet.sanity import selfcheck  # noqa: F401

    built = typer.main.get_command(cli.app)  # the parser, which each command would build anew
    typer.main.get_command = lambda app: built
    config.load_recipe("quick")  # pydantic iterations for plug-ins among all packages, once
    for name in ("utf-8-sig", "ascii", "latin-1", "unicode_escape", "idna"):
        "".encode(name)  # a child without privileges may not read their modules
    torch.set_num_threads(1)

    audit_hook.install()


def _waited(folder: Path, pid: int, timeout: float, begun: dict[int, float]) -> dict[str, Any]:
    end = begun[pid] + timeout
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    told = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - begun.pop(pid),
        "peak_mib": usage.ru_maxrss / 1024,
    }
    for name in ("out", "err", "calls"):
        path = folder / f"{pid}.{name}"
        text = path.read_text("utf-8", "backslashreplace") if path.exists() else ""
        told[name] = len(text) if name == "calls" else text
        path.unlink(missing_ok=True)
    return told


def _become(folder: Path, request: Mapping[str, Any]) -> NoReturn:
    """Be the command, in the child."""
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name, descriptor in (("out", 1), ("err", 2)):
            path = (
                request["stdout"]
                if name == "out" and request["stdout"]
                else folder / f"{os.getpid()}.{name}"
            )
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in ((1, "stdout"), (2, "stderr")):
            setattr(
                sys,
                stream,
                io.TextIOWrapper(
                    open(number, "wb", 0),  # noqa: SIM115
                    "utf-8",
                    "backslashreplace" if number == 2 else "strict",
                    write_through=True,
                ),
            )
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        time.tzset()
        tally = os.open(folder / f"{os.getpid()}.calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if request["user"] is not None:
            os.setgid(request["user"])
            os.setuid(request["user"])
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
        if request["still"]:
            time.perf_counter = lambda: 0.0
        if request["undrawn"]:
            leave_undrawn()
        shim(tally, Fault(**request["fault"]) if request["fault"] else None)
        sys.argv = ["staanet", *(os.fsdecode(bytes.fromhex(a)) for a in request["arguments"])]
        from staanet.cli import entry

        entry()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def leave_undrawn(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Writes a digest of the content instead of pictures.

    Drawing takes nine tenths of the time of a short command; the digest's bytes reach the disk like
    any others. ``replace`` puts a function into a module.
    """
    from staanet.report import chart_style, charts, clip_pictures, clip_view, training_charts

    def triptych(clean: Any, adversarial: Any, sample_rate: int, **_: bool) -> bytes:
        digest = hashlib.sha256(clean.tobytes() + adversarial.tobytes())
        return f"{sample_rate} {digest.hexdigest()}".encode()

    def drawn(name: str, alt: str, width: float, draw: object) -> chart_style.Picture:
        said = f'<svg width="{width}pt"><title>{html.escape(alt)}</title></svg>'
        data = said.encode()
        return chart_style.Picture(
            name=name, alt=alt, wide=said, narrow=said, svg=data, png=data, pdf=data
        )

    for module in (clip_pictures, clip_view):
        replace(module, "triptych_picture", triptych)
    replace(clip_view, "waveform_picture", triptych)
    for charts_module in (chart_style, charts, training_charts):
        replace(charts_module, "draw_picture", drawn)


def shim(tally: int, fault: Fault | None) -> None:
    """Count the calls that change the disk, and let the chosen one fail."""
    own = os.write
    count = 0

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if name == "write" and args[0] <= 2:
                return real(*args, **kwargs)
            own(tally, b".")
            if fault is None or fault.call not in ("any", name):
                return real(*args, **kwargs)
            count += 1
            due = count == fault.nth or (fault.for_ever and count > fault.nth)
            if due and fault.errno == KILL:
                if fault.after:
                    real(*args, **kwargs)
                elif name == "write":  # half of it, as a real death may leave
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if due:
                if name == "write" and not fault.for_ever:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(fault.errno, os.strerror(fault.errno))
            return real(*args, **kwargs)

        return call

    for name in ("write", "fsync", "replace"):
        setattr(os, name, wrapped(name, getattr(os, name)))


# ---------------------------------------------------------------- folders compared


def tree(folder: Path, ignore: tuple[str, ...] = (".lock",)) -> dict[str, str]:
    """The sha256 of every file below ``folder``, by its path from there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in ignore
    }


if __name__ == "__main__":
    serve()
