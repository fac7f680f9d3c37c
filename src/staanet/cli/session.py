"""What commands share: choose the device, read inputs, lock the output folder, show progress."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from staanet.cli.options import Job
from staanet.cli.progress import Bars, log_progress
from staanet.config import SplitRecipe, check_epsilon
from staanet.config.epsilon import Epsilon
from staanet.errors import InvalidInput, printable, unknown_name

if TYPE_CHECKING:
    from staanet.core import Corpus, Victim
    from staanet.pipeline import Context


@contextmanager
def open_session(
    out: Path,
    *,
    seed: int,
    device: str,
    strict: bool = False,
    protocol: str | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Iterator[Context]:
    """Locks ``out``, shows progress, and yields the context of the command's stages.

    The clips that were put aside are written to ``out`` at the end.
    """
    from staanet import pipeline, storage

    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(
            seed=seed,
            protocol=protocol,
            device=device,
            quarantine=pipeline.Quarantine(strict),
            progress=progress,
            label_map=label_map or {},
        )
        yield context
        context.quarantine.save(out)


def job_session(out: Path, split: SplitRecipe, job: Job) -> AbstractContextManager[Context]:
    """A session with the options of a command that reads a corpus."""
    return open_session(
        out,
        seed=split.seed,
        protocol=split.protocol,
        device=job.device,
        strict=job.strict,
        label_map=split.label_map,
    )


@contextmanager
def training_session(
    out: Path, split: SplitRecipe, job: Job, *, tensorboard: bool
) -> Iterator[Context]:
    """As ``job_session`` for one of the processes that train together; the first alone writes."""
    from staanet import pipeline, storage
    from staanet.nn import distributed

    with ExitStack() as stack:
        device = stack.enter_context(distributed.process_group(checked_device(job.device)))
        context = pipeline.Context(
            seed=split.seed,
            protocol=split.protocol,
            device=device,
            quarantine=pipeline.Quarantine(job.strict),
        )
        if distributed.is_first():
            stack.enter_context(storage.FolderLock(out))
            bars = log_progress(out / "tensorboard" if tensorboard else None)
            context = replace(context, progress=stack.enter_context(bars))
        yield context
        if distributed.is_first():
            context.quarantine.save(out)


def checked_device(device: str) -> str:
    """The device's name; ``InvalidInput`` if this machine has no such device."""
    import torch

    if device.startswith("cuda"):
        _make_repeatable()
    try:
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(
            f"no device '{printable(device)}' here ({printable(str(error).splitlines()[0])[:100]})",
            remedy="Write --device cpu, cuda or cuda:N",
        ) from error


def _make_repeatable() -> None:
    """Asks for the same kernels and sums on a GPU each time, before CUDA begins."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")


def load_victims(specs: Sequence[Path | str], device: str) -> list[Victim]:
    """The victims on a device; ``InvalidInput`` for a device or a victim that is not there."""
    from staanet import victims

    device = checked_device(device)
    return [victims.load_victim(spec).to(device) for spec in specs]


def load_corpus(
    name: str, split: SplitRecipe, out: Path | None = None, victims: Sequence[Victim] = ()
) -> Corpus:
    """The corpus ``KIND:PATH``, read as the command's options say.

    A pair of ``--label-map`` may also be meant for a label of one of the ``victims``.
    """
    from staanet import corpora
    from staanet.corpora.labels import SharedLabelMap

    options = split.corpus_options()
    if split.label_map and victims:
        options["label_map"] = SharedLabelMap(split.label_map)
        options["label_map"].others = [label for v in victims for label in v.labels]
    return corpora.load_corpus(name, out=out, **options)


def label_owners(specs: Iterable[Path | str], split: SplitRecipe) -> list[Victim]:
    """The victims whose labels ``--label-map`` may name: none are loaded where there is no map."""
    from staanet import victims

    return [victims.load_victim(spec) for spec in specs] if split.label_map else []


def check_label_map(label_map: Mapping[str, str] | None, victims: Sequence[Victim]) -> None:
    """Raise ``InvalidInput`` for a pair of ``--label-map`` whose label no victim has."""
    labels = {label for victim in victims for label in victim.labels}
    for key in label_map or {}:
        if key not in labels:
            raise unknown_name("label in the label map:", key, labels)


def load_inputs(
    inputs: Sequence[str], part: str, split: SplitRecipe, out: Path, victims: Sequence[Victim] = ()
) -> Corpus:
    """The corpus that INPUT... names: files and folders, or a part of ``KIND:PATH``."""
    from staanet import corpora
    from staanet.core.protocols import PARTS

    if len(inputs) == 1 and inputs[0].split(":")[0] in corpora.CORPORA:
        whole = load_corpus(inputs[0], split, out, victims)
        if part == "all":
            return whole
        parts = {p.part: p for p in whole.split(split.seed, split.protocol)}
        if part not in parts:
            raise unknown_name("part", part, [*parts, "all"])
        return parts[part]
    if part not in (*PARTS, "all"):
        raise unknown_name("part", part, [*PARTS, "all"])
    usual = SplitRecipe()
    for field, option in FOR_CORPORA.items():
        if getattr(split, field) != getattr(usual, field):
            raise InvalidInput(
                f"{option} is for a corpus, and files have none",
                remedy=f"Drop {option}, or give KIND:PATH",
            )
    return corpora.unlabelled_corpus([Path(item) for item in inputs], leave_out=out)


FOR_CORPORA = {
    "protocol": "--protocol",
    "classes": "--classes",
    "task": "--task",
    "label_map": "--label-map",
    "root": "--root",
    "columns": "--column",
}
"""Options that files without a corpus cannot have."""


def number_of_card(card: Mapping[str, object], key: str, folder: Path | None) -> float | None:
    """A number of a card, or None; ``InvalidInput`` for anything else."""
    value = card.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidInput(
        f"its {key} is {printable(repr(value))[:40]}, no number",
        where=folder,
        remedy="Copy the folder again, or train again",
    )


def epsilon_of_card(card: Mapping[str, object], folder: Path | None) -> Epsilon | None:
    """The epsilon of a card, or None; ``InvalidInput`` for anything else."""
    if card.get("epsilon") is None:
        return None
    try:
        return check_epsilon(card["epsilon"])
    except InvalidInput as problem:
        raise InvalidInput(
            problem.what, where=folder, remedy="Copy the folder again, or train again"
        ) from problem
