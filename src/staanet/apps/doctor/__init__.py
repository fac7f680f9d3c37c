"""Checks an installation: what works, what is missing, and the command that mends it.

Codecs code a tone, the voice speaks, a network answers and gives a gradient, onnxruntime runs a
model, the folder is written to and locked. Every check stands alone, so that a broken package is one
line. For the same reason nothing that could be broken is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from staanet.apps.doctor import capabilities, machine
from staanet.apps.doctor import packages as package_checks
from staanet.apps.doctor.finding import Finding, run_probe
from staanet.apps.doctor.packages import reinstall_remedy

TYPICAL_COUNT = 50
"""About how many checks there are, for a progress bar."""


def examine(folder: Path = Path()) -> Iterator[Finding]:
    """Yields the result of every check; ``folder`` is where results are to be written."""
    yield machine.check_python()
    installed = package_checks.versions()
    core, extras = package_checks.requirements()
    yield from package_checks.check_packages(core, installed, package_checks.constraints())
    for name, needed in extras.items():
        if name in package_checks.PURPOSES or package_checks.checkout() is not None:
            yield package_checks.check_extra(name, needed, installed)
    yield package_checks.check_cuda_packages(installed)
    yield run_probe("machine", "processor", machine.processor)
    yield run_probe("machine", "threads", machine.threads)
    yield machine.check_wait_policy(os.environ)
    yield run_probe("machine", "torch", machine.torch_build)
    yield run_probe("machine", "network", machine.network, reinstall_remedy("torch"))
    yield machine.check_disk(folder)
    yield run_probe("disk", "lock", lambda: machine.lock(folder), "Choose a folder on a local disk")
    for codec in ("WAV", "FLAC"):
        probe = partial(capabilities.codec_round_trip, codec)
        yield run_probe("audio", codec, probe, reinstall_remedy("soundfile"))
    for channel in ("mp3:64", "opus:24", "vorbis", "gsm", "mulaw", "resample:8000"):
        probe = partial(capabilities.channel_round_trip, channel)
        yield run_probe("audio", channel, probe, reinstall_remedy("soundfile", "soxr"))
    yield run_probe("shipped", "recipes", capabilities.recipes, reinstall_remedy("staanet"))
    yield run_probe("shipped", "models", capabilities.models, reinstall_remedy("staanet"))
    for group, package, optional in (
        ("speech", "espeakng-loader", capabilities.speech),
        ("speech models", "transformers", capabilities.self_supervised),
        ("onnx", "onnxruntime", capabilities.onnx),
    ):
        if package in installed:
            yield run_probe(group, package, optional, reinstall_remedy(package))


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings that make an installation unsound; a missing extra does not."""
    return [finding for finding in findings if finding.verdict == "fail"]


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns the findings for ``--json``."""
    return {"sound": not failures(findings), "findings": [asdict(f) for f in findings]}
