"""The legacy drill: what old callers and old models get wrong comes out right, or is refused by name.

    python benchmarks/legacy.py [--seed N] [--prices]

Arrays of another dtype, byte order or layout; models of another opset or format; configurations of a later version; and a precision trap: a
float64 model that separates two classes by the seconds since 1970, of which float32 keeps multiples of 128. Exits with 1 if a case fails.

`--prices` then times what each form costs the two models of the workload legacy beside their own form, calls interleaved, new rows each
call, and prints what `Engine.conversions` holds of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads import registry
from openinfer.workloads.legacy.callers import FORMS
from openinfer.workloads.legacy.orders import DESK
from openinfer.workloads.legacy.traffic import HELD_BY, prepared

import openinfer
from openinfer.engine import Engine, compile_graph
from openinfer.errors import ConfigError, ModelError, OpenInferError, PrecisionError
from openinfer.frontend.float64 import discrepancy, reference, widen
from openinfer.frontend.onnx_model import read

TOLERANCE = 1e-5
EPOCH_S = 1.6e9  # in September 2020
FEATURES = 4
ROUNDS = 3000  # of every form


@dataclasses.dataclass(frozen=True)
class Case:
    """One drill: what was given, whether it ended as it should, and what was seen."""

    given: str
    passed: bool
    seen: str


@dataclasses.dataclass(frozen=True)
class Trap:
    """The planted model's share of right labels in float64, all in float32 and calibrated; and the layers that calibration kept."""

    float64: float
    float32: float
    calibrated: float
    kept: tuple[str, ...]


def drill(seed: int) -> tuple[list[Case], Trap]:
    """Every case, and what the trap measured."""
    generator = np.random.default_rng(seed)
    trap_cases, trap = _trap(generator)
    return [*_arrays(generator), *_versions(), *trap_cases], trap


def dense(generator: np.random.Generator, dtype: Any) -> onnx.ModelProto:
    """A small network with weights of `dtype`: input "x" of 12 features, output "y" of 3 shares."""
    weights = {"w": (12, 16), "b": (16,), "v": (16, 3), "c": (3,)}
    constants = [numpy_helper.from_array(generator.standard_normal(shape).astype(dtype), name) for name, shape in weights.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "v", "c"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=-1),
    ]
    return _model(nodes, {"x": 12}, {"y": (3, dtype)}, constants, dtype)


def time_stamps(generator: np.random.Generator) -> tuple[onnx.ModelProto, Callable[[int], tuple[np.ndarray, np.ndarray]]]:
    """A float64 model trained on time stamps, and where its data comes from: `draw(rows)` gives stamps and labels.

    The classes are 40 s apart and scatter by 15 s in each feature; the model is Fisher's linear discriminant of 2,000 rows.
    """

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, 2, rows)
        centre = EPOCH_S + 40.0 * (labels[:, None] - 0.5) * np.array([1.0, -1.0, 0.5, 0.0])
        return centre + 15.0 * generator.standard_normal((rows, FEATURES)), labels

    x, labels = draw(2000)
    offset = x.mean(axis=0)
    centred = x - offset
    low, high = (centred[labels == label] for label in (0, 1))
    within = np.cov(low, rowvar=False) + np.cov(high, rowvar=False)
    weights = np.linalg.solve(within, high.mean(axis=0) - low.mean(axis=0))
    bias = -weights @ (high.mean(axis=0) + low.mean(axis=0)) / 2
    values = {"offset": offset, "w": weights[:, None], "b": np.array([bias]), "half": np.array(0.5)}
    nodes = [
        helper.make_node("Sub", ["x", "offset"], ["centred"]),
        helper.make_node("Gemm", ["centred", "w", "b"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["probability"]),
        helper.make_node("Greater", ["probability", "half"], ["label"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    outputs = {"probability": (1, np.float64), "label": (1, np.bool_)}
    return _model(nodes, {"x": FEATURES}, outputs, constants, np.float64), draw


def _model(
    nodes: list[Any], inputs: dict[str, int], outputs: dict[str, tuple[int, Any]], constants: list[Any], dtype: Any
) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        nodes,
        "legacy",
        [helper.make_tensor_value_info(name, kind(np.dtype(dtype)), ["n", width]) for name, width in inputs.items()],
        [helper.make_tensor_value_info(name, kind(np.dtype(of)), ["n", width]) for name, (width, of) in outputs.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="drill")


def _arrays(generator: np.random.Generator) -> Iterator[Case]:
    narrow, wide = dense(generator, np.float32), dense(generator, np.float64)
    x = generator.standard_normal((33, 12))
    with openinfer.load(narrow) as engine:
        native = engine.run({"x": x.astype(np.float32)})["y"]
        exact = reference(widen(narrow), {"x": x})["y"]
        yield _near("a float32 model fed float64", engine.run({"x": x})["y"], exact)
        yield Case(
            "… and the conversion is on record",
            [(c.found, c.taken) for c in engine.conversions] == [("float64", "float32")] and engine.conversions[0].error < 1e-6,
            "; ".join(f"{c.input}: {c.found} → {c.taken}, error {c.error:.1e}" for c in engine.conversions),
        )
        single = x.astype(np.float32)
        spread = np.zeros((33, 24), np.float32)
        spread[:, ::2] = single
        forms = {
            "a big-endian array": single.astype(">f4"),
            "a strided view": spread[:, ::2],
            "a view with its rows backwards": np.ascontiguousarray(single[::-1])[::-1],
            "an array in Fortran's order": np.asfortranarray(single),
        }
        for given, array in forms.items():
            yield _equal(given, engine.run({"x": array})["y"], native)
        whole = np.rint(8 * x)
        yield _equal("small integers", engine.run({"x": whole.astype(np.int64)})["y"], engine.run({"x": whole.astype(np.float32)})["y"])
        yield _refused("time stamps in float64", PrecisionError, "feature's spread", lambda: engine.run({"x": EPOCH_S + x}))
    with openinfer.load(wide) as engine:
        single = x.astype(np.float32)
        yield _equal("a float64 model fed float32", engine.run({"x": single})["y"], engine.run({"x": single.astype(np.float64)})["y"])
        yield _near("… against the reference", engine.run({"x": single})["y"], reference(wide, {"x": single.astype(np.float64)})["y"])
        yield _equal("a big-endian float64 array", engine.run({"x": x.astype(">f8")})["y"], engine.run({"x": x})["y"])


def _versions() -> Iterator[Case]:
    def one(opset: int, node: Any, ir: int = 8) -> bytes:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in (*node.input, "y")]
        graph = helper.make_graph([node], "old", ports[:-1], ports[-1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir).SerializeToString()

    norm, total = helper.make_node("LayerNormalization", ["x", "s"], ["y"]), helper.make_node("ReduceSum", ["x"], ["y"], axes=[1])
    scale, relu = helper.make_node("Upsample", ["x", "s"], ["y"]), helper.make_node("Relu", ["x"], ["y"])
    told = {
        "an operator that its opset does not have yet": (one(13, norm), "exists from opset 17 on"),
        "an operator that its opset has no more": (one(11, scale), "withdrawn in opset 10"),
        "an attribute that its opset has no more": (one(13, total), "has it in opsets 1 to 12"),
        "an opset of the future": (one(99, relu), "found opset 99"),
        "a file format of the future": (one(13, relu, ir=99), "found ir_version 99"),
    }
    for given, (model, words) in told.items():
        yield _refused(given, ModelError, words, lambda model=model: openinfer.load(model))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "later.toml"
        file.write_text('[engine]\nflux = 3\n[provenance.versions]\nopeninfer = "99.1.0"\n', encoding="utf-8")
        yield _refused(
            "a configuration of a later version", ConfigError, "written by openinfer 99.1.0", lambda: openinfer.load(one(13, relu), file)
        )


def _trap(generator: np.random.Generator) -> tuple[list[Case], Trap]:
    model, draw = time_stamps(generator)
    other, _ = time_stamps(generator)
    calibration, (x, expected) = draw(256)[0], draw(4000)
    forced = openinfer.Config().with_knobs({"engine.precision": "float32"})

    def accuracy(engine: Engine) -> float:
        with engine:
            return float(np.mean(engine.run({"x": x})["label"][:, 0] == expected))

    config = openinfer.calibrate(model, {"x": calibration})
    trap = Trap(
        accuracy(openinfer.load(model)),
        accuracy(compile_graph(read(model), forced)),  # what load refuses, measured
        accuracy(openinfer.load(model, config)),
        config.engine.float64_layers,
    )
    fall = f"right labels: {trap.float64:.1%} in float64, {trap.float32:.1%} all in float32"
    kept = f"{trap.calibrated:.1%}; in float64 stays {', '.join(trap.kept)}"
    cases = [
        Case("a trap that costs at least 15 points in float32", trap.float64 - trap.float32 >= 0.15, fall),
        _refused("… forced into float32", PrecisionError, "a calibration of this model", lambda: openinfer.load(model, forced)),
        _refused("… with another model's calibration", PrecisionError, "a calibration of the model", lambda: openinfer.load(other, config)),
        Case("… calibrated", abs(trap.calibrated - trap.float64) <= 0.001 and trap.kept == ("centred",), kept),
    ]
    with openinfer.load(model, config) as engine:
        cases.append(
            _near("… calibrated, against the reference", engine.run({"x": x})["probability"], reference(model, {"x": x})["probability"])
        )
    return cases, trap


def prices(seed: int) -> None:
    """Print, by model, rows and form, the median time of `run`, and what it takes beyond the model's own form."""
    generator = np.random.default_rng(seed)
    legacy = registry.get("legacy")
    for name in legacy.models:
        with openinfer.load(legacy.model_path(name)) as engine:
            for rows in (1, 64):
                forms = sorted(HELD_BY[name])
                taken: dict[str, list[int]] = {form: [] for form in forms}
                for _ in range(ROUNDS):
                    for at in generator.permutation(len(forms)):
                        given = {"x": FORMS[forms[at]](prepared(name, DESK.draw(rows, generator)[0]))}
                        begin = time.perf_counter_ns()
                        engine.run(given)
                        taken[forms[at]].append(time.perf_counter_ns() - begin)
                own = float(np.median(taken["native"]))
                for form in forms:
                    p50, p99 = np.percentile(taken[form], [50, 99]) / 1e3
                    print(f"{name}, {rows:2} rows, {form:14} p50 {p50:6.2f} µs, p99 {p99:6.2f} µs, conversion {p50 - own / 1e3:+6.2f} µs")
            for kept in engine.conversions:
                print(f"{name}: {kept.arrays:,} × {kept.found} → {kept.taken}, largest error {kept.error:.1e}")


def _near(given: str, found: Any, expected: Any) -> Case:
    error = discrepancy(found, expected)
    return Case(given, error <= TOLERANCE, f"right: error {error:.1e}, allowed {TOLERANCE:.0e}")


def _equal(given: str, found: Any, expected: Any) -> Case:
    same = found.tobytes() == expected.tobytes()
    return Case(given, same, "right: the same bits as the model's own form" if same else "other bits")


def _refused(given: str, kind: type[OpenInferError], words: str, call: Callable[[], object]) -> Case:
    try:
        call()
    except OpenInferError as error:
        named = isinstance(error, kind) and words in str(error) and "\n" not in str(error)
        return Case(given, named, f"{type(error).__name__}: {error}")
    return Case(given, False, "not refused")


def main() -> int:
    """Print a line per case; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--prices", action="store_true", help="time every form too")
    given = parser.parse_args()
    seed = given.seed
    cases, _ = drill(seed)
    for case in cases:
        print(f"{'ok  ' if case.passed else 'FAIL'} {case.given}\n       {case.seen}")
    failed = sum(not case.passed for case in cases)
    print(f"seed {seed}: {len(cases) - failed} of {len(cases)} cases right or refused by name")
    if given.prices:
        prices(seed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
