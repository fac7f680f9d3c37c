"""Passes on a GPU are recorded where a length comes again, answer as ever, and run as they are elsewhere."""

from __future__ import annotations

import pytest
import torch
from tests.support.speech import clip
from torch.utils._python_dispatch import TorchDispatchMode

from staanet.attacks import Staa, craft
from staanet.attacks.cuda_graphs import GraphCache, can_record_graph, record_graph
from staanet.core import Budget, Targeted, Untargeted
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Perturbation
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.registry import build_generator
from staanet.generators.surrogate import SurrogateGradient
from staanet.nn import kernels
from staanet.nn.conv_maxpool import max_unpool
from staanet.victims import build_victim
from staanet.victims.blueprint import blueprint

BUDGET = Budget(epsilon=0.05, max_density=0.3)


class OnGpu(torch.Tensor):
    """A tensor on a CPU that says otherwise."""

    is_cuda = True


def wave(time: int, batch: int = 1, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(batch, time, generator=torch.Generator().manual_seed(seed))


def there(x: torch.Tensor) -> torch.Tensor:
    return x.as_subclass(OnGpu)


def backward_net(**settings) -> BackwardNet:
    torch.manual_seed(0)
    blocks = ((1, 8, 8, 10), (8, 8, 6, 8))
    made = BackwardNet(blocks=blocks, classes=2, hidden=8, layers=2, density=0.3, **settings)
    return made.eval().requires_grad_(False)


class Recorder:
    """Stands for a GPU: it keeps what was recorded, and answers as the pass does."""

    def __init__(self):
        self.made, self.replayed = [], []

    def __call__(self, run_pass, x):
        self.made.append(x.shape[1])

        def replay(x):
            self.replayed.append(x.shape[1])
            return run_pass(x)

        return replay


def run_pass(x: torch.Tensor) -> Perturbation:
    return Perturbation(2 * x, x)


def test_a_length_is_recorded_when_it_comes_again_and_replayed_from_then_on():
    recorder, generator = Recorder(), backward_net()
    graphs = GraphCache(recorder)
    for time in (80, 90, 80, 80, 90, 100):
        x = there(wave(time, seed=time))
        assert torch.equal(graphs(generator, run_pass, x, "setting").magnitude, 2 * x)
    assert recorder.made == [80, 90] and recorder.replayed == [80, 80, 90]


def test_another_setting_is_another_recording():
    recorder, generator = Recorder(), backward_net()
    graphs = GraphCache(recorder)
    for setting in ("one", "other", "one"):
        graphs(generator, run_pass, there(wave(80)), setting)
    assert recorder.made == [80] and len(graphs.passes) == 2


def test_the_length_that_was_used_longest_ago_is_forgotten():
    recorder, generator = Recorder(), backward_net()
    graphs = GraphCache(recorder, capacity=2)
    for time in (80, 80, 90, 80, 100, 90, 80):  # 100 sends 90 away, and 90 sends 80
        graphs(generator, run_pass, there(wave(time)), None)
    assert recorder.made == [80] and recorder.replayed == [80, 80]
    assert [key[0] for key in graphs.passes] == [90, 80]


@pytest.mark.parametrize("x", [wave(80), there(wave(80, batch=2))], ids=["cpu", "batch"])
def test_on_a_cpu_and_in_a_batch_a_pass_runs_as_it_is(x):
    recorder = Recorder()
    graphs = GraphCache(recorder)
    for _ in range(3):
        graphs(backward_net(), run_pass, x, None)
    assert recorder.made == [] and not graphs.passes


def test_networks_that_differentiate_inside_are_not_recorded():
    victim = build_victim("wav2vec2", ("high", "low"), config="tiny")
    surrogate = SurrogateGradient(classifier=blueprint(victim), density=0.3)
    x = there(wave(80))
    assert can_record_graph(build_generator("narrow", 0.3), x)
    assert can_record_graph(EnsembleGenerator.of([backward_net(), backward_net()]), x)
    assert not can_record_graph(surrogate, x)
    assert not can_record_graph(EnsembleGenerator.of([backward_net(), surrogate]), x)


class Watched(TorchDispatchMode):
    """Notes every operator that would make a GPU wait for Python or Python for it."""

    FORBIDDEN = ("_local_scalar_dense", "lift_fresh", "nonzero", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.FORBIDDEN):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name", ["paper", "small", "narrow", "backward_net", "iterations", "ensemble"]
)
def test_a_pass_asks_no_tensor_for_its_value(name):
    made = {
        "backward_net": backward_net,
        "iterations": lambda: backward_net(iterations=2),
        "ensemble": lambda: EnsembleGenerator.of([backward_net(), backward_net()], density=0.3),
    }
    generator = made.get(name, lambda: build_generator(name, 0.3))().eval().requires_grad_(False)
    with torch.no_grad(), Watched() as watched:
        generator(wave(3000), None, None, BUDGET)
    assert watched.found == []


def test_what_a_pass_must_not_ask_is_seen():
    with Watched() as watched:
        float(torch.ones(1))
        torch.ones(2).new_tensor(0.5)
    assert watched.found == ["aten._local_scalar_dense.default", "aten.lift_fresh.default"]


def test_a_gpu_unpools_as_a_cpu_does():
    values = torch.randn(2, 5, 1, 30, generator=torch.Generator().manual_seed(0))
    argmax = torch.randint(0, 8, values.shape, generator=torch.Generator().manual_seed(1)).byte()
    here, beyond = values.clone().requires_grad_(), there(values.clone()).requires_grad_()
    one, other = max_unpool(here, argmax, 8), max_unpool(beyond, argmax, 8)
    assert torch.equal(one, other) and one.stride() == other.stride()
    for spread in (one, other):
        spread.square().sum().backward()
    assert torch.equal(here.grad, beyond.grad)


@pytest.mark.parametrize("broken", [True, False])
def test_where_nothing_can_be_compiled_torch_serves(monkeypatch, broken):
    def tried(values, argmax, weight, pool):
        if broken:
            raise RuntimeError(
                "Failed to find C compiler. Please specify via CC environment variable."
            )
        return torch.zeros(1, 1, 1, 2)  # a wrong answer

    monkeypatch.setattr(kernels, "unpool_rows", tried)
    if broken:
        with pytest.warns(UserWarning, match="Triton compiles nothing here.*C compiler"):
            assert not kernels._compiles_on.__wrapped__(torch.device("cpu"))
    else:
        assert not kernels._compiles_on.__wrapped__(torch.device("cpu"))


def test_an_attack_asks_for_replays_only_where_nothing_but_samples_differs():
    recorder = Recorder()
    generator = backward_net(labels=("high", "low"))
    source = build_victim("zhao19", ("high", "low")).eval().requires_grad_(False)
    attack = Staa(generator=generator, budget=BUDGET, graphs=GraphCache(recorder))
    x, away = there(wave(1600)), Untargeted(-1)
    for _ in range(2):
        attack(source, x, Targeted(1))
        attack(source, x, away, torch.tensor([1500]))
    assert recorder.made == []
    plain = Staa(generator=generator, budget=BUDGET, graphs=None)(source, x, away)
    for _ in range(3):
        assert torch.equal(attack(source, x, away), plain)
    assert recorder.made == [1600] and recorder.replayed == [1600, 1600]


def test_replays_are_no_setting_of_an_attack():
    one, other = (Staa(generator=(g := backward_net()), budget=BUDGET) for _ in range(2))
    assert "replays" not in repr(one) and one.graphs is not other.graphs and g is not None


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("name", ["small", "narrow", "backward_net"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_a_replay_answers_as_the_pass_does(name, precision):
    generator = (
        (backward_net() if name == "backward_net" else build_generator(name, 0.3)).eval().cuda()
    )
    source = build_victim("zhao19", ("high", "low")).eval().requires_grad_(False).cuda()
    clips = [clip(0.5, 200.0 * n, n, id=f"c{n}") for n in range(1, 6)]
    attack = Staa(generator=generator, budget=BUDGET, precision=precision)
    plain = Staa(generator=generator, budget=BUDGET, precision=precision, graphs=None)
    pairs = zip(craft(attack, source, clips).clips, craft(plain, source, clips).clips, strict=True)
    for one, other in pairs:
        assert (one.adversarial == other.adversarial).mean() > 0.999
    assert attack.graphs is not None
    assert [replay is not None for replay in attack.graphs.passes.values()] == [True]


@needs_gpu
def test_on_a_gpu_a_mirror_is_recorded_with_repeatable_kernels_too():
    generator, x = backward_net().cuda(), wave(3000).cuda()
    attack = Staa(generator=generator, budget=BUDGET)
    source = build_victim("zhao19", ("high", "low")).eval().requires_grad_(False).cuda()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = [attack(source, x, Untargeted(-1)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found[1], found[2]) and attack.graphs is not None
    assert list(attack.graphs.passes.values()) != [None]


@needs_gpu
def test_on_a_gpu_a_pass_that_cannot_be_recorded_runs_as_it_is():
    def asks(x: torch.Tensor) -> Perturbation:
        return Perturbation(x * float(x.sum()), x)

    with pytest.warns(UserWarning, match="no CUDA graph"):
        assert record_graph(asks, torch.ones(1, 4, device="cuda")) is asks
    assert float(torch.ones(1, device="cuda") + 1) == 2  # the device works on
