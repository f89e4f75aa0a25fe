"""Element types from the schemas alone against ONNX's own inference, on every model of its backend suite."""

from __future__ import annotations

import contextlib
import warnings

import onnx
from onnx.backend.test.loader import load_model_tests

from openinfer.errors import OpenInferError
from openinfer.frontend.dtypes import _of_proto, value_types
from openinfer.frontend.onnx_model import read


def models() -> list[tuple[str, onnx.ModelProto]]:
    """The node cases and small networks, by name; those that this engine does not read are left out by the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for kind in ("node", "simple", "pytorch-converted", "pytorch-operator") for case in load_model_tests(kind=kind)]
    return [(case.name, case.model if case.model is not None else onnx.load(f"{case.model_dir}/model.onnx")) for case in cases]


def test_types_agree_with_onnx():
    compared, unknown, wrong = 0, [], []
    for name, proto in models():
        with contextlib.suppress(OpenInferError):
            graph = read(proto)
            found = value_types(graph)
            inferred = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(proto) if proto.functions else proto)
            known = {value.name: _of_proto(value.type) for value in (*inferred.graph.value_info, *inferred.graph.output)}
            for value, kind in known.items():
                if kind and value in found:
                    compared += 1
                    if not found[value]:
                        unknown.append((name, value, kind))
                    elif found[value] != kind:
                        wrong.append((name, value, found[value], kind))
    assert not wrong, wrong[:10]
    assert compared > 4000
    assert len(unknown) < compared / 50, unknown[:10]
    floats = [entry for entry in unknown if entry[2] in ("float32", "float64")]
    # Sequences that are inputs do not say what they hold; the training operators mix all their types in one variable; the branches of
    # functions that are written out declare nothing; nor does the state of linear attention that begins without one.
    excused = ("sequence", "opt", "adagrad", "adam", "momentum", "gradient", "_expanded", "linear_attention")
    assert not [entry for entry in floats if not any(word in entry[0] for word in excused)], floats
