"""The commands at a terminal: the progress bar, Ctrl-C."""

from __future__ import annotations

import os
import pty
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp
from openinfer.workloads.trace import Trace, write

from openinfer.cli.app import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(mlp(), tmp_path / "m.onnx")
    rng = np.random.default_rng()
    write(Trace({"x": rng.standard_normal((2000, 40)).astype(np.float32)}, np.cumsum(rng.exponential(1e-4, 2000))), tmp_path / "t.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openinfer.tuner.final.ROUNDS", 3)
    monkeypatch.setattr("openinfer.tuner.final.TURNS", 2)
    return tmp_path


def on_terminal(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    """Run a command in this process with a terminal as stderr: (exit code, what the terminal got)."""
    ours, theirs = pty.openpty()
    got: list[bytes] = []

    def drain() -> None:
        try:
            while data := os.read(ours, 65536):
                got.append(data)
        except OSError:  # how Linux says that the other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "argv", ["openinfer", *arguments])
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as stopped:
            main()
        monkeypatch.undo()
    reader.join(30)
    os.close(ours)
    return stopped.value.code, b"".join(got).decode()


def test_a_budget_of_trials_shows_its_progress(folder, monkeypatch, capsys):
    done = on_terminal(["tune", "--model", "m.onnx", "--trace", "t.npz", "--budget", "1trials", "--output", "m.toml"], monkeypatch)
    assert done[0] in (0, None), done[1]
    assert "Error" not in done[1] and "preparing" in done[1] and "━" in done[1]
    assert (folder / "m.toml").exists() and "wrote m.toml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "command", "line"),
    [
        ("openinfer.profiles.bench.bench", "bench m.onnx", "openinfer: interrupted"),
        (
            "openinfer.tuner.study.tune",
            "tune --model m.onnx --slo p99<2ms",
            "openinfer: interrupted; openinfer tune --model m.onnx --slo 'p99<2ms' --resume goes on",
        ),
        (
            "openinfer.tuner.study.tune",
            "tune --resume --model m.onnx",
            "openinfer: interrupted; openinfer tune --model m.onnx --resume goes on",
        ),
    ],
)
def test_an_interrupt_is_one_line_and_exit_130(folder, monkeypatch, capsys, target, command, line):
    assert _stopped(target, KeyboardInterrupt(), command, monkeypatch) == 130
    out, err = capsys.readouterr()
    assert out == "" and err == line + "\n"


def test_a_file_that_ends_early_is_not_an_abort(folder, monkeypatch, capsys):
    assert _stopped("openinfer.profiles.bench.bench", EOFError("no more bytes"), "bench m.onnx", monkeypatch) == 2
    _, err = capsys.readouterr()
    assert "no more bytes; check the files" in err and "Abort" not in err and err.count("\n") == 1


def test_usage_errors_are_shown_as_ever(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["openinfer", "bench", "--batch", "0"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and "Usage: openinfer bench" in capsys.readouterr().err


def _stopped(target: str, error: BaseException, command: str, monkeypatch: pytest.MonkeyPatch) -> object:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(target, raising)
    monkeypatch.setattr(sys, "argv", ["openinfer", *command.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code
