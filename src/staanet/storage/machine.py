"""Describes the hardware that a measured time belongs to."""

from __future__ import annotations

import platform


def describe_machine() -> str:
    """Returns threads, processor, GPU where there is one, and the version of torch."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            name = next(
                line.split(":")[1].strip() for line in info if line.startswith("model name")
            )
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)}, {name}{gpu}, torch {torch.__version__}"
