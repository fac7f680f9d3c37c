"""The command line in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def staanet(*arguments: object, cwd: Path, timeout: float = 300, **environment: str):
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
