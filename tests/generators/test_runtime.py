"""An exported generator gives torch's samples without torch, at any length."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.support.speech import tone
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from staanet import audio, storage
from staanet.cli import app
from staanet.core import Budget
from staanet.errors import InvalidInput, StaaNetError
from staanet.generators.backward_net import BackwardNet
from staanet.generators.export import minimum_samples, onnx_bytes
from staanet.generators.registry import load_generator, save_generator
from staanet.generators.runtime import Runner
from staanet.generators.wave_u_net import WaveUNet
from staanet.pipeline import export

NETWORKS = {
    "backward_net": lambda: BackwardNet(
        blocks=[(1, 8, 8, 10), (8, 12, 6, 8), (12, 16, 6, 8)],
        classes=4,
        hidden=12,
        density=0.2,
        iterations=2,
        epsilon=0.05,
    ),
    "iterations": lambda: BackwardNet(
        blocks=[(1, 8, 8, 10), (8, 12, 6, 8), (12, 16, 6, 8)],
        classes=3,
        hidden=12,
        density=0.2,
        iterations=4,
        epsilon=0.5,
    ),
    "elu": lambda: BackwardNet(
        blocks=[(1, 8, 3, 4), (8, 8, 3, 4)], activation="elu", classes=3, hidden=8, layers=1
    ),
    "paper": lambda: WaveUNet(features=8, levels=3),
    "compact": lambda: WaveUNet(features=16, levels=3, fold=16, gain=2.0, density=0.1),
}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def exported(request, tmp_path_factory):
    """A network with random weights, its folder, and the file that the command wrote."""
    root = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    generator = NETWORKS[request.param]().eval()
    for weight in generator.parameters():  # not only the silent layers that a mirror begins with
        weight.data += 0.02 * torch.randn_like(weight)
    save_generator(generator, root / "g", epsilon=0.04, max_density=0.15)
    done = CliRunner().invoke(
        app, ["export", str(root / "g"), "--out", str(root / "g.onnx"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["differing"] <= 0.01 * json.loads(done.stdout)["changed"]
    return load_generator(root / "g"), root / "g.onnx"


@pytest.fixture(scope="module")
def runner(exported):
    return Runner(exported[1])


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 640, 5003, 20_011])
def test_it_sets_the_samples_that_torch_sets(exported, runner, length):
    generator, _ = exported
    clean = tone(2, 300)[: runner.minimum_samples + length]
    wanted = export.attack_with_torch(generator, clean, Budget(epsilon=0.04, max_density=0.15))
    made = runner(clean)
    assert made.dtype == np.int16 and made.shape == clean.shape
    differing = np.count_nonzero(made != wanted)
    assert differing <= 0.01 * np.count_nonzero(wanted != clean) + 1
    assert not Budget(epsilon=0.04, max_density=0.15).violations(clean, made)


def rounded_copies(generator, count=6):
    """The generator, then copies whose weights differ by rounding: a near tie may fall either way."""
    yield generator
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        rounded = copy.deepcopy(generator)
        for weight in rounded.parameters():
            weight.data *= 1 + 1e-6 * torch.randn(weight.shape, generator=random)
        yield rounded


@pytest.mark.parametrize("epsilon, density", [(0.001, 0.01), (0.1, 0.5), (2.0, 1.0)])
def test_another_budget_is_kept(exported, epsilon, density):
    generator, path = exported
    runner = Runner(path, epsilon=epsilon, max_density=density)
    clean = tone(0.5, 700, level=0.99)
    made = runner(clean)
    budget = Budget(epsilon=epsilon, max_density=density)
    assert not budget.violations(clean, made)
    off = min(
        (
            np.abs(made.astype(int) - export.attack_with_torch(rounded, clean, budget))
            for rounded in rounded_copies(generator)
        ),
        key=lambda distance: np.count_nonzero(distance > 1),
    )
    assert np.count_nonzero(off > 1) <= 0.01 * len(clean)  # a near tie of rank is another sample
    assert np.count_nonzero(off == 1) <= max(0.01, 0.02 * epsilon) * len(clean)  # one of rounding
    assert np.array_equal(
        made, runner(audio.to_float(clean))
    )  # floats on the grid are the integers


def test_no_torch_is_imported(exported, tmp_path):
    generator, path = exported
    clean = tone(0.4, 500)
    storage.write_bytes(tmp_path / "c.wav", audio.encode(clean, 16_000))
    code = (
        "import sys; from staanet import audio; from staanet.generators.runtime import Runner\n"
        f"x, _ = audio.read_int16({str(tmp_path / 'c.wav')!r}); y = Runner({str(path)!r})(x)\n"
        "assert not any(m.split('.')[0] == 'torch' for m in sys.modules), 'torch was imported'\n"
        "print(int((x != y).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = export.attack_with_torch(generator, clean, Budget(epsilon=0.04, max_density=0.15))
    assert int(done.stdout) == pytest.approx(np.count_nonzero(wanted != clean), rel=0.01, abs=2)


def test_the_least_length_is_the_least_that_fills_every_layer():
    backward_net = NETWORKS["backward_net"]()
    least = minimum_samples(backward_net)
    for length, frames in ((least, 1), (least - 1, 0)):
        for conv, pool in zip(backward_net.down, backward_net.pools):
            length = (length + 2 * conv.padding[1] - conv.kernel_size[1] + 1) // pool
        assert length == frames


def test_what_is_no_export_or_no_clip_is_refused(exported, runner, tmp_path):
    _, path = exported
    with pytest.raises(InvalidInput, match="at least"):
        runner(np.zeros(runner.minimum_samples - 1, np.int16))
    with pytest.raises(InvalidInput, match="mono"):
        runner(np.zeros((2, 16_000), np.int16))
    for settings in (
        {"epsilon": 0.0},
        {"epsilon": 3.0},
        {"max_density": 0.0},
        {"max_density": 1.5},
    ):
        with pytest.raises(InvalidInput, match="Give a share|Give a value"):
            Runner(path, **settings)
    with pytest.raises(InvalidInput, match="no such file"):
        Runner(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match="staanet export"):
        Runner(tmp_path / "bad.onnx")
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"staanet": json.dumps({"format": 99})})
    with pytest.raises(InvalidInput, match="says 99"):
        Runner(model.SerializeToString())


def test_an_export_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    _, path = exported
    monkeypatch.setattr(export, "ALLOWED_SHARE", -1.0)
    with pytest.raises(StaaNetError, match="nothing was written"):
        export.export_generator(path.parent / "g", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_network_of_another_kind_is_named():
    class Other(WaveUNet):
        architecture = "other"

    class Strange(torch.nn.Module):
        architecture, gain, density, sample_rate = "strange", None, None, 16_000

    assert onnx_bytes(Other(features=8, levels=2, fold=4).eval(), 0.1, None)
    with pytest.raises(InvalidInput, match="'strange' cannot be exported"):
        onnx_bytes(Strange(), 0.1, None)  # type: ignore[arg-type]
