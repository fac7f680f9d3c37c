"""The command line as a user gives it: in a forked child, or in a process of its own."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.support.forks import Commands


@cache
def command_server() -> Commands:
    """The server of this process's forked commands: all of them cost one import of torch."""
    server = Commands(tempfile.mkdtemp(prefix="staanet-cwd-")).__enter__()
    atexit.register(server.__exit__)
    return server


def staanet(*arguments: object, cwd: Path, timeout: float = 300, undrawn: bool = True):
    """Run ``staanet ARGUMENTS`` in a forked child, with the environment of this process.

    Reports have no pictures unless ``undrawn`` is False; see ``leave_undrawn``.
    """
    done = command_server().run(
        *arguments, cwd=cwd, timeout=timeout, environment=dict(os.environ), undrawn=undrawn
    )
    return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)


def staanet_process(*arguments: object, cwd: Path, timeout: float = 300, **environment: str):
    """Run ``staanet ARGUMENTS`` in a new process: where imports or their environment matter."""
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment}
    return subprocess.run(
        [sys.executable, "-m", "staanet", *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        errors="replace",
    )
