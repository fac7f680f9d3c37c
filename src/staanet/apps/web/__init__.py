"""The local web page (extra ``web``): upload or record a clip, attack it, play and download the result.

``serve`` binds the loopback, hands out one secret address and keeps every file in a private folder
that is emptied while it runs and removed at its end.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from staanet.apps.web.models import ModelLibrary, read_library, shipped_folders
from staanet.errors import InvalidInput

__all__ = ["Limits", "ModelLibrary", "read_library", "serve", "shipped_folders"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of an upload to the page."""

    seconds: float = 15.0
    bytes: int = 16 * 2**20
    uploads_at_once: int = 8
    uploads_a_minute: int = 60
    stored_bytes: int = 256 * 2**20
    keep_s: float = 900.0
    """Seconds after which a file is deleted."""
    silence_s: float = 20.0
    """Seconds an upload may send nothing."""


def serve(
    library: ModelLibrary,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "cpu",
    limits: Limits = Limits(),
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page until it is stopped; ``ready`` is called with its address.

    Raises ``InvalidInput`` where gradio is missing, the port is taken, or the library is empty.
    """
    if not library.victims:
        raise InvalidInput(
            "no victim to attack", remedy="Pass --run with the folder of a run, such as runs/quick"
        )
    with _bound(host, port) as listening, tempfile.TemporaryDirectory(prefix="staanet-") as folder:
        private = Path(folder).resolve()
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(private)
        os.environ["HF_HUB_OFFLINE"] = "1"
        before, tempfile.tempdir = tempfile.tempdir, str(private)  # a half upload lies there, too
        try:
            _run(library, listening, private, host, device, limits, ready)
        finally:
            tempfile.tempdir = before


def _run(
    library: ModelLibrary,
    listening: socket.socket,
    private: Path,
    host: str,
    device: str,
    limits: Limits,
    ready: Callable[[str], None],
) -> None:
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as problem:
        raise InvalidInput(
            f"the page needs {problem.name}, which is not installed",
            remedy="pip install 'staanet[web]'",
        ) from problem
    from staanet.apps.web.fooling import FoolingService
    from staanet.apps.web.http_filter import HttpFilter, keep_clean
    from staanet.apps.web.page import application

    port = int(listening.getsockname()[1])
    token = secrets.token_urlsafe(16)
    with keep_clean(private, limits):
        app = application(
            FoolingService(library, private, device=device, limits=limits), private, limits
        )
        filtered = HttpFilter(
            app,
            private=private,
            token=token,
            port=port,
            limits=limits,
            open_to_all=host not in LOOPBACK,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                filtered,
                log_level="critical",
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=2,
                timeout_keep_alive=5,
            )
        )
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{port}/?token={token}")
        server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(64)
    except (OSError, OverflowError) as problem:
        listening.close()
        reason = (
            "in use"
            if getattr(problem, "errno", 0) == errno.EADDRINUSE
            else f"not to be had ({problem})"
        )
        raise InvalidInput(
            f"port {port} of {host} is {reason}",
            remedy="Choose another --port, or 0 for any free one",
        ) from problem
    return listening
