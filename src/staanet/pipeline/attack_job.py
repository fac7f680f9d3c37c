"""One attack as a job that can be sent anywhere: run here, a shard of it there, or all shards by Ray.

On Ray each shard is a task that writes its own folder. A task whose worker is lost is given to another
one, which goes on where the folder's journal ends; when all are done they are merged. So the result is
that of one process, by sha256. All machines of a Ray cluster have to see the output folder.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from staanet import storage, victims
from staanet.config import AttackRecipe
from staanet.core import Corpus, Victim
from staanet.corpora.recordings import COLUMNS
from staanet.errors import InvalidInput, StaaNetError, StorageFault, printable
from staanet.pipeline.attack import RECORDINGS, attack, join_recordings
from staanet.pipeline.attack_plan import part_of, plan_attack
from staanet.pipeline.clips import ReadingClips, drawn_from
from staanet.pipeline.context import Context
from staanet.pipeline.merge import merge
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.train import source_of
from staanet.results import row_files
from staanet.results.adversarial_set import AdversarialSet
from staanet.storage.shards import Shard

SHARDS = 32
"""As many on any number of workers, so that an interrupted job finds its shards again."""
RETRIES = 5
REACHED_S = 10.0
"""Seconds in which a cluster has to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackJob:
    """Everything that ``staanet attack`` needs, by name and path: it can be pickled."""

    corpus: Corpus
    recipe: AttackRecipe
    sources: tuple[str, ...] = ()
    """The victim, or the members of an ensemble; empty: that of the generator or vector."""
    generator: Path | None = None
    vector: Path | None = None
    matched: Path | None = None
    label: str | None = None
    window_s: float = 0.0

    def victim(self, device: str) -> Victim:
        """The classifier that the attack is crafted on."""
        if self.sources:
            return victims.load_victims(self.sources).to(device)
        kind, place = ("generator", self.generator) if self.generator else ("vector", self.vector)
        if place is None:
            raise InvalidInput(
                "no victim to attack",
                remedy="Pass --source VICTIM, --generator DIR or --vector DIR",
            )
        return source_of(place, kind).to(device)

    def run(
        self, victim: Victim, out: Path, *, context: Context, shard: Shard | None = None
    ) -> AdversarialSet:
        """Craft it, or a shard of it, in this process."""
        plan, corpus = (
            plan_attack(
                str(self.recipe.attack),
                self.recipe,
                victim,
                generator=self.generator,
                vector=self.vector,
                matched=self.matched,
                label=self.label,
                context=context,
            ),
            self.corpus,
        )
        plan = replace(plan, drawn=drawn_from(corpus))
        if shard is not None:
            plan = part_of(plan, shard, corpus, self.window_s)
            corpus = replace(corpus, utterances=shard.part(corpus.utterances))
        clips = ReadingClips(corpus, victim, context, self.window_s or None)
        if context.strict:  # nothing is written where any clip is unusable
            deque(clips, maxlen=0)
        made = attack(plan, clips, out, context=context)
        join_recordings(clips.recordings.values(), made, out, context=context)
        context.quarantine.save(out)
        return made

    def run_on_ray(self, victim: Victim, out: Path, *, context: Context) -> AdversarialSet:
        """Craft it on a Ray cluster: that of ``RAY_ADDRESS``, or one of this machine's cores."""
        if (out / storage.CARD).exists():  # done, or of something else: both are told here
            return self.run(victim, out, context=context)
        count = max(1, min(SHARDS, len(self.corpus)))
        folders = {number: out / ".shards" / f"{number:04d}" for number in range(1, count + 1)}
        _run_all(self, folders, context)
        made = merge(list(folders.values()), out, context=context)
        assert isinstance(made, AdversarialSet), "shards of an attack"
        shutil.rmtree(out / ".shards", ignore_errors=True)
        return made


def joined_recordings(out: Path) -> list[dict[str, str]]:
    """The rows of ``recordings.csv``; none where no file was long."""
    path = out / RECORDINGS
    return list(row_files.read_csv(path, COLUMNS)) if path.exists() else []


def _run_all(job: AttackJob, folders: dict[int, Path], context: Context) -> None:
    try:
        import ray
    except ImportError as problem:
        raise InvalidInput(
            "the package ray is not installed", remedy="Install it: pip install 'staanet[ray]'"
        ) from problem
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    begun = not ray.is_initialized()
    if begun and "RAY_ADDRESS" in os.environ:
        _reach(os.environ["RAY_ADDRESS"])
        ray.init(log_to_driver=False)
    elif begun:
        ray.init(include_dashboard=False, log_to_driver=False, num_cpus=os.cpu_count())
    gpus = 1 if context.device.startswith("cuda") else 0
    task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=gpus)(_shard)
    try:
        sent = ray.put(job)
        settings = {name: getattr(context, name) for name in ("seed", "device", "strict")}
        waiting = [
            task.remote(sent, number, len(folders), folder, settings)
            for number, folder in folders.items()
        ]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            failed = ray.get(done[0])
            if failed is not None:
                raise _Failed(failed)
            finished = len(folders) - len(waiting)
            context.progress(f"shards of {job.recipe.attack} on Ray", finished, len(folders), "")
    except ray.exceptions.WorkerCrashedError as problem:
        raise StorageFault(
            f"a shard lost its worker {RETRIES + 1} times",
            remedy="Look for what ends the workers (memory?), run again: finished work is kept",
        ) from problem
    finally:
        if begun:
            ray.shutdown()


def _reach(address: str) -> None:
    """``InvalidInput`` where nothing answers at ``HOST:PORT``, for which Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):  # auto, local: Ray knows where
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except (OSError, OverflowError) as problem:
        raise InvalidInput(
            f"no Ray cluster answers at RAY_ADDRESS={printable(address)} ({printable(str(problem))})",
            remedy="Start one there (ray start --head), or unset RAY_ADDRESS to use the cores here",
        ) from problem


def _shard(
    job: AttackJob, number: int, of: int, folder: Path, settings: dict[str, Any]
) -> dict[str, Any] | None:
    """In a worker: one shard; None, or the error that a user can mend."""
    try:
        with storage.FolderLock(folder):
            context = Context(
                seed=settings["seed"],
                device=settings["device"],
                quarantine=Quarantine(settings["strict"]),
            )
            victim = job.victim(context.device)
            job.run(victim, folder, context=context, shard=Shard(number, of))
    except StaaNetError as error:
        return error.to_dict()
    return None


class _Failed(StaaNetError):
    """What a worker told."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["what"], where=told["where"], remedy=told["remedy"])
        self.exit_code = int(told["exit_code"])
