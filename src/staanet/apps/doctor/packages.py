"""Checks the installed packages: versions, extras, and packages known to cause errors.

Every remedy is the very command that mends it.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from staanet.apps.doctor.finding import Finding, Verdict

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
"""Their wheels are built for CUDA; beside a torch for the CPU they break transformers' imports."""
PURPOSES = {
    "demo": "synthetic speech, of staanet run quick",
    "web": "the local page, staanet serve",
    "ssl": "wav2vec2, WavLM, HuBERT and hf: models",
    "onnx": "onnx: models and staanet export",
    "opensmile": "egemaps, a victim on openSMILE's features (research only)",
    "audonnx": "audonnx: models",
    "perceptual": "PESQ, STOI, Zimtohrli (evaluate --perceptual)",
    "audb": "corpora of audb",
    "audformat": "staanet to-audformat",
    "baselines": "attacks of ART and Foolbox",
    "tensorboard": "training curves, --tensorboard",
    "tune": "a search for loss weights",
    "ray": "staanet attack --engine ray",
}
"""The purpose of each extra; extras for work on staanet itself are not listed."""


def checkout() -> Path | None:
    """Returns the root of the source tree that this code runs from; None where it was installed."""
    root = Path(__file__).parents[4]
    return root if (root / "pyproject.toml").is_file() and (root / "src").is_dir() else None


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Returns the requirements of the package, and the additional ones of each extra."""
    from packaging.requirements import Requirement

    root = checkout()
    if root is not None:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        core = [Requirement(line) for line in project["dependencies"]]
        by_extra = {
            extra: [Requirement(line) for line in lines]
            for extra, lines in project["optional-dependencies"].items()
        }
        return core, {extra: _expand_extra(by_extra, extra) for extra in by_extra}
    lines = metadata.requires("staanet") or []
    core, by_extra = (
        [],
        {e: [] for e in metadata.metadata("staanet").get_all("Provides-Extra") or []},
    )
    for requirement in map(Requirement, lines):
        marker = str(requirement.marker or "")
        match = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        (by_extra.setdefault(match.group(1), []) if match else core).append(requirement)
    return core, {extra: _expand_extra(by_extra, extra) for extra in by_extra}


def _expand_extra(by_extra: Mapping[str, list[Requirement]], extra: str) -> list[Requirement]:
    """The requirements of an extra, with those of the extras that it names."""
    requirements: list[Requirement] = []
    for requirement in by_extra[extra]:
        if requirement.name == "staanet":
            for inner in sorted(requirement.extras):
                requirements += _expand_extra(by_extra, inner)
        else:
            requirements.append(requirement)
    return requirements


def versions() -> dict[str, str]:
    """Returns the version of every installed package, by its normalised name."""
    return {
        normalise_name(str(name)): dist.version
        for dist in metadata.distributions()
        if (name := dist.metadata["Name"])
    }


def constraints() -> dict[str, str]:
    """Returns the versions that were tested together, by normalised name."""
    inside = Path(__file__).parents[2] / "constraints.txt"  # in a wheel
    root = checkout()
    path = inside if inside.is_file() or root is None else root / "constraints.txt"
    if not path.is_file():
        return {}
    pins = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines())
    return {normalise_name(name.strip()): version.strip() for name, pin, version in pins if pin}


def normalise_name(name: str) -> str:
    """Returns a package's name as indexes compare it.

    >>> normalise_name("tomli_w"), normalise_name("Jinja2")
    ('tomli-w', 'jinja2')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def install_command(*extras: str) -> str:
    """Returns the command that adds extras to this very installation."""
    root, suffix = checkout(), f"[{','.join(extras)}]" if extras else ""
    command = [sys.executable, "-m", "pip", "install"]
    if root is None:
        return shlex.join([*command, f"staanet{suffix}{_origin()}"])
    return shlex.join([*command, "-c", str(root / "constraints.txt"), "-e", f"{root}{suffix}"])


def _origin() -> str:
    """The wheel or address that pip had the package from; empty for an index."""
    try:
        text = metadata.distribution("staanet").read_text("direct_url.json")
        return f" @ {json.loads(text)['url']}" if text else ""
    except (metadata.PackageNotFoundError, ValueError, LookupError, TypeError):
        return ""


def reinstall_remedy(*packages: str) -> str:
    """Returns the remedy that reinstalls packages in the tested versions."""
    pins = constraints()
    pinned = [f"{name}=={pins[name]}" if name in pins else name for name in packages]
    return (
        f"Run: {shlex.join([sys.executable, '-m', 'pip', 'install', '--force-reinstall', *pinned])}"
    )


def check_packages(
    requirements: Sequence[Requirement], installed: Mapping[str, str], tested: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields a finding per package that the core needs."""
    for requirement in requirements:
        name, limits = normalise_name(requirement.name), str(requirement.specifier)
        version, pinned = installed.get(name), tested.get(name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if version is None:
            yield Finding(
                "package", name, "fail", f"missing; {limits} is needed", f"Run: {install_command()}"
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                "package",
                name,
                "fail",
                f"{version}, but {limits} is needed",
                f"Run: {install_command()}",
            )
        elif pinned is not None and version.partition("+")[0] != pinned:
            yield Finding("package", name, "pass", f"{version} ({pinned} was tested)")
        else:
            yield Finding("package", name, "pass", version)


def check_extra(
    name: str, requirements: Sequence[Requirement], installed: Mapping[str, str]
) -> Finding:
    """Checks an extra; it is ``absent``, with the command that adds it, where a package is missing."""
    active = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": name})]
    missing = sorted(
        {normalise_name(r.name) for r in active if normalise_name(r.name) not in installed}
    )
    unfit = [
        f"{r.name} {installed[normalise_name(r.name)]}, but {r.specifier} is needed"
        for r in active
        if normalise_name(r.name) in installed
        and not r.specifier.contains(installed[normalise_name(r.name)], prereleases=True)
    ]
    if unfit:
        return Finding("extra", name, "fail", "; ".join(unfit), f"Run: {install_command(name)}")
    if missing:
        purpose = f"for {PURPOSES[name]}: " if name in PURPOSES else ""
        return Finding(
            "extra",
            name,
            "absent",
            f"{purpose}without {', '.join(missing)}",
            f"Run: {install_command(name)}",
        )
    present = dict.fromkeys(
        f"{normalise_name(r.name)} {installed[normalise_name(r.name)]}" for r in active
    )
    return Finding("extra", name, "pass", ", ".join(present))


def check_cuda_packages(installed: Mapping[str, str]) -> Finding:
    """Finds packages that are built for CUDA beside a torch that is not."""
    if "+cpu" not in installed.get("torch", "") and _cuda_build():
        return Finding("package", "for CUDA only", "pass", "torch is built for CUDA")
    names = [n for n in installed if n in CUDA_ONLY or n.startswith("nvidia-")]
    if not names:
        detail = f"none of {', '.join(CUDA_ONLY)}, nvidia-*"
        return Finding("package", "for CUDA only", "pass", detail)
    command = shlex.join([sys.executable, "-m", "pip", "uninstall", "-y", *sorted(names)])
    verdict: Verdict = "fail" if set(names) & set(CUDA_ONLY) else "warn"
    detail = f"{', '.join(sorted(names))} beside a torch for the CPU: imports of transformers break"
    return Finding("package", "for CUDA only", verdict, detail, f"Run: {command}")


def _cuda_build() -> bool:
    try:
        import torch
    except Exception:  # reported by the probe of torch
        return False
    return torch.version.cuda is not None
