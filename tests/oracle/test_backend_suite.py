"""A share of the ONNX package's own backend cases in every run, another one each day; `tests/oracle/ledger.py` runs all of them."""

from __future__ import annotations

import datetime
import importlib.util
from pathlib import Path

import pytest

SHARES = 40

specification = importlib.util.spec_from_file_location("ledger", Path(__file__).parent / "ledger.py")
ledger = importlib.util.module_from_spec(specification)


@pytest.mark.filterwarnings("ignore")
def test_no_case_of_today_s_share_is_wrong(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ledger", ledger)
    specification.loader.exec_module(ledger)
    share = datetime.date.today().toordinal() % SHARES
    print(f"{share=}")
    verdicts = {case.name: ledger.judge(case) for case in ledger.cases(lambda index, name: index % SHARES == share)}
    assert len(verdicts) > 30
    assert {name: detail for name, (verdict, detail) in verdicts.items() if verdict == "wrong"} == {}


@pytest.mark.filterwarnings("ignore")
def test_compiled_resizes_and_transposed_convolutions_pass_their_cases(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ledger", ledger)
    specification.loader.exec_module(ledger)
    names = ("test_resize_downsample_scales", "test_convtranspose_pad")
    verdicts = {case.name: ledger.judge(ledger.freeze(case)) for case in ledger.cases(lambda index, name: name.startswith(names))}
    assert len(verdicts) >= 9
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] != "compiled"} == {}
