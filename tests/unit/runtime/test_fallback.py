"""What onnx.reference is known to answer wrongly is refused by name, not answered."""

from __future__ import annotations

import numpy as np
import pytest
from models import model
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import UnsupportedOperatorError

F = TensorProto.FLOAT


def recurrent(op, gates, inputs, **attributes):
    """A recurrent layer with run-time weights, which is not compiled."""
    named = {"x": [5, 2, 3], "w": [1, gates * 4, 3], "r": [1, gates * 4, 4], **({"n": [2]} if inputs else {})}
    node = helper.make_node(op, ["x", "w", "r", *(["", "n"] if inputs else [])], ["", "h"], hidden_size=4, **attributes)
    kinds = {name: (TensorProto.INT32 if name == "n" else F, shape) for name, shape in named.items()}
    rng = np.random.default_rng()
    given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in named.items() if name != "n"}
    if inputs:
        given["n"] = np.array([2, 5], np.int32)
    return model([node], kinds, {"h": (F, [1, 2, 4])}), given


@pytest.mark.parametrize(
    ("op", "gates", "lengths", "attributes", "named"),
    [
        ("LSTM", 4, True, {}, "sequence_lens"),
        ("GRU", 3, False, {"clip": 0.1}, "clip"),
        ("LSTM", 4, False, {"activations": ["Relu", "Tanh", "Tanh"]}, "activations"),
    ],
)
def test_recurrent_forms_that_the_fallback_ignores(op, gates, lengths, attributes, named):
    proto, given = recurrent(op, gates, lengths, **attributes)
    with pytest.raises(UnsupportedOperatorError, match=f"ignores {named}"):
        openinfer.load(proto).run(given)


def test_usual_forms_are_answered():
    proto, given = recurrent("LSTM", 4, False, activations=["Sigmoid", "Tanh", "Tanh"])
    assert openinfer.load(proto).run(given)["h"].shape == (1, 2, 4)
