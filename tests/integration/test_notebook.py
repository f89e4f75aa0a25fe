"""The notebook runs from top to bottom on a finished study, and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from openinfer.tuner.study import Study

from openinfer.errors import StudyError

PATH = Path(__file__).parents[2] / "notebooks" / "first_study.ipynb"


def test_it_is_stored_without_outputs():
    cells = [cell for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.filterwarnings("default")  # the kernel's libraries warn about their own event loops
def test_it_runs(small_study):
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(small_study.folder.parents[1])}}
    ).execute()
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert small_study.record.verdict.sentence in shown[0][0].text
    kinds = {kind for outputs in shown for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    table = shown[1][0].data["text/html"]
    assert table.count("<tr") == 1 + len(small_study.record.trials)


def test_a_finished_study_is_loaded_from_its_folder(small_study, tmp_path):
    loaded = Study.load(small_study.folder)
    assert loaded.record == small_study.record and loaded.config_path == small_study.config_path
    assert loaded.trials.equals(small_study.trials)
    with pytest.raises(StudyError, match="cannot read the study"):
        Study.load(tmp_path)
