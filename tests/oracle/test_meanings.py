"""ONNX's own backend cases through the operators' meanings: every case whose operators have one, op by op.

`PYTHONPATH=tests python tests/oracle/test_meanings.py [numpy|cupy] [TEXT]` runs all of them, or those whose name contains TEXT; `cupy` is a
strict stand-in.
"""

from __future__ import annotations

import collections
import datetime
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_device import HostDevice
from strict_cupy import StrictCupy, special

from openinfer.errors import OpenInferError
from openinfer.frontend.onnx_model import read
from openinfer.memory.gpu_pools import connect
from openinfer.ops import registry as compiled
from openinfer.ops.meaning import registry
from openinfer.passes.pipeline import optimize
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.gpu_executor import GpuExecutor

SHARES = 20

specification = importlib.util.spec_from_file_location("ledger", Path(__file__).parent / "ledger.py")
ledger = importlib.util.module_from_spec(specification)
sys.modules["ledger"] = ledger
specification.loader.exec_module(ledger)


def judge(case: Any, device: Any = None) -> tuple[str, str]:
    """`meaning`: passed on meanings alone; `fallback`: passed, some node on onnx.reference; `refused`: a named error; `wrong`."""
    try:
        fallback = Fallback()
        executor = GpuExecutor(optimize(read(case.model), "model", fallback.evaluate, {}), device or HostDevice(), fallback, fusion=False)
        names = [signature.name for signature in executor.graph.inputs]
        stored = {tensor.name for tensor in case.model.graph.initializer} if case.kind == "light" else set()
        given_names = [value.name for value in case.model.graph.input if value.name not in stored]
        for inputs, expected in case.sets:
            arrays = [ledger._array(value) for value in inputs]
            given = {name: value for name, value in zip(given_names, arrays, strict=False) if name in names}
            found = executor.run(given)
            for value, output in zip(expected, case.model.graph.output, strict=False):
                value, drawn = ledger._array(value), any(word in case.name for word in ledger.RANDOM)
                result = np.zeros_like(found[output.name]) if drawn else found[output.name]
                difference = ledger._difference(result, np.zeros_like(value) if drawn else value, case.rtol, case.atol)
                if difference:
                    return "wrong", f"{output.name}: {difference}; fallback: {executor.refused}"
        return ("fallback" if executor.refused else "meaning"), "; ".join(executor.refused.values())
    except OpenInferError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "wrong", f"an unnamed {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def concerns(case: Any) -> bool:
    """Whether every operator of the case has a meaning, or is a constant, which the frontend takes out."""
    known = {*registry.MEANINGS, ("", "Constant")}
    return all((node.domain if node.domain != "ai.onnx" else "", node.op_type) in known for node in case.model.graph.node)


def test_every_compiled_operator_has_a_meaning():
    assert set(compiled.OPERATORS) <= set(registry.MEANINGS)


@pytest.fixture(scope="module")
def today_s_share():
    """Cases of one part in `SHARES` whose operators all have a meaning; another part each day."""
    share = datetime.date.today().toordinal() % SHARES
    print(f"{share=}")
    found = [case for case in ledger.cases(lambda index, name: index % SHARES == share) if concerns(case)]
    assert len(found) > 20
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("namespace", ["numpy", "cupy"])
def test_no_case_of_today_s_share_is_wrong(today_s_share, namespace, monkeypatch):
    """On NumPy, and on a stand-in for CuPy that refuses what CuPy does not have and every hidden copy."""
    verdicts = {}
    for case in today_s_share:
        cupy = StrictCupy()
        monkeypatch.setitem(sys.modules, "cupyx.scipy.special", special(cupy))
        device = HostDevice() if namespace == "numpy" else connect("auto", 0, lambda name, cupy=cupy: cupy)
        verdicts[case.name] = judge(case, device)
    assert {name: detail for name, (verdict, detail) in verdicts.items() if verdict in ("wrong", "refused")} == {}
    # A shape, a dtype or an opset may send a case to the fallback; a function that the namespace lacks may not.
    assert not [detail for _, detail in verdicts.values() if "CuPy" in detail or "device array" in detail]


def main(match: str, namespace: str) -> int:
    """Print every wrong or refused case whose name contains `match`, and the counts; 1 if there is one."""
    counts: collections.Counter[str] = collections.Counter()
    for case in ledger.cases(lambda index, name: match in name):
        cupy = StrictCupy()
        sys.modules["cupyx.scipy.special"] = special(cupy)
        device = HostDevice() if namespace == "numpy" else connect("auto", 0, lambda name, cupy=cupy: cupy)
        verdict, detail = judge(case, device) if concerns(case) else ("no meaning", "")
        counts[verdict] += 1
        if verdict in ("wrong", "refused"):
            print(f"{verdict:10}{case.name}: {detail}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["wrong"] or counts["refused"] else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(sys.argv[2] if len(sys.argv) > 2 else "", sys.argv[1] if len(sys.argv) > 1 else "numpy"))
