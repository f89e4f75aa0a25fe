"""What the README shows works: its program, its commands one after another, and every command that its text names."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from openinfer.cli.app import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
# What a test adds to a command so that it ends soon; it changes how long is measured, not what is done.
SHORTER = {"tune": ["--budget", "1trials"], "bench": ["--seconds", "0.1"], "workloads": ["--requests", "2000"]}


def test_the_python_block_runs(monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("[[") for line in lines)


def test_the_commands_run_one_after_another(tmp_path):
    (block,) = re.findall(r"```console\n(.*?)```", TEXT, re.S)
    (tmp_path / "workloads").mkdir()
    shutil.copytree(ROOT / "workloads" / "hft", tmp_path / "workloads" / "hft")
    for line in block.strip().splitlines():
        program, *arguments = shlex.split(line)
        command = [sys.executable if program == "python" else str(shutil.which(program)), *arguments]
        if program == "openinfer":
            command += SHORTER.get(arguments[0], [])
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout or program == "python"
    assert (tmp_path / "report.html").exists() and (tmp_path / "out.npz").exists() and (tmp_path / "tuned" / "tick_mlp.html").exists()


@pytest.mark.parametrize("line", sorted(set(re.findall(r"(?:(?<=[`\n])|(?<=& ))openinfer [a-z][^`\n|&]*", TEXT))))
def test_every_command_that_is_named_exists(line):
    words = shlex.split(line)[1:]
    known = typer.main.get_command(app)
    assert words[0] in known.commands
    command = known.commands[words[0]]
    options = {option for parameter in command.params for option in parameter.opts}
    if hasattr(command, "commands"):  # a group, such as config
        assert words[1] in command.commands
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= options


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page}: {link}"
