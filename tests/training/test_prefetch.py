"""Batches drawn ahead are those that are drawn when asked for, in any order, and a fault in one is told."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from tests.support.speech import clip

from staanet import training
from staanet.training import Prefetcher

CPU = torch.device("cpu")


def crops() -> training.Crops:
    clips = [clip(0.3, 300.0 * n, n, id=f"c{n}") for n in range(1, 4)]
    return training.Crops(clips, training.Schedule(steps=9, batch_size=3, seconds=0.1, seed=5))


def drawn(step: int) -> tuple[torch.Tensor, ...]:
    x, chosen = crops().draw(step)
    return x, torch.from_numpy(chosen)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("steps", [range(6), [4, 5, 6], [2, 2, 0, 7, 1]], ids=str)
def test_a_batch_is_its_steps_own_however_it_is_drawn(threads, steps):
    batches = Prefetcher(drawn, CPU, threads)
    for step in steps:
        for one, other in zip(batches(step), drawn(step), strict=True):
            assert torch.equal(one, other)


def test_the_next_steps_are_drawn_while_this_one_is_computed():
    begun, wait = [], threading.Event()

    def draw(step):
        begun.append(step)
        if step == 2:
            wait.set()
        return (torch.tensor(step),)

    batches = Prefetcher(draw, CPU, threads=2)
    assert int(batches(0)[0]) == 0
    assert wait.wait(20)  # nobody has asked for step 2
    assert [int(batches(step)[0]) for step in (1, 2, 3)] == [1, 2, 3]
    assert sorted(begun)[:4] == [0, 1, 2, 3] and len(set(begun)) == len(begun)


def test_on_a_cpu_nothing_is_drawn_that_nobody_asked_for():
    begun = []
    batches = Prefetcher(lambda step: begun.append(step) or (torch.tensor(step),), CPU)
    batches(3)
    assert begun == [3] and batches.pool is None


def test_a_gpu_gets_threads_that_pin_and_copies_that_nobody_waits_for(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("on", device)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: done.append("pinned") or x)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda x, device, non_blocking: done.append((device.type, non_blocking)) or x,
    )
    device = torch.device("cuda", 1)
    batches = Prefetcher(lambda step: (torch.full((), step),), device)
    assert int(batches(0)[0]) == 0 and 1 <= batches.threads <= 4
    batches.pool.shutdown()
    assert done.count("pinned") == 1 + batches.threads and ("cuda", True) in done
    assert ("on", device) in done


def test_what_goes_wrong_in_a_thread_is_told_where_the_batch_is_asked_for():
    def draw(step):
        if step == 1:
            raise ValueError("no clip")
        return (torch.tensor(step),)

    batches = Prefetcher(draw, CPU, threads=1)
    batches(0)
    with pytest.raises(ValueError, match="no clip"):
        batches(1)


def test_threads_end_with_the_task_that_they_drew_for():
    before = threading.active_count()
    batches = Prefetcher(drawn, CPU, threads=2)
    batches(0)
    threads = [one for one in threading.enumerate() if one.name.startswith("draws")]
    assert threads and threading.active_count() > before
    del batches
    gc.collect()
    for one in threads:
        one.join(20)
    assert not any(one.is_alive() for one in threads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_batches_are_what_they_are_on_a_cpu():
    batches = Prefetcher(drawn, torch.device("cuda", 0))
    for step in range(5):
        for one, other in zip(batches(step), drawn(step), strict=True):
            assert one.is_cuda and torch.equal(one.cpu(), other)
