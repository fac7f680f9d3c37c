"""Performs independent stages at the same time, each in a worker process.

Every worker builds the same list of stages, and is sent the name of one at a time. A stage whose inputs
are not there yet is tried again when another stage has ended. The files are those of one process with as
many threads as a worker has.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from staanet.core import MetricLogger
from staanet.errors import StaaNetError, StorageFault, WorkerError
from staanet.pipeline.context import Context
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.stage import NotReady, Stage, StageTimer

MAX_WORKERS = 4
"""More are not started unless asked for: each takes the memory of a process with torch and its clips."""
STOP_S = 5.0
"""Seconds in which a worker that was asked to stop has to end."""
MakeStages = Callable[[Context], Iterable[Stage]]
"""Builds the stages; has to be picklable. Stages without inputs are left to the caller."""


def default_workers(device: str) -> int:
    """As many as torch has threads, at most ``MAX_WORKERS``; 1 on a GPU, which the stages would share.

    >>> default_workers("cuda")
    1
    """
    return min(torch.get_num_threads(), MAX_WORKERS) if device == "cpu" else 1


def perform_together(make_stages: MakeStages, context: Context, timer: StageTimer) -> None:
    """Performs every stage that has inputs in ``context.workers`` processes.

    Args:
        make_stages: Called with the context of each worker.
        context: Its quarantine receives what those of the workers hold.
        timer: Notes how long each stage worked.

    Raises:
        StaaNetError: As a stage raised it. The other workers are stopped; finished work is kept.
        StorageFault: If a worker ended without an answer, as one that is killed for its memory.
        NotReady: If the remaining stages need inputs that no stage makes.
    """
    names = [stage.name for stage in make_stages(context) if stage.inputs is not None]
    count = min(context.workers, len(names))
    workers = [Worker.start(make_stages, context, count) for _ in range(count)]
    try:
        Schedule(names, workers, context, timer).run()
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class Worker:
    """A process that performs stages, and the name of the one that it works on."""

    process: BaseProcess
    connection: Connection
    stage: str | None = None

    @classmethod
    def start(cls, make_stages: MakeStages, context: Context, count: int) -> Worker:
        """Starts one of ``count`` workers. They share the threads of this process."""
        threads = max(1, torch.get_num_threads() // count)
        spawning = get_context("spawn")
        ours, theirs = spawning.Pipe()
        process = spawning.Process(
            target=serve, args=(theirs, make_stages, context.for_worker(), threads), daemon=True
        )
        process.start()
        theirs.close()
        return cls(process, ours)

    def send(self, stage: str) -> None:
        self.stage = stage
        self.connection.send(stage)

    def receive(self) -> tuple[Any, ...]:
        """The next message of the worker. Raises ``StorageFault`` if it has ended."""
        try:
            message: tuple[Any, ...] = self.connection.recv()
        except (EOFError, OSError) as problem:
            self.process.join(STOP_S)
            raise StorageFault(
                f"the process of stage '{self.stage}' ended ({self.process.exitcode})",
                remedy="Free memory, or pass --workers 1. Run again: finished work is kept",
            ) from problem
        return message

    def stop(self) -> None:
        """Ends the process. What it wrote is valid, as after any kill."""
        self.connection.close()
        self.process.terminate()
        self.process.join(STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@dataclass
class Schedule:
    """Names of stages that are not done, and workers that perform them in the order of the list."""

    waiting: list[str]
    workers: Sequence[Worker]
    context: Context
    timer: StageTimer
    not_ready: set[str] = field(default_factory=set)
    """Stages that lacked an input since the last stage was done."""

    def run(self) -> None:
        """Returns when every stage is done. Raises as ``perform_together``."""
        self._give_work()
        while busy := [worker for worker in self.workers if worker.stage is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    self._handle(worker, *worker.receive())
            self._give_work()
        if self.waiting:
            raise NotReady(", ".join(self.waiting))

    def _give_work(self) -> None:
        """Sends the first stages that may be ready to the workers without one."""
        busy = {worker.stage for worker in self.workers}
        ready = iter([s for s in self.waiting if s not in self.not_ready and s not in busy])
        for worker in self.workers:
            if worker.stage is None and (stage := next(ready, None)) is not None:
                worker.send(stage)

    def _handle(self, worker: Worker, kind: str, *values: Any) -> None:
        """Acts on a message of a worker. Raises an error that its stage raised."""
        assert worker.stage is not None, "it works on a stage"
        if kind == "progress":
            self.context.progress(*values)
        elif kind == "row":
            progress: object = self.context.progress
            if isinstance(progress, MetricLogger):
                progress.note(*values)
        elif kind == "not ready":
            self.not_ready.add(worker.stage)
            worker.stage = None
        elif kind == "error":
            raise WorkerError(*values)
        elif kind == "bug":
            raise RuntimeError(f"in stage '{worker.stage}':\n{values[0]}")
        else:
            seconds, quarantine = values
            self.timer.note(worker.stage, seconds)
            self.context.quarantine.join(quarantine)
            self.waiting.remove(worker.stage)
            self.not_ready.clear()
            worker.stage = None


def serve(connection: Connection, make_stages: MakeStages, context: Context, threads: int) -> None:
    """Performs the stages whose names come in, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(threads)
    context = replace(context, progress=RemoteProgress(connection))
    stages = {stage.name: stage for stage in make_stages(context)}
    try:
        while True:
            connection.send(_answer(stages[connection.recv()], context.quarantine))
    except (EOFError, OSError):  # the first process is gone
        os._exit(1)


def _answer(stage: Stage, quarantine: Quarantine) -> tuple[Any, ...]:
    begin = time.perf_counter()
    try:
        stage.perform()
    except NotReady:
        return ("not ready",)
    except StaaNetError as error:
        return ("error", error.to_dict())
    except Exception:
        return ("bug", traceback.format_exc())
    return ("done", time.perf_counter() - begin, quarantine)


@dataclass(frozen=True, slots=True)
class RemoteProgress:
    """Sends progress and rows of figures to the first process."""

    connection: Connection

    def __call__(self, what: str, done: int, total: int, figures: str = "") -> None:
        self.connection.send(("progress", what, done, total, figures))

    def note(self, what: str, row: Mapping[str, float]) -> None:
        self.connection.send(("row", what, dict(row)))
