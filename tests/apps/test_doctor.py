"""The doctor: what lacks is named with its command, what is broken never ends the examination."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.support.commands import staanet_process

from staanet.apps import doctor
from staanet.apps.doctor import capabilities, machine, packages
from staanet.apps.doctor.finding import Finding, run_probe
from staanet.errors import InvalidInput


def needed(*lines):
    return [Requirement(line) for line in lines]


def test_a_package_that_lacks_or_does_not_fit_fails_and_a_fitting_one_passes():
    there = {"numpy": "1.26.0", "scipy": "1.16.0", "torch": "2.13.0+cpu"}
    findings = list(
        packages.check_packages(
            needed(
                "numpy>=2.2",
                "scipy>=1.15",
                "soxr>=1.1",
                "torch>=2.13",
                "tzdata; sys_platform == 'x'",
            ),
            there,
            {"scipy": "1.17.1", "torch": "2.13.0"},
        )
    )
    assert [finding.verdict for finding in findings] == ["fail", "pass", "fail", "pass"]
    assert findings[0].detail == "1.26.0, but >=2.2 is needed" and findings[2].detail.startswith(
        "missing"
    )
    assert findings[1].detail == "1.16.0 (1.17.1 was tested)" and findings[3].detail == "2.13.0+cpu"
    assert all("pip install" in finding.remedy for finding in findings if finding.verdict == "fail")


def test_an_absent_extra_is_no_fault_and_comes_with_its_command():
    wanted = needed("onnx>=1.20", "onnxruntime>=1.24")
    absent = packages.check_extra("onnx", wanted, {"onnx": "1.23"})
    assert absent.verdict == "absent" and absent.detail.endswith(": without onnxruntime")
    assert "[onnx]" in absent.remedy and not doctor.failures([absent])
    assert (
        packages.check_extra("onnx", wanted, {"onnx": "1.23", "onnxruntime": "1.32"}).verdict
        == "pass"
    )
    assert (
        packages.check_extra("onnx", wanted, {"onnx": "1.2", "onnxruntime": "1.32"}).verdict
        == "fail"
    )


def test_the_command_that_adds_an_extra_names_this_python_and_what_pip_knows():
    words = shlex.split(packages.install_command("ssl", "onnx"))
    assert Path(words[0]).name.startswith("python") and words[1:4] == ["-m", "pip", "install"]
    assert words[-1].endswith("[ssl,onnx]")


def test_packages_for_cuda_beside_a_torch_for_the_cpu():
    assert packages.check_cuda_packages({"torch": "2.13.0+cpu"}).verdict == "pass"
    found = packages.check_cuda_packages(
        {"torch": "2.13.0+cpu", "torchaudio": "2.1", "nvidia-nccl": "1"}
    )
    assert found.verdict == "fail"
    assert found.remedy.endswith("-m pip uninstall -y nvidia-nccl torchaudio")


def test_extras_made_of_extras_hold_what_those_hold():
    core, extras = packages.requirements()
    names = {name: {one.name for one in wanted} for name, wanted in extras.items()}
    assert "torch" in {one.name for one in core}
    assert (
        names["dev"] >= names["test"] | names["ssl"] | names["onnx"]
        and "staanet" not in names["dev"]
    )
    tested = packages.constraints()
    for wanted in [core, *extras.values()]:  # what was tested is what is asked for
        for one in wanted:
            pin = tested.get(packages.normalise_name(one.name))
            assert pin is None or one.specifier.contains(pin), one


def test_whatever_a_probe_raises_is_one_finding():
    def broken():
        raise OSError("libfoo.so:\n cannot open")

    def explained():
        raise InvalidInput("no voice", remedy="Install it")

    assert run_probe("a", "b", broken, "Mend it") == Finding(
        "a", "b", "fail", "OSError: libfoo.so: cannot open", "Mend it"
    )
    assert run_probe("a", "b", explained, "Mend it").remedy == "Install it"
    assert run_probe("a", "b", lambda: "fine") == Finding("a", "b", "pass", "fine")


def test_a_folder_that_cannot_be_written_fails_and_one_to_be_made_is_tried_above(tmp_path):
    assert machine.check_disk(tmp_path / "not" / "yet").verdict in ("pass", "warn")
    assert not (tmp_path / "not").exists() and not list(tmp_path.iterdir())
    if not Path("/proc/self").is_dir():
        pytest.skip("a folder that nobody may write to: no /proc here")
    assert machine.check_disk(Path("/proc")).verdict == "fail"


def test_shipped_models_are_asked_and_one_that_waits_for_an_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert capabilities.models() == "emo18, zhao19 answer; wav2vec2_tiny waits for the extra ssl"


def test_what_was_installed_from_a_file_is_added_to_from_that_file(monkeypatch):
    told = metadata.PathDistribution(Path("staanet-0.dist-info"))
    monkeypatch.setattr(told, "read_text", lambda name: '{"url": "file:///x/staanet.whl"}')
    monkeypatch.setattr(packages.metadata, "distribution", lambda name: told)
    monkeypatch.setattr(packages, "checkout", lambda: None)
    assert (
        shlex.split(packages.install_command("web"))[-1] == "staanet[web] @ file:///x/staanet.whl"
    )
    monkeypatch.setattr(told, "read_text", lambda name: None)  # from an index
    assert shlex.split(packages.install_command("web"))[-1] == "staanet[web]"


def test_a_sound_installation_by_its_command(tmp_path):
    done = staanet_process("doctor", "--json", "--folder", tmp_path, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["sound"], done.stdout
    tried = {(one["group"], one["name"]) for one in told["findings"]}
    assert tried >= {
        ("audio", "mp3:64"),
        ("disk", "lock"),
        ("machine", "network"),
        ("package", "torch"),
    }
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_broken_package_and_a_harmful_one_are_named_with_what_to_do(tmp_path):
    (tmp_path / "soxr.py").write_text("raise ImportError('libsoxr.so: cannot open')")
    stray = tmp_path / "torchcodec-9.dist-info"
    stray.mkdir()
    (stray / "METADATA").write_text("Metadata-Version: 2.1\nName: torchcodec\nVersion: 9\n")
    import os

    import torch

    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = staanet_process("doctor", cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "libsoxr.so" in done.stdout and "--force-reinstall" in done.stdout
    assert torch.version.cuda or "pip uninstall -y torchcodec" in done.stdout
    assert "checks" in done.stdout.splitlines()[-1]
