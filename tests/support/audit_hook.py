"""An audit hook that stops what the product must never do: unpickle, call out, write elsewhere.

``install()`` is called by ``tests/conftest.py`` and by the server of ``tests.support.forks``, so that it watches the
whole test run and every command in it. It iterations only at what the product itself asks for: events with a
frame of ``staanet`` on the stack. A forbidden event raises ``Forbidden``, and the test fails.

>>> any(place.endswith("runs") for place in allowed_roots(["runs"]))
True
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

PACKAGE = f"{os.sep}src{os.sep}staanet{os.sep}"
ASKED_FOR = (
    "victims/hub.py",
    "victims/hugging_face.py",
    "victims/self_supervised.py",
    "corpora/audb.py",
    "pipeline/workers.py",
)
"""Modules that fetch, with a library made for it, what the user names by ``hf:`` or ``audb:``; the last
one reads what its own processes send."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


LIBRARIES = re.compile(r"/(\.cache|\.triton|matplotlib|__pycache__)(/|$)")
"""What libraries remember of fonts and code."""


class Forbidden(AssertionError):
    """The product did what it must never do."""


def allowed_roots(more: Iterable[str] = ()) -> list[str]:
    """Below these the tests may write: folders for temporary files, and those named."""
    return [os.path.realpath(place) for place in (tempfile.gettempdir(), "/dev/shm", *more)]


def install(more: Iterable[str] = ()) -> None:
    """Watch this process from now on; there is no way back."""
    roots = tuple(f"{root}{os.sep}" for root in allowed_roots(more))

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in _EVENTS and (product := _product(sys._getframe(1))):
            what = _EVENTS[event](event, args, roots)
            if what and not (
                event.startswith(("socket", "pickle")) and product.endswith(ASKED_FOR)
            ):
                raise Forbidden(f"{product}: {what}")

    sys.addaudithook(hook)


def _product(frame: FrameType | None) -> str:
    """The product's module nearest to the event, or nothing."""
    while frame is not None:
        if PACKAGE in frame.f_code.co_filename:
            return frame.f_code.co_filename
        frame = frame.f_back
    return ""


def _pickle(event: str, args: tuple[object, ...], roots: tuple[str, ...]) -> str:
    return f"unpickled {args}"


def _socket(event: str, args: tuple[object, ...], roots: tuple[str, ...]) -> str:
    place = args[0] if event == "socket.getaddrinfo" else args[1]
    host = place[0] if isinstance(place, tuple) else place
    loopback = host in ("localhost", None) or str(host).startswith("127.") or host == "::1"
    return "" if loopback or isinstance(place, bytes) else f"{event} {place}"


def _open(event: str, args: tuple[object, ...], roots: tuple[str, ...]) -> str:
    path, mode, flags = args
    writes = (
        any(c in mode for c in "wax+") if isinstance(mode, str) else bool(int(flags or 0) & WRITES)
    )  # type: ignore[call-overload]
    return _outside(path, roots) if writes else ""


def _change(event: str, args: tuple[object, ...], roots: tuple[str, ...]) -> str:
    """``args`` end with the folders that relative names are of, as descriptors, -1 where it is the
    working folder; what ``mkdir`` is told of rights stands between."""
    many = 2 if event in ("os.rename", "os.link") else 1
    folders = args[-many:] if event != "os.symlink" else args[-1:]
    paths = args[:many] if event != "os.symlink" else args[1:2]
    found = (
        _outside(_placed(path, folder), roots) for path, folder in zip(paths, folders, strict=True)
    )
    return next(filter(None, found), "")


def _placed(path: object, folder: object) -> object:
    """A name with the folder that its descriptor stands for; None where the system does not tell."""
    if not isinstance(folder, int) or folder < 0 or isinstance(path, int):
        return path
    link = Path(f"/proc/self/fd/{folder}")
    return link.readlink() / os.fsdecode(path) if link.exists() else None  # type: ignore[arg-type]


def _outside(path: object, roots: tuple[str, ...]) -> str:
    if isinstance(path, int) or path is None:
        return ""
    place = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    if f"{place}{os.sep}".startswith((*roots, "/dev/", "/proc/")) or LIBRARIES.search(place):
        return ""
    return f"wrote {place}"


_EVENTS = {
    "pickle.find_class": _pickle,
    "socket.connect": _socket,
    "socket.getaddrinfo": _socket,
    "socket.bind": _socket,
    "open": _open,
    "os.rename": _change,
    "os.remove": _change,
    "os.mkdir": _change,
    "os.link": _change,
    "os.symlink": _change,
}
