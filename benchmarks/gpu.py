"""The GPU backend against the CPU's float64, and its times: what `benchmarks/gpu.sh` runs.

    python benchmarks/gpu.py [--seconds N] [--simulated]

Stages: the device; ONNX's backend cases through the operators' meanings on CuPy; every generated formula as a kernel; whole models; memory
pools; times by CUDA events. A stage that runs out of its share of the seconds says how far it came. `--simulated` takes the stand-in for
CuPy of the tests, to try the script itself: its times mean nothing. Exit code 0: all right, 1: something wrong, 2: no usable GPU.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import openinfer
from openinfer.errors import GpuUnavailableError, MemoryBudgetError
from openinfer.frontend.float64 import discrepancy, widen
from openinfer.memory.gpu_pools import connect

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "oracle"), str(ROOT / "tests" / "unit" / "gpu")]

LIMIT = 1e-5
ROUNDS = 15


class Report:
    """Lines as they come, and what was wrong."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self.wrong: list[str] = []
        self.skipped: list[str] = []

    def share(self, part: float) -> Callable[[], bool]:
        """Whether `part` of all seconds, or the rest of them, is over."""
        end = min(time.monotonic() + part * self._seconds, self._end)
        return lambda: time.monotonic() >= end

    def line(self, stage: str, text: str) -> None:
        print(f"{stage:10} {text}", flush=True)

    def skip(self, stage: str, what: str) -> None:
        """Something that the seconds did not reach."""
        self.line(stage, f"{what}: not reached")
        self.skipped.append(f"{stage}: {what}")

    def judge(self, stage: str, good: bool, text: str) -> None:
        """A line that counts."""
        self.line(stage, f"{'right' if good else 'WRONG'}: {text}")
        if not good:
            self.wrong.append(f"{stage}: {text}")


def load(proto: Any, backend: str, **memory: Any) -> Any:
    return openinfer.load(proto, {"engine": {"backend": backend}, "memory": memory})


def operators(report: Report, device: Any) -> None:
    """ONNX's own cases, op by op, on the device."""
    import test_meanings as meanings

    over, counts = report.share(0.4), collections.Counter()
    for case in meanings.ledger.cases(lambda index, name: True):
        if over():
            report.skip("operators", f"{case.name} and what follows")
            break
        if not meanings.concerns(case):
            continue
        verdict, detail = meanings.judge(case, device)
        counts[verdict] += 1
        if verdict in ("wrong", "refused") or "Error" in detail:
            report.line("operators", f"{case.name}: {detail[:200]}")
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    report.judge(
        "operators",
        not counts["wrong"] and not counts["refused"] and counts["meaning"] > 0,
        f"{counts.total()} of ONNX's backend cases: {text}",
    )


def formulas(report: Report, device: Any) -> None:
    """Generated kernels of every formula and dtype, compiled by NVRTC, against the formula on the host."""
    import test_gpu_kernels as kernels

    over, rng, shape = report.share(0.15), np.random.default_rng(0), (7, 33)
    done, bad = 0, []
    for op, formula, dtypes in sorted(kernels.formulas(), key=lambda case: "float" not in case[2][-1]):
        if over():
            report.skip("kernels", f"{op} of {dtypes[-1]} and what follows")
            break
        shapes = [shape, shape[1:], shape][: len(dtypes)]
        inputs = [kernels.values(rng, dtype, s) for dtype, s in zip(dtypes, shapes, strict=True)]
        if op == "Pow":
            inputs[0] = np.abs(inputs[0])
        nest = kernels.loops(shape, shapes, [False] * len(dtypes))
        kernel = kernels.render([kernels.Statement(formula, tuple(range(len(dtypes))))], dtypes, nest)
        with device.active(), np.errstate(all="ignore"):
            y = device.xp.empty(shape, formula.output)
            numbers = [np.int64(n) for n in (231, *kernel.numbers)]
            device.launch(kernel.source, kernel.name, 231, [*(device.upload(a) for a in inputs), y, *numbers])
            found, expected = device.download(y), np.broadcast_to(kernels.evaluate(formula, np, inputs), shape)
        done += 1
        limit = 4e-6 if formula.output == "float32" else 1e-12
        if op == "Cast" and dtypes[0].startswith("float"):
            inside = np.isfinite(inputs[0]) & (np.abs(inputs[0]) < 100) & (inputs[0] >= 0)
            found, expected = found[inside], expected[inside]
        if not np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit, equal_nan=True):
            bad.append(f"{op} of {dtypes[-1]}")
    report.judge("kernels", not bad, f"{done} generated kernels{': ' + ', '.join(bad) if bad else ''}")


def models() -> Iterator[tuple[str, Any, dict[str, np.ndarray]]]:
    """(name, model, inputs): those of the tests and of the workload, and larger ones."""
    import test_gpu_models as small
    from knobs import convolution, perceptron

    rng = np.random.default_rng(1)
    yield "images", small.images(rng), {"x": rng.standard_normal((8, 3, 16, 16)).astype(np.float32)}
    yield "sequences", small.sequences(rng), {"ids": rng.integers(0, 20, (12, 8))}
    for name in ("tick_mlp", "gbdt"):
        proto = onnx.load(ROOT / "workloads" / "hft" / f"{name}.onnx")
        signature = proto.graph.input[0]
        features = signature.type.tensor_type.shape.dim[1].dim_value
        yield name, proto, {signature.name: rng.standard_normal((256, features)).astype(np.float32)}
    yield "dense", perceptron([1024, 1024, 1024, 1024], 256), {"x": rng.standard_normal((256, 1024)).astype(np.float32)}
    yield "conv", convolution(128, 56), {"x": rng.standard_normal((1, 128, 56, 56)).astype(np.float32)}


def whole_models(report: Report) -> None:
    """Every output within 1e-5 of float64 on the CPU, the same bits twice, nothing on the fallback, bound calls too."""
    over = report.share(0.25)
    for name, proto, inputs in models():
        if over():
            report.skip("models", name)
            continue
        engine = load(proto, "gpu")
        found, again = engine.run(inputs), engine.run(inputs)
        # The model's own precision for trees, whose comparisons are exact; float64 for everything else.
        if name == "gbdt":
            expected = load(proto, "cpu").run(inputs)
        else:
            wide = {key: value.astype(np.float64) if value.dtype == np.float32 else value for key, value in inputs.items()}
            expected = load(widen(proto), "cpu").run(wide)
        error = max(discrepancy(value, expected[key]) for key, value in found.items())
        call = engine.bind(inputs)
        call()
        same = all(np.array_equal(value, again[key]) and np.array_equal(value, call.outputs[key]) for key, value in found.items())
        fallback = engine.statistics().fallback
        report.judge(
            "models",
            error <= LIMIT and same and not fallback,
            f"{name}: {error:.1e} of the largest value (limit {LIMIT:g}), {'the same bits thrice' if same else 'OTHER BITS IN ANOTHER RUN'}"
            + (f", on the fallback: {fallback}" if fallback else ""),
        )
        engine.close()


def pools(report: Report) -> None:
    """Every kind of memory gives the same answer; a pool that is full is a named error, and the next request runs."""
    import test_gpu_models as small

    rng = np.random.default_rng(2)
    proto, x = small.images(rng), {"x": rng.standard_normal((4, 3, 16, 16)).astype(np.float32)}
    answers: dict[str, Any] = {}
    for kind in ("unified", "pinned", "device"):
        try:
            engine = load(proto, "gpu", gpu_pool=kind)
        except GpuUnavailableError as error:
            report.line("pools", f"{kind}: {error}")
            continue
        answers[kind] = engine.run(x)["y"]
        used = engine.statistics().device
        report.line("pools", f"{kind}: limit {used['limit_bytes']:,} bytes, {used['held_bytes']:,} held")
        engine.close()
    first = next(iter(answers.values()))
    report.judge("pools", all(np.array_equal(first, other) for other in answers.values()), f"{', '.join(answers)}: one answer")
    engine = load(proto, "gpu", gpu_budget_mb=2)
    try:
        engine.run({"x": np.zeros((4000, 3, 16, 16), np.float32)})
        report.judge("pools", False, "a request beyond the budget was run")
    except MemoryBudgetError as error:
        report.judge("pools", engine.run(x)["y"].shape == first.shape, f"beyond the budget: {str(error)[:120]}; the next request runs")


def times(report: Report, cupy: Any) -> None:
    """µs a call: on the CPU, on the GPU between events and as the caller sees it; fused beside unfused, interleaved."""
    over = report.share(0.2)
    for name, proto, inputs in models():
        if over():
            report.skip("times", name)
            continue
        fused = openinfer.load(proto, {"engine": {"backend": "gpu"}})
        plain = openinfer.load(proto, {"engine": {"backend": "gpu", "gpu_fusion": False}})
        cpu = load(proto, "cpu")
        rows: dict[str, list[float]] = collections.defaultdict(list)
        for engine in (fused, plain, cpu):
            engine.run(inputs)
        for _ in range(ROUNDS):
            rows["events"].append(_between_events(cupy, fused, inputs))
            for label, engine in (("gpu", fused), ("unfused", plain), ("cpu", cpu)):
                begin = time.perf_counter_ns()
                engine.run(inputs)
                rows[label].append((time.perf_counter_ns() - begin) / 1e3)
            if over():
                break
        p50 = {label: statistics.median(row) for label, row in rows.items()}
        report.line(
            "times",
            f"{name}: GPU {p50['gpu']:.0f} µs with copies ({p50['events']:.0f} between events), unfused {p50['unfused']:.0f}, "
            f"CPU {p50['cpu']:.0f}: {p50['cpu'] / p50['gpu']:.2f}× the CPU, fusion {p50['unfused'] / p50['gpu']:.2f}×",
        )


def _between_events(cupy: Any, engine: Any, inputs: dict[str, np.ndarray]) -> float:
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    engine.run(inputs)
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3


def simulate() -> None:
    """Put the tests' stand-in where CuPy would be imported from."""
    from strict_cupy import StrictCupy, special

    module = StrictCupy()
    sys.modules["cupy"], sys.modules["cupyx.scipy.special"] = module, special(module)  # type: ignore[assignment]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--simulated", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.simulated:
        simulate()
    try:
        device = connect("auto", 0)
    except GpuUnavailableError as error:
        print(f"{error}\nverdict: NOT RUN: there is no usable GPU here")
        return 2
    report = Report(options.seconds)
    report.line("device", ", ".join(f"{name} {value}" for name, value in device.statistics().items()))
    stages: list[tuple[str, Callable[[], None]]] = [
        ("models", lambda: whole_models(report)),
        ("pools", lambda: pools(report)),
        ("kernels", lambda: formulas(report, device)),
        ("operators", lambda: operators(report, device)),
        ("times", lambda: times(report, device.xp)),
    ]
    for name, stage in stages:
        try:
            stage()
        except Exception as error:
            report.judge(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    skipped = f"; not reached: {'; '.join(report.skipped)[:300]}" if report.skipped else ""
    print(f"verdict: {'RIGHT' if not report.wrong else 'WRONG: ' + '; '.join(report.wrong)[:500]}{skipped}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
