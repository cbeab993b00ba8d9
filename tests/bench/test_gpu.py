"""The GPU script on the CPU, and on a machine that has torch and NumPy alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu.bare import MODELS, read_safetensors, stand_in
from bench.gpu.checks import check_points
from bench.gpu.models import Given, digits_generator, digits_pairs
from bench.gpu.stopwatch import Stopwatch
from bench.problems.learned_metrics import DIGITS_RBF, digits_model
from geodesics import geodesic
from vae import load_rbf

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("jaxtyping", "scipy", "sklearn", "torchdiffeq", "tqdm", "safetensors", "matplotlib", "beartype")


def test_runs_on_a_bare_machine(tmp_path):
    """Without the packages of the library: their imports fail here as they would there."""
    code = (
        f"import runpy, sys\nfor name in {ABSENT!r}: sys.modules[name] = None\n"
        f"sys.argv = ['gpu', '--device', 'cpu', '--quick', '--output', {str(tmp_path / 'gpu.json')!r}]\n"
        "runpy.run_module('bench.gpu', run_name='__main__')"
    )
    environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert report["environment"]["jaxtyping"] == "stand-in"
    assert report["left_out"] == []
    assert all(check["passed"] for check in report["checks"])
    assert len(report["checks"]) == 18
    names = [timing["name"] for timing in report["timings"]]
    for start in ("value and Jacobian", "metric tensors", "solve, digits, graph", "solve, images", "overhead"):
        assert any(name.startswith(start) for name in names)
    assert all(timing["value"] > 0 for timing in report["timings"])
    assert report["profile"]


def test_reads_safetensors():
    found, metadata = read_safetensors(MODELS / DIGITS_RBF.name)
    rbf = load_rbf(DIGITS_RBF)
    assert metadata["kind"] == "rbf"
    for name, value in rbf.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_the_generator_is_the_shipped_one():
    z = torch.randn(5, 2, dtype=torch.float64)
    embedding = digits_model().embedding
    torch.testing.assert_close(digits_generator(torch.float64, "cpu")(z), embedding(z), rtol=0, atol=0)


def test_annotations_of_the_stand_in_are_the_tensors_type():
    module = stand_in()
    assert module.Float[torch.Tensor, "b d"] is torch.Tensor
    assert module.Int[torch.Tensor, "b"] | None == torch.Tensor | None


def test_stored_pairs_are_of_the_data_and_their_starts_join_them():
    pairs, model = digits_pairs(), digits_model()
    assert len(pairs.z0) == 512
    for z in (pairs.z0, pairs.z1):
        assert (z[:, None] - model.latents).norm(dim=-1).amin(1).amax() < 1e-12
    assert (pairs.starts[:, :, 0] - pairs.z0).abs().amax() < 1e-5
    assert (pairs.starts[:, :, -1] - pairs.z1).abs().amax() < 1e-5
    few = pairs.repeated(6, pairs.z0)
    result = geodesic(model.metric, few.z0, few.z1, initial=Given(few.starts))
    assert ((result.length / few.best - 1).abs() < 1e-2).all()


def test_a_wrong_kernel_is_found(monkeypatch):
    def wrong(dtype, device):
        generator = digits_generator(dtype, device)
        if dtype == torch.float32:
            exact = generator.value_and_jacobian
            generator.value_and_jacobian = lambda z: (exact(z)[0], 1.001 * exact(z)[1])
        return generator

    verdicts = {check["check"]: check["passed"] for check in check_points("digits", wrong, torch.float32, "cpu", 0)}
    assert [verdicts[f"{kind}, digits"] for kind in ("value", "jacobian", "tensor")] == [True, False, False]


def test_sections_that_fail_or_find_no_time_are_named(capsys):
    report = gpu.Report({})

    def broken():
        raise RuntimeError("out of memory")

    spent = {}
    watch = Stopwatch("cpu", 100.0)
    gpu.attempt(report, watch, gpu.QUICK, gpu.Section("solve", 8, broken), spent)
    gpu.attempt(report, watch, gpu.QUICK, gpu.Section("long", 8, broken), {"long": 1e3})
    gpu.attempt(report, Stopwatch("cpu", 0.0), gpu.QUICK, gpu.Section("late", 0, broken), spent)
    assert [entry.partition(":")[0] for entry in report.left_out] == ["solve, B = 8", "long, B = 8", "late"]
    assert "out of memory" in report.left_out[0]
    assert report.timings == []


def test_a_failed_check_is_the_exit_status(monkeypatch, capsys):
    failed = {"check": "value", "dtype": "float32", "error": 1.0, "passed": False}
    monkeypatch.setattr(gpu, "check", lambda report, *_: report.checks.append(failed))
    monkeypatch.setattr(gpu, "sections", lambda *_: [])
    assert gpu.main(["--device", "cpu", "--quick"]) == 1
    assert "FAILED value" in capsys.readouterr().out


@pytest.mark.cuda
def test_events_time_the_device():
    z = torch.randn(2000, 2000, device="cuda")
    assert Stopwatch("cuda", 60.0).seconds(lambda: z @ z) > 0
