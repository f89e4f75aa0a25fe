"""What cannot be compared request by request is named before a study."""

from __future__ import annotations

import numpy as np
import pytest
from models import model
from onnx import TensorProto, helper
from openinfer.tuner.oracle import expected_outputs

import openinfer
from openinfer.errors import StudyError

F = TensorProto.FLOAT


def outputs(nodes, shape, results, requests, constants=None):
    proto = model(nodes, {"x": (F, shape)}, results, constants)
    with openinfer.load(proto) as engine:
        return expected_outputs(proto, engine.inputs, {"x": np.asarray(requests, np.float32)})


def test_requests_that_do_not_stand_alone():
    with pytest.raises(StudyError, match="depends on the others in its batch"):
        outputs([helper.make_node("Softmax", ["x"], ["y"], axis=0)], ["n", 2], {"y": (F, ["n", 2])}, [[1, 2], [3, 4], [0, 1]])


def test_outputs_whose_shape_follows_the_data():
    with pytest.raises(StudyError, match=r"has shape \(1, 2\) for request 0 and \(1, 1\) for request 1"):
        outputs([helper.make_node("NonZero", ["x"], ["y"])], [2], {"y": (TensorProto.INT64, [1, "k"])}, [[1, 2], [0, 4]])


def test_outputs_that_are_no_rows():
    with pytest.raises(StudyError, match="has 1 rows for 3 requests"):
        outputs([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], ["n", 2], {"y": (F, [])}, [[1, 2], [3, 4], [5, 6]])


def test_integers_and_booleans_are_kept_exactly():
    nodes = [helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0), helper.make_node("Greater", ["x", "c"], ["b"])]
    results = {"i": (TensorProto.INT64, ["n"]), "b": (TensorProto.BOOL, ["n", 2])}
    found = outputs(nodes, ["n", 2], results, [[1, 2], [4, 3]], {"c": np.float32(1.5)})
    assert found["i"].tolist() == [1, 0] and found["b"].tolist() == [[False, True], [True, True]]
