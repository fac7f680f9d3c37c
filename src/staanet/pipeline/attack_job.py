"""``AttackJob``: an attack that runs in this process, as one shard, or as all shards on Ray.

On Ray each shard is a task that writes its own folder. If a worker is lost, another one continues from
the journal in the folder. At the end the shards are merged; the files are those of a run in one
process. All machines of a Ray cluster need access to the output folder.
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
from staanet.errors import (
    InvalidInput,
    StaaNetError,
    StorageFault,
    WorkerError,
    needs_extra,
    printable,
)
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import plan_attack, shard_plan
from staanet.pipeline.clips import ReadingClips, split_part
from staanet.pipeline.context import Context
from staanet.pipeline.join_recordings import join_recordings
from staanet.pipeline.merge import merge
from staanet.pipeline.sources import source_of
from staanet.pipeline.victim_check import match_corpus_labels
from staanet.results.adversarial_set import AdversarialSet
from staanet.storage.shards import Shard

SHARDS = 32
"""It does not depend on the number of workers, so that an interrupted job finds its shards again."""
RETRIES = 5
"""How often Ray restarts the task of a lost worker."""
ANSWER_TIMEOUT_S = 10.0
"""Seconds in which a cluster has to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackJob:
    """Everything that ``staanet attack`` needs, by name and path, so that it can be pickled."""

    corpus: Corpus
    recipe: AttackRecipe
    sources: tuple[str, ...] = ()
    """The victim, or the members of an ensemble. Empty: that of the generator or vector."""
    generator: Path | None = None
    vector: Path | None = None
    matched: Path | None = None
    label: str | None = None
    window_s: float = 0.0

    def load_source(self, device: str) -> Victim:
        """Loads the source model; raises ``InvalidInput`` where neither a victim nor a folder names it."""
        if self.sources:
            return victims.load_victims(self.sources).to(device)
        kind, folder = ("generator", self.generator) if self.generator else ("vector", self.vector)
        if folder is None:
            raise InvalidInput(
                "no victim to attack",
                remedy="Pass --source VICTIM, --generator DIR or --vector DIR",
            )
        return source_of(folder, kind).to(device)

    def run(
        self, victim: Victim, out: Path, *, context: Context, shard: Shard | None = None
    ) -> AdversarialSet:
        """Crafts the adversarial set, or a shard of it, into ``out`` in this process."""
        corpus = self.corpus
        match_corpus_labels([victim], corpus, context)
        plan = plan_attack(
            str(self.recipe.attack),
            self.recipe,
            victim,
            generator=self.generator,
            vector=self.vector,
            matched=self.matched,
            label=self.label,
            context=context,
        )
        plan = replace(plan, drawn_from=split_part(corpus))
        if shard is not None:
            plan = shard_plan(plan, shard, corpus, self.window_s)
            corpus = replace(corpus, utterances=shard.part(corpus.utterances))
        clips = ReadingClips(corpus, victim, context, self.window_s or None)
        if context.strict:  # nothing is written if any clip is unusable
            deque(clips, maxlen=0)
        adversarial = attack(plan, clips, out, context=context)
        join_recordings(clips.recordings.values(), out, context=context)
        context.quarantine.save(out)
        return adversarial

    def run_on_ray(self, victim: Victim, out: Path, *, context: Context) -> AdversarialSet:
        """Crafts the adversarial set on the Ray cluster of ``RAY_ADDRESS``, or else on this machine's cores."""
        if (out / storage.CARD).exists():  # finished, or of other settings; ``run`` decides
            return self.run(victim, out, context=context)
        count = max(1, min(SHARDS, len(self.corpus)))
        folders = {number: out / ".shards" / f"{number:04d}" for number in range(1, count + 1)}
        _run_all(self, folders, context)
        adversarial = merge(list(folders.values()), out, context=context)
        assert isinstance(adversarial, AdversarialSet), "shards of an attack"
        shutil.rmtree(out / ".shards", ignore_errors=True)
        return adversarial


def _run_all(job: AttackJob, folders: dict[int, Path], context: Context) -> None:
    with needs_extra("ray", "ray"):
        import ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    is_new = not ray.is_initialized()
    if is_new and "RAY_ADDRESS" in os.environ:
        require_reachable(os.environ["RAY_ADDRESS"])
        ray.init(log_to_driver=False)
    elif is_new:
        ray.init(include_dashboard=False, log_to_driver=False, num_cpus=os.cpu_count())
    gpus = 1 if context.device.startswith("cuda") else 0
    task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=gpus)(_shard)
    try:
        job_reference = ray.put(job)
        worker_context = context.for_worker()
        pending = [
            task.remote(job_reference, number, len(folders), folder, worker_context)
            for number, folder in folders.items()
        ]
        while pending:
            done, pending = ray.wait(pending, num_returns=1)
            error = ray.get(done[0])
            if error is not None:
                raise WorkerError(error)
            finished = len(folders) - len(pending)
            context.progress(f"shards of {job.recipe.attack} on Ray", finished, len(folders), "")
    except ray.exceptions.WorkerCrashedError as problem:
        raise StorageFault(
            f"a shard lost its worker {RETRIES + 1} times",
            remedy="Look for what ends the workers (memory?), run again: finished work is kept",
        ) from problem
    finally:
        if is_new:
            ray.shutdown()


def require_reachable(address: str) -> None:
    """Raises ``InvalidInput`` if nothing answers at ``HOST:PORT``; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):  # auto, local: Ray knows where
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_TIMEOUT_S).close()
    except (OSError, OverflowError) as problem:
        raise InvalidInput(
            f"no Ray cluster answers at RAY_ADDRESS={printable(address)} ({printable(str(problem))})",
            remedy="Start one there (ray start --head), or unset RAY_ADDRESS to use the cores here",
        ) from problem


def _shard(
    job: AttackJob, number: int, of: int, folder: Path, context: Context
) -> dict[str, Any] | None:
    """Crafts one shard in a worker; returns an error that the user can correct, or None."""
    try:
        with storage.FolderLock(folder):
            victim = job.load_source(context.device)
            job.run(victim, folder, context=context, shard=Shard(number, of))
    except StaaNetError as error:
        return error.to_dict()
    return None
