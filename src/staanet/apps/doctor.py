"""Is this installation sound: what is there, what is missing, and the command that mends it.

Nothing is taken on trust. Codecs code a tone, the voice speaks, a network answers and gives a
gradient, onnxruntime runs a model, the folder is written to and locked. Every probe stands alone, so
that a broken package is one line and not the end; for the same reason this file imports nothing that
could be broken.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from staanet.errors import FolderLocked, StaaNetError, printable

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Verdict = Literal["pass", "warn", "fail", "absent"]
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
"""Their wheels are built for CUDA; beside a torch for the CPU they break transformers' imports."""
USUAL = 50
"""About how many checks there are."""
PURPOSES = {
    "demo": "synthetic speech, of staanet run quick",
    "web": "the local page, staanet serve",
    "ssl": "wav2vec2, WavLM, HuBERT and hf: models",
    "onnx": "onnx: models and staanet export",
    "perceptual": "PESQ, STOI, Zimtohrli (evaluate --perceptual)",
    "audb": "corpora of audb",
    "audformat": "staanet to-audformat",
    "baselines": "attacks of ART and Foolbox",
    "tensorboard": "training curves, --tensorboard",
    "tune": "a search for loss weights",
    "ray": "staanet attack --engine ray",
}
"""What each extra is for; those that are not here are for work on staanet itself."""
LITTLE_MIB, TOO_LITTLE_MIB = 2048, 100
"""A run of quick writes some 100 MiB, one on a real corpus a few GiB."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried, how it went, what was found, and what to do about it."""

    group: str
    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


Probe = Callable[[], str]
"""Says what it found; raises where something does not work."""


def examine(folder: Path = Path()) -> Iterator[Finding]:
    """Every check, one after the other; ``folder`` is where results are to be written."""
    yield _python()
    installed, tested = versions(), constraints()
    core, extras = requirements()
    yield from packages(core, installed, tested)
    for name, wanted in extras.items():
        if name in PURPOSES or checkout() is not None:
            yield extra(name, wanted, installed)
    yield harmful(installed)
    yield _tried("machine", "processor", _processor)
    yield _tried("machine", "threads", _threads)
    yield waiting(os.environ)
    yield _tried("machine", "torch", _torch)
    yield _tried("machine", "network", _network, reinstall("torch"))
    yield disk(folder)
    yield _tried("disk", "lock", lambda: _lock(folder), "Choose a folder on a local disk")
    for codec in ("WAV", "FLAC"):
        yield _tried("audio", codec, partial(_written, codec), reinstall("soundfile"))
    for channel in ("mp3:64", "opus:24", "vorbis", "gsm", "mulaw", "resample:8000"):
        yield _tried("audio", channel, partial(_through, channel), reinstall("soundfile", "soxr"))
    yield _tried("shipped", "recipes", _recipes, reinstall("staanet"))
    yield _tried("shipped", "models", _models, reinstall("staanet"))
    for group, package, probe in (
        ("speech", "espeakng-loader", _speech),
        ("speech models", "transformers", _transformers),
        ("onnx", "onnxruntime", _onnx),
    ):
        if package in installed:
            yield _tried(group, package, probe, reinstall(package))


def failed(findings: Sequence[Finding]) -> list[Finding]:
    """Those that make an installation unsound; an extra that is not there does not."""
    return [finding for finding in findings if finding.verdict == "fail"]


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings for ``--json``."""
    return {"sound": not failed(findings), "findings": [asdict(finding) for finding in findings]}


def _tried(group: str, name: str, probe: Probe, remedy: str = "") -> Finding:
    try:
        return Finding(group, name, "pass", printable(probe()))
    except StaaNetError as error:
        return Finding(group, name, "fail", error.what, error.remedy or remedy)
    except Exception as error:  # a broken package may raise anything
        said = " ".join(str(error).split()) or "no reason given"
        return Finding(
            group, name, "fail", f"{type(error).__name__}: {printable(said)[:200]}", remedy
        )


# ---------------------------------------------------------------- packages


def checkout() -> Path | None:
    """The root of the source tree that this code runs from; None where it was installed."""
    root = Path(__file__).parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "src").is_dir() else None


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What the package needs, and what each of its extras needs besides."""
    from packaging.requirements import Requirement

    root = checkout()
    if root is not None:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        core = [Requirement(line) for line in project["dependencies"]]
        named = {
            extra: [Requirement(line) for line in lines]
            for extra, lines in project["optional-dependencies"].items()
        }
        return core, {extra: _expanded(named, extra) for extra in named}
    lines = metadata.requires("staanet") or []
    core, named = [], {e: [] for e in metadata.metadata("staanet").get_all("Provides-Extra") or []}
    for requirement in map(Requirement, lines):
        marker = str(requirement.marker or "")
        found = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        (named.setdefault(found.group(1), []) if found else core).append(requirement)
    return core, {extra: _expanded(named, extra) for extra in named}


def _expanded(named: Mapping[str, list[Requirement]], extra: str) -> list[Requirement]:
    """The requirements of an extra, those of the extras it is made of included."""
    wanted: list[Requirement] = []
    for requirement in named[extra]:
        if requirement.name == "staanet":
            wanted += [
                one for inner in sorted(requirement.extras) for one in _expanded(named, inner)
            ]
        else:
            wanted.append(requirement)
    return wanted


def versions() -> dict[str, str]:
    """The version of every installed package, by its normalised name."""
    return {
        normal(str(name)): dist.version
        for dist in metadata.distributions()
        if (name := dist.metadata["Name"])
    }


def constraints() -> dict[str, str]:
    """The versions that were tested together, by normalised name."""
    inside = Path(__file__).parents[1] / "constraints.txt"  # in a wheel
    root = checkout()
    path = inside if inside.is_file() or root is None else root / "constraints.txt"
    if not path.is_file():
        return {}
    pins = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines())
    return {normal(name.strip()): version.strip() for name, pin, version in pins if pin}


def normal(name: str) -> str:
    """A package's name as indexes compare it.

    >>> normal("tomli_w"), normal("Jinja2")
    ('tomli-w', 'jinja2')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def install(*extras: str) -> str:
    """The command that adds extras to this very installation."""
    root, wanted = checkout(), f"[{','.join(extras)}]" if extras else ""
    command = [sys.executable, "-m", "pip", "install"]
    if root is None:
        return shlex.join([*command, f"staanet{wanted}{_origin()}"])
    return shlex.join([*command, "-c", str(root / "constraints.txt"), "-e", f"{root}{wanted}"])


def _origin() -> str:
    """Where pip had the package from, if not from an index by its name: a wheel, an address."""
    try:
        told = metadata.distribution("staanet").read_text("direct_url.json")
        return f" @ {json.loads(told)['url']}" if told else ""
    except (metadata.PackageNotFoundError, ValueError, LookupError, TypeError):
        return ""


def reinstall(*packages: str) -> str:
    """The command that installs packages anew, in the versions that were tested."""
    pins = constraints()
    named = [f"{name}=={pins[name]}" if name in pins else name for name in packages]
    return (
        f"Run: {shlex.join([sys.executable, '-m', 'pip', 'install', '--force-reinstall', *named])}"
    )


def packages(
    wanted: Sequence[Requirement], installed: Mapping[str, str], tested: Mapping[str, str]
) -> Iterator[Finding]:
    """One finding per package that the core needs."""
    for requirement in wanted:
        name, limits = normal(requirement.name), str(requirement.specifier)
        version, pinned = installed.get(name), tested.get(name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if version is None:
            yield Finding(
                "package", name, "fail", f"missing; {limits} is needed", f"Run: {install()}"
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                "package", name, "fail", f"{version}, but {limits} is needed", f"Run: {install()}"
            )
        elif pinned is not None and version.partition("+")[0] != pinned:
            yield Finding("package", name, "pass", f"{version} ({pinned} was tested)")
        else:
            yield Finding("package", name, "pass", version)


def extra(name: str, wanted: Sequence[Requirement], installed: Mapping[str, str]) -> Finding:
    """Whether an extra is there: ``absent`` with the command that adds it where a package lacks."""
    active = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": name})]
    lacking = sorted({normal(r.name) for r in active if normal(r.name) not in installed})
    unfit = [
        f"{r.name} {installed[normal(r.name)]}, but {r.specifier} is needed"
        for r in active
        if normal(r.name) in installed
        and not r.specifier.contains(installed[normal(r.name)], prereleases=True)
    ]
    if unfit:
        return Finding("extra", name, "fail", "; ".join(unfit), f"Run: {install(name)}")
    if lacking:
        told = f"for {PURPOSES[name]}: " if name in PURPOSES else ""
        return Finding(
            "extra", name, "absent", f"{told}without {', '.join(lacking)}", f"Run: {install(name)}"
        )
    there = dict.fromkeys(f"{normal(r.name)} {installed[normal(r.name)]}" for r in active)
    return Finding("extra", name, "pass", ", ".join(there))


def harmful(installed: Mapping[str, str]) -> Finding:
    """Packages that are built for CUDA beside a torch that is not."""
    if "+cpu" not in installed.get("torch", "") and _cuda_build():
        return Finding("package", "for CUDA only", "pass", "torch is built for CUDA")
    found = [n for n in installed if n in CUDA_ONLY or n.startswith("nvidia-")]
    if not found:
        told = f"none of {', '.join(CUDA_ONLY)}, nvidia-*"
        return Finding("package", "for CUDA only", "pass", told)
    command = shlex.join([sys.executable, "-m", "pip", "uninstall", "-y", *sorted(found)])
    verdict: Verdict = "fail" if set(found) & set(CUDA_ONLY) else "warn"
    told = f"{', '.join(sorted(found))} beside a torch for the CPU: imports of transformers break"
    return Finding("package", "for CUDA only", verdict, told, f"Run: {command}")


def _cuda_build() -> bool:
    try:
        import torch
    except Exception:  # reported by the probe of torch
        return False
    return torch.version.cuda is not None


# ---------------------------------------------------------------- the machine


def _python() -> Finding:
    told = f"{platform.python_version()}, {sys.executable}"
    return Finding(
        "machine", "python", "pass", printable(told)
    )  # an older one cannot read this file


def allowed_cpus() -> int:
    """How many CPUs this process may use, by its affinity and its container's quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or a quota of max
        return count


def _processor() -> str:
    return f"{allowed_cpus()} of {os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}"


def _threads() -> str:
    import torch

    told = f"torch takes {torch.get_num_threads()}"
    if torch.get_num_threads() > allowed_cpus():
        raise StaaNetError(
            f"{told}, but {allowed_cpus()} CPUs are allowed",
            remedy=f"Set OMP_NUM_THREADS={allowed_cpus()}",
        )
    return told


def waiting(environment: Mapping[str, str]) -> Finding:
    """Whether idle OpenMP threads sleep; threads that spin take the time of those that work.

    >>> waiting({"OMP_WAIT_POLICY": "active"}).verdict, waiting({}).verdict
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


def _torch() -> str:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    told = f"{torch.__version__}, built for {build}"
    if not torch.cuda.is_available():
        return f"{told}, no GPU in use"
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    ones = torch.ones(8, device="cuda")
    assert float(ones.sum()) == 8, "the GPU adds wrongly"
    return told + "".join(f"; {c.name}, {c.total_memory / 2**30:.0f} GiB" for c in cards)


def _network() -> str:
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


def disk(folder: Path) -> Finding:
    """Free space, and whether a file can be written the way results are."""
    place = _existing(folder)
    try:
        free = shutil.disk_usage(place).free // 2**20
        told = f"{free} MiB free in {printable(str(place.absolute()))}"
        from staanet import storage

        with tempfile.TemporaryDirectory(prefix=".staanet-doctor-", dir=place) as trial:
            storage.write_text(Path(trial) / "trial.txt", "written\n")
    except StaaNetError as error:
        return Finding(
            "disk", "folder", "fail", f"{printable(str(place))}: {error.what}", error.remedy
        )
    except Exception as error:
        return Finding(
            "disk",
            "folder",
            "fail",
            f"{printable(str(place))} cannot be written ({printable(str(error))})",
            "Choose another folder with --folder, or ask for access",
        )
    if free < TOO_LITTLE_MIB:
        return Finding("disk", "folder", "fail", told, f"Free {TOO_LITTLE_MIB - free} MiB or more")
    verdict: Verdict = "warn" if free < LITTLE_MIB else "pass"
    remedy = f"A run on a real corpus takes up to {LITTLE_MIB} MiB" if verdict == "warn" else ""
    return Finding("disk", "folder", verdict, told, remedy)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _lock(folder: Path) -> str:
    from staanet import storage

    with tempfile.TemporaryDirectory(prefix=".staanet-doctor-", dir=_existing(folder)) as trial:
        with storage.FolderLock(trial):
            try:
                with storage.FolderLock(trial):
                    pass
            except FolderLocked:
                return "a folder in use is refused to a second run"
        raise StaaNetError("a folder can be locked twice")


# ---------------------------------------------------------------- what makes and takes sound


def _tone() -> Any:
    import numpy as np

    time = np.arange(16_000) / 16_000
    return (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)


def _written(codec: str) -> str:
    import io

    import numpy as np
    import soundfile

    from staanet import audio

    tone = _tone()
    data = audio.encode(tone, 16_000, codec)
    back, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    if rate != 16_000 or not np.array_equal(back, tone):
        raise StaaNetError("what was read back is not what was written")
    return f"read back to the bit, libsndfile {soundfile.__libsndfile_version__}"


def _through(channel: str) -> str:
    import numpy as np

    from staanet.transforms import parse_transform, transform_samples

    tone = _tone()
    heard = transform_samples(parse_transform(channel), tone, 16_000)
    likeness = float(np.corrcoef(tone.astype(float), heard.astype(float))[0, 1])
    if heard.shape != tone.shape or not likeness > 0.8:
        raise StaaNetError(f"a tone comes back at a correlation of {likeness:.2f}")
    return f"a tone comes back at a correlation of {likeness:.3f}"


def _speech() -> str:
    from staanet.corpora.espeak import speak

    version, samples = speak("Is this installation sound?")
    return f"eSpeak NG {version} spoke for {len(samples) / 16_000:.1f} s"


def _transformers() -> str:
    import torch

    from staanet.victims import build_victim

    with torch.random.fork_rng(devices=[]):
        victim = build_victim("wav2vec2", ("a", "b"), config="tiny").eval()
    with torch.inference_mode():
        logits = victim(torch.randn(1, 8_000))
    if not bool(torch.isfinite(logits).all()):
        raise StaaNetError("a wav2vec2 answers with what is not a number")
    return "a small wav2vec2 answers"


IDENTITY = bytes.fromhex(
    "08083a2f0a100a017812017922084964656e746974791201675a0b0a017812060a04080112006"
    "20b0a017912060a040801120042040a00100d"
)
"""An ONNX model of one node, y = x, as bytes, so that it can be run where only the runtime is."""


def _onnx() -> str:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(IDENTITY, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.array(3, np.float32)})
    if float(answer) != 3:
        raise StaaNetError(f"a model that returns its input made {float(answer)} of 3")
    return f"a model runs; {', '.join(onnxruntime.get_available_providers())}"


def _recipes() -> str:
    from staanet import config

    shipped = config.shipped_recipes()
    for name in shipped:
        config.load_recipe(name)
    if not shipped:
        raise StaaNetError("no recipe came with the package")
    return ", ".join(shipped)


def _models() -> str:
    import torch

    from staanet import audio
    from staanet.storage import pretrained
    from staanet.victims import lacking, load_victim

    specs = {name: f"{pretrained.SCHEME}:{name}" for name in pretrained.names("victims")}
    waiting = {name: why.extra for name, spec in specs.items() if (why := lacking(spec))}
    tone = torch.from_numpy(audio.to_float(_tone()))[None]
    for name in specs.keys() - waiting:
        with torch.inference_mode():
            if not bool(torch.isfinite(load_victim(specs[name])(tone)).all()):
                raise StaaNetError(f"{name} answers with what is not a number")
    told = ", ".join(sorted(specs.keys() - waiting)) + " answer"
    return told + "".join(f"; {name} waits for the extra {e}" for name, e in waiting.items())
