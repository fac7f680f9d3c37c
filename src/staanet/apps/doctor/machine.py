"""Checks the machine: processor, threads, torch, and the folder for results."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from staanet.apps.doctor.finding import Finding, Verdict
from staanet.errors import FolderLocked, StaaNetError, printable

LITTLE_MIB, TOO_LITTLE_MIB = 2048, 100
"""A run of quick writes some 100 MiB, one on a real corpus a few GiB."""


def check_python() -> Finding:
    """Names the Python that runs."""
    detail = f"{platform.python_version()}, {sys.executable}"
    # an older Python cannot read this file
    return Finding("machine", "python", "pass", printable(detail))


def allowed_cpus() -> int:
    """Returns how many CPUs this process may use, by its affinity and its container's quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or a quota of max
        return count


def processor() -> str:
    """Returns the processor and how many of its CPUs this process may use."""
    return f"{allowed_cpus()} of {os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}"


def threads() -> str:
    """Returns torch's threads; raises ``StaaNetError`` for more threads than allowed CPUs."""
    import torch

    detail = f"torch takes {torch.get_num_threads()}"
    if torch.get_num_threads() > allowed_cpus():
        raise StaaNetError(
            f"{detail}, but {allowed_cpus()} CPUs are allowed",
            remedy=f"Set OMP_NUM_THREADS={allowed_cpus()}",
        )
    return detail


def check_wait_policy(environment: Mapping[str, str]) -> Finding:
    """Checks that idle OpenMP threads sleep; threads that spin take time from those that work.

    >>> check_wait_policy({"OMP_WAIT_POLICY": "active"}).verdict, check_wait_policy({}).verdict
    ('warn', 'warn')
    """
    policy = environment.get("OMP_WAIT_POLICY", "")
    if policy.upper() == "PASSIVE":
        return Finding("machine", "OMP_WAIT_POLICY", "pass", policy)
    return Finding(
        "machine",
        "OMP_WAIT_POLICY",
        "warn",
        policy or "not set",
        "Set OMP_WAIT_POLICY=PASSIVE before Python starts; the command line does",
    )


def torch_build() -> str:
    """Returns torch's build and the GPUs, after a sum on the first GPU."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    detail = f"{torch.__version__}, built for {build}"
    if not torch.cuda.is_available():
        return f"{detail}, no GPU in use"
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    ones = torch.ones(8, device="cuda")
    assert float(ones.sum()) == 8, "the GPU adds wrongly"
    return detail + "".join(f"; {c.name}, {c.total_memory / 2**30:.0f} GiB" for c in cards)


def network() -> str:
    """Runs a small network forward and backward; raises ``StaaNetError`` for a dead gradient."""
    import torch

    from staanet.victims import build_victim

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = build_victim("emo18", ("a", "b")).eval()
        x = torch.randn(1, 16_000).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(victim(0.1 * x).sum(), x)
    if not bool(torch.isfinite(gradient).all()) or not bool(gradient.abs().sum() > 0):
        raise StaaNetError("the gradient of an emo18 is not finite, or zero")
    return "an emo18 answers and gives a gradient"


# ---------------------------------------------------------------- disk


def check_disk(folder: Path) -> Finding:
    """Checks free space, and that a file can be written the way results are."""
    path = _existing_parent(folder)
    try:
        free = shutil.disk_usage(path).free // 2**20
        detail = f"{free} MiB free in {printable(str(path.absolute()))}"
        from staanet import storage

        with tempfile.TemporaryDirectory(prefix=".staanet-doctor-", dir=path) as trial:
            storage.write_text(Path(trial) / "trial.txt", "written\n")
    except StaaNetError as error:
        return Finding(
            "disk", "folder", "fail", f"{printable(str(path))}: {error.what}", error.remedy
        )
    except Exception as error:
        return Finding(
            "disk",
            "folder",
            "fail",
            f"{printable(str(path))} cannot be written ({printable(str(error))})",
            "Choose another folder with --folder, or ask for access",
        )
    if free < TOO_LITTLE_MIB:
        return Finding(
            "disk", "folder", "fail", detail, f"Free {TOO_LITTLE_MIB - free} MiB or more"
        )
    verdict: Verdict = "warn" if free < LITTLE_MIB else "pass"
    remedy = f"A run on a real corpus takes up to {LITTLE_MIB} MiB" if verdict == "warn" else ""
    return Finding("disk", "folder", verdict, detail, remedy)


def _existing_parent(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def lock(folder: Path) -> str:
    """Locks a folder twice; raises ``StaaNetError`` where the second lock is granted."""
    from staanet import storage

    with tempfile.TemporaryDirectory(
        prefix=".staanet-doctor-", dir=_existing_parent(folder)
    ) as trial:
        with storage.FolderLock(trial):
            try:
                with storage.FolderLock(trial):
                    pass
            except FolderLocked:
                return "a folder in use is refused to a second run"
        raise StaaNetError("a folder can be locked twice")
