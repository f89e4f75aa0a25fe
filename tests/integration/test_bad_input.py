"""Every mistake that a user can make at a command: exit code 2, one line on stderr that names it, nothing left behind."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp
from onnx import TensorProto, helper

from openinfer.cli.app import main

CASES = [
    # command, what the line must say
    ("run none.onnx --input in.npz", ["cannot read the model 'none.onnx'", "give the path"]),
    ("run corrupt.onnx --input in.npz", ["not an ONNX model", "export the model again"]),
    ("run empty.onnx --input in.npz", ["no graph inside", "give an ONNX model"]),
    ("run text.txt --input in.npz", ["not an ONNX model"]),
    ("run . --input in.npz", ["cannot read the model '.'"]),
    ("run m.onnx --input shape.npz", ["input 'x'", "found shape (4, 41)", "allowed float32 [batch, 40]"]),
    ("run m.onnx --input text.npz", ["found str32", "allowed float32"]),
    ("run m.onnx --input long.npz", ["found int64, allowed: float32", "a value is beyond what float32 holds"]),
    ("run m.onnx --input offset.npz", ["found float64 that float32 would round by", "subtract the offset first"]),
    ("run m.onnx --input name.npz", ["unknown input 'y'", "allowed: x"]),
    ("run m.onnx --input nothing.npz", ["'x' is missing", "expected float32 [batch, 40]"]),
    ("run m.onnx --input object.npz", ["cannot read 'object.npz'", "numpy.savez"]),
    ("run m.onnx --input array.npz", ["cannot read 'array.npz'", "not an npz file", "numpy.savez"]),
    ("run split.onnx --input in.npz --output out.npz", ["output 'parts' is a list of ndarray", "allowed: arrays"]),
    ("run m.onnx --input .", ["cannot read '.'"]),
    ("run m.onnx --input in.npz --output .", ["is a folder"]),
    ("run m.onnx --input in.npz --output none/out.npz", ["'none' is no writable folder"]),
    ("run m.onnx --input in.npz --output text.txt/out.npz", ["'text.txt' is no writable folder"]),
    ("check none.onnx", ["cannot read the model"]),
    ("check corrupt.onnx", ["not an ONNX model"]),
    ("check m.onnx --dump text.txt", ["text.txt"]),
    ("bench", ["give exactly one"]),
    ("bench m.onnx --workload hft", ["give exactly one"]),
    ("bench none.onnx", ["cannot read the model"]),
    ("bench --workload hf", ["unknown workload 'hf'", "did you mean 'hft'"]),
    ("bench m.onnx --against onnxruntim", ["did you mean 'onnxruntime'"]),
    ("workloads nope", ["unknown workload 'nope'", "allowed: edge, hft"]),
    ("workloads --export out", ["needs the name of a workload"]),
    ("workloads hft --export text.txt", ["text.txt"]),
    ("config show none.toml", ["cannot read the configuration 'none.toml'"]),
    ("config show .", ["cannot read the configuration '.'"]),
    ("report none.study", ["cannot read the study", "No such file", "openinfer tune"]),
    ("report text.txt", ["cannot read the study"]),
    ("report future.study", ["found=99", "allowed: schema version"]),
    ("report damaged.study", ["damaged record"]),
    ("report cut.study", ["not JSON"]),
    ("report .", ["cannot read the study"]),
    ("tune", ["give exactly one"]),
    ("tune --workload hft --model m.onnx", ["give exactly one"]),
    ("tune --workload nope", ["unknown workload"]),
    ("tune --workload hft --trace in.npz", ["--trace goes with --model"]),
    ("tune --model none.onnx", ["cannot read the model"]),
    ("tune --model corrupt.onnx", ["not an ONNX model"]),
    ("tune --model m.onnx --slo fast", ["SLO 'fast' is not understood", "allowed: a percentile"]),
    ("tune --model m.onnx --slo 'p99<0ms'", ["at least 1 ns"]),
    ("tune --model m.onnx --slo 'p101<1ms'", ["p101"]),
    ("tune --model m.onnx --budget soon", ["budget 'soon'", "allowed: a time"]),
    ("tune --model m.onnx --budget 0s", ["budget '0s'"]),
    ("tune --model m.onnx --objective mean", ["unknown objective 'mean'", "allowed: a percentile"]),
    ("tune --model m.onnx --trace none.parquet", ["cannot read 'none.parquet'", "no such file"]),
    ("tune --model m.onnx --trace text.txt", ["'.txt'", "allowed: .npz, .parquet"]),
    ("tune --model m.onnx --trace text.npz.npz", ["cannot read 'text.npz.npz'", "not an npz file", "give an npz file"]),
    ("tune --model m.onnx --trace late.npz", ["not finite and ascending"]),
    ("tune --model m.onnx --trace uneven.npz", ["differ in length"]),
    ("tune --model m.onnx --trace name.npz", ["trace of y", "model takes x"]),
    ("tune --model m.onnx --trace shape.npz", ["found shape", "allowed float32 [batch, 40]"]),
    ("tune --model m.onnx --output x.json", ["not the path of a .toml file"]),
    ("tune --model m.onnx --output text.txt/x.toml", ["no writable folder"]),
]
CONFIGURATIONS = [
    ("none.toml", ["cannot read the configuration 'none.toml'", "give the path"]),
    ("knob.toml", ["unknown knob 'engine.thread'", "did you mean 'threads'"]),
    ("range.toml", ["engine.threads = 0", "allowed: greater than or equal to 1"]),
    ("choice.toml", ["engine.wait = 'doze'", "allowed: 'spin' or 'sleep'"]),
    ("type.toml", ["engine = 3", "allowed: a table"]),
    ("broken.toml", ["not valid TOML", "line 1", "allowed: tables"]),
]
COMMANDS = ("run m.onnx --input in.npz --output out.npz --config", "check m.onnx --config", "bench m.onnx --config", "config validate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng()
    onnx.save(mlp(), place / "m.onnx")
    (place / "corrupt.onnx").write_bytes((place / "m.onnx").read_bytes()[:400])
    (place / "empty.onnx").touch()
    (place / "text.txt").write_text("hello")
    (place / "text.npz.npz").write_text("hello")
    with open(place / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    onnx.save(split(), place / "split.onnx")
    rows = rng.standard_normal((4, 40)).astype(np.float32)
    np.savez(place / "in.npz", x=rows)
    np.savez(place / "shape.npz", x=rng.standard_normal((4, 41)).astype(np.float32))
    np.savez(place / "text.npz", x=np.array([["a"] * 40]))
    np.savez(place / "long.npz", x=np.full((4, 40), 2**24 + 1))
    np.savez(place / "offset.npz", x=1.6e9 + rows.astype(np.float64))
    np.savez(place / "name.npz", y=rows)
    np.savez(place / "nothing.npz")
    np.savez(place / "object.npz", x=np.array([{}, 1], dtype=object))
    np.savez(place / "late.npz", x=rows, arrival_s=np.array([1.0, 0.5, 2.0, 3.0]))
    np.savez(place / "uneven.npz", x=rows, arrival_s=np.array([1.0]))
    for name, text in {
        "knob": "[engine]\nthread = 2\n",
        "range": "[engine]\nthreads = 0\n",
        "choice": '[engine]\nwait = "doze"\n',
        "type": "engine = 3\n",
        "broken": "[engine\n",
        "foreign": '[provenance]\nmodel_sha256 = "00"\n',
    }.items():
        (place / f"{name}.toml").write_text(text)
    for name, text in {"future": '{"schema_version": 99}', "damaged": json.dumps({"schema_version": _schema()}), "cut": "[1"}.items():
        (place / f"{name}.study").mkdir()
        (place / f"{name}.study" / "study.json").write_text(text)
    return place


def split() -> onnx.ModelProto:
    """A model whose output is a sequence of tensors."""
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])]
    parts = [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("SplitToSequence", ["x"], ["parts"])], "split", ports, parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _schema() -> int:
    from openinfer.profiles.study_record import SCHEMA_VERSION

    return SCHEMA_VERSION


def fails(command: str, folder: Path, monkeypatch, capsys) -> str:
    """Run a command in this process; its one line on stderr, after checking that nothing else came of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["openinfer", *shlex.split(command)])
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2, err
    assert out == "" and err.startswith("openinfer: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert sorted(folder.rglob("*")) == before
    return err


@pytest.mark.parametrize(("command", "words"), CASES, ids=[command for command, _ in CASES])
def test_a_mistake_is_named_in_one_line(command, words, folder, monkeypatch, capsys):
    line = fails(command, folder, monkeypatch, capsys)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("file", "words"), CONFIGURATIONS)
def test_a_wrong_configuration_is_named_by_every_command(command, file, words, folder, monkeypatch, capsys):
    line = fails(f"{command} {file}", folder, monkeypatch, capsys)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("command", COMMANDS[:3])
def test_a_configuration_for_another_model_is_refused(command, folder, monkeypatch, capsys):
    line = fails(f"{command} foreign.toml", folder, monkeypatch, capsys)
    assert "tuned for the model 00" in line and "tune again for this model" in line


def test_json_output_keeps_mistakes_on_stderr(folder, monkeypatch, capsys):
    assert "cannot read the model" in fails("check none.onnx --json", folder, monkeypatch, capsys)


def test_results_are_json_of_one_object(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in ("config show foreign.toml", "config validate foreign.toml", "workloads", "workloads hft", "doctor", "check m.onnx"):
        monkeypatch.setattr(sys, "argv", ["openinfer", *command.split(), "--json"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)
