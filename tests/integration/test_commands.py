"""The commands as a user types them: output, JSON, exit codes, one line on stderr."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper

COMMAND = shutil.which("openinfer")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="the openinfer command is not on PATH; pip install '.[test]' in this environment")


def openinfer(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([str(COMMAND), *arguments], capture_output=True, text=True, timeout=120, cwd=cwd)


@pytest.fixture
def files(tmp_path):
    onnx.save(mlp(), tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((4, 40)).astype(np.float32))
    return tmp_path


def test_run_writes_and_verifies(files):
    done = openinfer("run", "m.onnx", "--input", "in.npz", "--output", "out.npz", "--verify", "--json", cwd=files)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["errors"]["probabilities"] <= 1e-5
    with np.load(files / "out.npz") as out:
        assert out["probabilities"].shape == (4, 3)


def test_run_writes_strings_that_need_no_pickle(files):
    node = helper.make_node("Identity", ["x"], ["y"])
    kinds = ({"x": (TensorProto.STRING, ["n"])}, {"y": (TensorProto.STRING, ["n"])})
    (files / "words.onnx").write_bytes(model([node], *kinds).SerializeToString())
    words = np.array(["buy", "", "größer"])
    np.savez(files / "words.npz", x=words)
    done = openinfer("run", "words.onnx", "--input", "words.npz", "--output", "out.npz", cwd=files)
    assert done.returncode == 0, done.stderr
    with np.load(files / "out.npz", allow_pickle=False) as out:
        assert out["y"].tolist() == words.tolist()


def test_check_names_what_runs_where(files):
    report = json.loads(openinfer("check", "m.onnx", "--json", cwd=files).stdout)
    assert report["fallback_nodes"] == 0 and report["compiled_nodes"] == 4
    assert "compiled" in openinfer("check", "m.onnx", cwd=files).stdout


def test_check_dumps_every_stage(files):
    done = openinfer("check", "m.onnx", "--dump", "out", cwd=files)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (files / "out").iterdir())
    assert names[0] == "00-frontend.txt" and "program-0.py" in names and f"wrote out/{names[0]}" in done.stdout
    first, last = ((files / "out" / name).read_text() for name in (names[0], [n for n in names if n.endswith(".txt")][-1]))
    assert "Relu(" in first and "Relu(" not in last and "Gemm(" in last  # the activation is fused into the layer
    program = (files / "out" / "program-0.py").read_text()
    compile(program, "program-0.py", "exec")
    assert program.startswith("# k0: gemm(activation='Relu'")


def test_bench_interleaves(files):
    done = openinfer("bench", "m.onnx", "--seconds", "0.3", "--json", cwd=files)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout).values()
    assert {side["name"] for side in result["sides"]} == {"openinfer bound", "openinfer refill", "openinfer run"}
    assert all(side["calls"] >= 3 for side in result["sides"]) and result["threads"] == 1


def test_bench_says_how_many_threads_it_uses(files):
    (files / "two.toml").write_text("[engine]\nthreads = 2\n")
    done = openinfer("bench", "m.onnx", "--seconds", "0.1", "--batch", "3", "--config", "two.toml", cwd=files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("m.onnx: batch 3, 2 threads, at least ") and "speed  against" in done.stdout


def test_bench_draws_large_batches_of_a_workload_from_what_it_has():
    done = openinfer("bench", "--workload", "legacy", "--seconds", "0.1", "--batch", "30000", "--json")
    assert done.returncode == 0, done.stderr
    assert {result["batch"] for result in json.loads(done.stdout).values()} == {30000}
    assert openinfer("bench", "--workload", "hft", "--batch", "65537").returncode == 2


def test_workloads_are_described_and_exported(tmp_path):
    assert "hft" in openinfer("workloads").stdout
    done = openinfer("workloads", "hft", "--export", str(tmp_path / "out"), "--requests", "100")
    assert done.returncode == 0, done.stderr
    traces = [path.name for path in (tmp_path / "out").glob("*.parquet")]
    # Four regimes with a seed to tune and three held out: those of the main model, and the windows of the recurrent one.
    assert (tmp_path / "out" / "tick_mlp.onnx").exists() and len(traces) == 32 and sum("tick_lstm" in name for name in traces) == 16


def test_configurations_are_shown_and_validated(tmp_path):
    (tmp_path / "c.toml").write_text("[engine]\nthreads = 2\n")
    assert json.loads(openinfer("config", "validate", "c.toml", "--json", cwd=tmp_path).stdout)["changed"] == {"engine.threads": 2}
    assert "engine.threads" in openinfer("config", "show", "c.toml", cwd=tmp_path).stdout
    (tmp_path / "bad.toml").write_text("[engine]\nthread = 2\n")
    done = openinfer("config", "validate", "bad.toml", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'threads'" in done.stderr


def test_doctor_and_version():
    report = json.loads(openinfer("doctor", "--json").stdout)
    assert report["isa"] in ("avx512", "avx2", "generic") and report["gpu"]
    assert openinfer("--version").stdout.startswith("openinfer ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "none.onnx", "--input", "in.npz"), "cannot read the model"),
        (("run", "m.onnx", "--input", "none.npz"), "cannot read 'none.npz'"),
        (("run", "m.onnx", "--input", "m.onnx"), "not an npz file"),
        (("run", "m.onnx", "--input", "in.npz", "--config", "none.toml"), "cannot read the configuration"),
        (("run", "m.onnx", "--input", "in.npz", "--output", "none/out.npz"), "none"),
        (("check", "in.npz"), "not an ONNX model"),
        (("bench",), "exactly one"),
        (("bench", "m.onnx", "--against", "onnxruntim"), "did you mean 'onnxruntime'"),
        (("bench", "--workload", "hf"), "unknown workload"),
        (("workloads", "nope"), "unknown workload"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(files, arguments, words):
    done = openinfer(*arguments, cwd=files)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and words in done.stderr
    assert not (files / "out.npz").exists()
