"""Runs the ONNX package's own backend cases through the engine and says what happened to each.

    compiled    passed, every node native
    fallback    passed, some node on onnx.reference
    refused     a named error
    wrong       an answer that differs from the case's

`python tests/oracle/ledger.py [--share I/N] [--match TEXT]` prints a table by kind and every wrong case (`--verbose`: every case, the
refused ones with their error); exit code 1 if there is a wrong one. The cases pass axes, weights and the like at run time, where models
hold them as constants. `--constants` stores every integer input after the first in the model, `--freeze` every input after the first, so
that the compiled form of those operators is judged too.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import openinfer
from openinfer.errors import OpenInferError

# Their expected outputs are one draw of a random generator that the standard leaves open: only type and shape can be judged.
RANDOM = ("bernoulli", "training_dropout", "random")

KINDS = ("real", "simple", "pytorch-operator", "pytorch-converted")

# Places of the verdicts in the table.
VERDICTS = ("compiled", "fallback", "refused", "wrong")


@dataclasses.dataclass(frozen=True)
class Case:
    """One backend case: its model and (inputs, expected outputs) in the model's order."""

    kind: str
    name: str
    model: Any
    sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def cases(wanted: Callable[[int, str], bool]) -> Iterator[Case]:
    """Every case whose data ships with the package and that `wanted(index, name)` asks for."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = [*collect_testcases(), *(case for kind in KINDS for case in load_model_tests(kind=kind))]
    for index, case in enumerate(found):
        if not wanted(index, case.name):
            continue
        if case.kind == "real":
            model, sets = light(case.url)
            yield Case("light", case.name, model, sets, case.rtol, case.atol)
        elif case.model_dir is None:
            kind = "node, expanded" if "_expanded" in case.name else "node"
            yield Case(kind, case.name, case.model, case.data_sets, case.rtol, case.atol)
        else:
            model = onnx.load(os.path.join(case.model_dir, "model.onnx"))
            yield Case(case.kind, case.name, model, data_sets(model, case.model_dir), case.rtol, case.atol)


def light(url: str) -> tuple[Any, list[tuple[list[Any], list[Any]]]]:
    """A network whose weights are generated inside the model, with the inputs that the package's own runner feeds it and the outputs that
    it keeps beside it.
    """
    from onnx.backend.test.runner import Runner

    path = os.path.join(os.path.dirname(onnx.__file__), *url.split("/")[1:])
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    inputs = [Runner.generate_dummy_data(value, seed=0, name=value.name, random=False) for value in given]
    outputs = [_read(f"{path.removesuffix('.onnx')}_output_{i}.pb", value) for i, value in enumerate(model.graph.output)]
    return model, [(inputs, outputs)]


def with_constants(case: Case) -> Case:
    """The case with every numeric tensor after the first input stored in the model."""
    inputs, _ = case.sets[0]
    names = [value.name for value in case.model.graph.input]
    stored = {
        name: np.asarray(value)
        for name, value in list(zip(names, inputs, strict=False))[1:]
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "iuf"
    }
    if len(case.sets) > 1 or not stored:
        return case
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = max(model.ir_version, 4)  # earlier, a constant had to be an input too
    del model.graph.input[:]
    model.graph.input.extend(value for value in case.model.graph.input if value.name not in stored)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    kept = [value for name, value in zip(names, inputs, strict=False) if name not in stored]
    return dataclasses.replace(case, model=model, sets=[(kept, case.sets[0][1])])


def freeze(case: Case) -> Case:
    """The case with every input but the first turned into a constant; itself where that cannot be said in the model."""
    inputs = list(case.model.graph.input)
    if len(case.sets) != 1 or len(inputs) < 2 or not all(isinstance(value, np.ndarray) for value in case.sets[0][0]):
        return case
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = max(model.ir_version, 4)  # earlier, a constant had to be an input too
    given, expected = case.sets[0]
    model.graph.initializer.extend(numpy_helper.from_array(v, s.name) for s, v in zip(inputs[1:], given[1:], strict=False))
    del model.graph.input[1:]
    return dataclasses.replace(case, model=model, sets=[(given[:1], expected)])


def data_sets(model: Any, folder: str) -> list[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs, read from the case's protobuf files."""
    sets = []
    index = 0
    while os.path.isdir(place := os.path.join(folder, f"test_data_set_{index}")):
        read = [
            [
                _read(os.path.join(place, f"{kind}_{i}.pb"), value)
                for i, value in enumerate(values)
                if os.path.exists(os.path.join(place, f"{kind}_{i}.pb"))
            ]
            for kind, values in (("input", model.graph.input), ("output", model.graph.output))
        ]
        sets.append((read[0], read[1]))
        index += 1
    return sets


def judge(case: Case) -> tuple[str, str]:
    """The verdict on one case, with a detail."""
    try:
        model, rtol, atol = case.model, case.rtol, case.atol
        engine = openinfer.load(model)
        for inputs, expected in case.sets:
            inputs, expected = ([_array(value) for value in values] for values in (inputs, expected))
            stored = {tensor.name for tensor in model.graph.initializer} if case.kind == "light" else set()
            names = [value.name for value in model.graph.input if value.name not in stored]
            given = {name: value for name, value in zip(names, inputs, strict=False) if name in {s.name for s in engine.inputs}}
            found = engine.run(given)
            for value, output in zip(expected, model.graph.output, strict=False):
                drawn = any(word in case.name for word in RANDOM)
                difference = _difference(
                    np.zeros_like(found[output.name]) if drawn else found[output.name], np.zeros_like(value) if drawn else value, rtol, atol
                )
                if difference:
                    return "wrong", f"{output.name}: {difference}; fallback: {engine.statistics().fallback}"
        fallback = engine.statistics().fallback
        return ("fallback" if fallback else "compiled"), "; ".join(fallback.values())
    except OpenInferError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "wrong", f"an unnamed {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _array(value: Any) -> Any:
    """Some cases hold protobufs where the others hold arrays."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _difference(found: Any, expected: Any, rtol: float, atol: float) -> str:
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return "not the same sequence"
        return next((d for f, e in zip(found, expected, strict=True) if (d := _difference(f, e, rtol, atol))), "")
    if expected is None:
        return "" if found is None else "expected nothing"
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype.kind in "OUS":
        return "" if (found.astype(str) == expected.astype(str)).all() else "other strings"
    if found.dtype != expected.dtype:
        return f"dtype {found.dtype}, expected {expected.dtype}"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        if not np.allclose(found.astype(wide), expected.astype(wide), rtol=rtol, atol=atol, equal_nan=True):
            return f"largest difference {np.nanmax(np.abs(found.astype(wide) - expected.astype(wide))):.3g}"
    return ""


def _read(path: str, value: Any) -> Any:
    with open(path, "rb") as file:
        data = file.read()
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def main() -> int:
    """Print the ledger."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--match", default="")
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--constants", action="store_true")
    options = parser.parse_args()
    share, shares = (int(part) for part in options.share.split("/"))
    counts: dict[str, collections.Counter[str]] = {}
    for case in cases(lambda index, name: index % shares == share and options.match in name):
        stored = freeze(case) if options.freeze else with_constants(case) if options.constants else case
        verdict, detail = judge(stored)
        counts.setdefault(case.kind, collections.Counter())[verdict] += 1
        if verdict == "wrong" or options.verbose:
            print(f"{verdict:9}{case.name}: {detail}", flush=True)
    total = sum(counts.values(), collections.Counter())
    print(f"{'':20}" + "".join(f"{verdict:>10}" for verdict in (*VERDICTS, "in all")))
    for kind, row in [*counts.items(), ("in all", total)]:
        print(f"{kind:20}" + "".join(f"{row[verdict]:10}" for verdict in VERDICTS) + f"{row.total():10}")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
