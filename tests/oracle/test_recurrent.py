"""Recurrent layers against the operators' text in float64, and where it can against onnx.reference; a sequence keeps its bits in every
batch.
"""

from __future__ import annotations

import numpy as np
import pytest
from agreement import agree, generator
from lowering import make_node, run_node
from models import model
from onnx import TensorProto, helper

import openinfer

F = TensorProto.FLOAT
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Softsign": lambda x: x / (1 + np.abs(x)),
}
DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
GROWN = 30.0  # from unbounded activations; a state that grows step by step magnifies every rounding of the steps before


def by_the_text(op, x, w, r, b, lengths, h, c, p, names, clip=0.0, reset_after=False, coupled=False, backward=False):
    """One direction: (Y [steps, batch, hidden], Y_h, Y_c), all float64; `x` [steps, batch, inputs]."""
    steps, batch, _ = x.shape
    size = r.shape[1]
    every, h, c = np.zeros((steps, batch, size)), h.copy(), c.copy()
    f, g, last = (ACTIVATIONS[name] for name in (*names, names[-1], names[-1])[:3])

    def limited(value):
        return np.clip(value, -clip, clip) if clip else value

    for row in range(batch):
        order = range(lengths[row])
        for t in reversed(order) if backward else order:
            xs = np.split(w @ x[t, row] + b[: len(w)], GATES[op])
            rb, rs = np.split(b[len(w) :], GATES[op]), np.split(r, GATES[op])
            old = h[row].copy()
            if op == "RNN":
                h[row] = f(limited(xs[0] + rs[0] @ old + rb[0]))
            elif op == "GRU":
                z, reset = (f(limited(xs[i] + rs[i] @ old + rb[i])) for i in range(2))
                inner = reset * (rs[2] @ old + rb[2]) if reset_after else rs[2] @ (reset * old) + rb[2]
                h[row] = (1 - z) * g(limited(xs[2] + inner)) + z * old
            else:
                sums = [xs[i] + rs[i] @ old + rb[i] for i in range(4)]
                i = f(limited(sums[0] + p[0] * c[row]))
                forget = 1 - i if coupled else f(limited(sums[2] + p[2] * c[row]))
                c[row] = forget * c[row] + i * g(limited(sums[3]))
                h[row] = f(limited(sums[1] + p[1] * c[row])) * last(c[row])
            every[t, row] = h[row]
    return every, h, c


def case(rng, op, dtype):
    """A node of random form, its inputs, and its expected outputs."""
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    d, gates = 1 + (direction == "bidirectional"), GATES[op]
    steps, batch, inputs, hidden = (int(n) for n in rng.integers(1, [9, 12, 20, 45]))
    layout, clip = int(rng.integers(2)), float(rng.choice([0.0, 0.6]))
    draw = lambda *shape: rng.uniform(-0.7, 0.7, shape).astype(dtype)  # noqa: E731
    x, w, r = draw(steps, batch, inputs), draw(d, gates * hidden, inputs), draw(d, gates * hidden, hidden)
    given = {"x": x, "w": w, "r": r}
    given["b"] = draw(d, 2 * gates * hidden) if rng.random() < 0.7 else None
    given["lengths"] = rng.integers(0, steps + 1, batch).astype(np.int32) if rng.random() < 0.5 else None
    given["h"] = draw(d, batch, hidden) if rng.random() < 0.5 else None
    attributes = {"hidden_size": hidden, "direction": direction, "layout": layout}
    if clip:
        attributes["clip"] = clip
    names = DEFAULT[op] * d
    if rng.random() < 0.5:
        names = [str(name) for name in rng.choice(list(ACTIVATIONS), len(names))]
        attributes["activations"] = tuple(names)
    after, coupled = bool(rng.integers(2)), False
    if op == "LSTM":
        given["c"] = draw(d, batch, hidden) if rng.random() < 0.5 else None
        given["p"] = draw(d, 3 * hidden) if rng.random() < 0.5 else None
        coupled = rng.random() < 0.2
        attributes["input_forget"] = int(coupled)
    if op == "GRU":
        attributes["linear_before_reset"] = int(after)
    print({key: None if value is None else value.shape for key, value in given.items()}, attributes)
    wide = {key: None if value is None or key == "lengths" else value.astype(np.float64) for key, value in given.items()}
    zero, lengths = np.zeros((d, batch, hidden)), given["lengths"] if given["lengths"] is not None else [steps] * batch
    results = [
        by_the_text(
            op, wide["x"], wide["w"][i], wide["r"][i],
            np.zeros(2 * gates * hidden) if wide["b"] is None else wide["b"][i], lengths,
            (zero if wide["h"] is None else wide["h"])[i], (zero if wide.get("c") is None else wide["c"])[i],
            np.zeros((3, hidden)) if wide.get("p") is None else wide["p"][i].reshape(3, hidden),
            names[len(names) // d * i : len(names) // d * (i + 1)], clip, after, coupled, i == 1 or direction == "reverse",
        )
        for i in range(d)
    ]  # fmt: skip
    every = np.stack([result[0] for result in results], 1)
    ends = [np.stack([result[k] for result in results]) for k in (1, 2)]
    if layout:
        every, ends = every.transpose(2, 0, 1, 3), [end.transpose(1, 0, 2) for end in ends]
        for key in ("x", "h", "c"):
            if given.get(key) is not None:
                given[key] = np.ascontiguousarray(np.swapaxes(given[key], 0, 1))
    outputs = [name if rng.random() < 0.8 else "" for name in ("y", "y_h", "y_c")[: 3 if op == "LSTM" else 2]]
    outputs[1] = outputs[1] or ("" if outputs[0] else "y_h")
    node = make_node(op, [key if value is not None else "" for key, value in given.items()], outputs, **attributes)
    return node, {key: value for key, value in given.items() if value is not None}, [every, *ends]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_form(op, dtype):
    rng = generator()
    for _ in range(3 if dtype == "float32" else 1):
        node, given, expected = case(rng, op, dtype)
        while max(np.abs(wanted).max(initial=0) for wanted in expected) > GROWN:
            node, given, expected = case(rng, op, dtype)
        weights = [key for key in given if key in "wrbp"]
        found = run_node(node, given, weights)
        for value, wanted in zip(found, expected, strict=False):
            if value is not None:
                assert value.shape == wanted.shape
                assert np.abs(value - wanted).max(initial=0) <= (1e-5 if dtype == "float32" else 1e-13) * np.abs(wanted).max(initial=0)
        again = run_node(node, given, weights, threads=3)
        assert all(one is None or (one == other).all() for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize("op", GATES)
def test_a_stack_keeps_the_bits_of_every_sequence(op):
    rng = generator()
    inputs, hidden = int(rng.integers(1, 50)), int(rng.integers(1, 110))
    gates, constants, nodes, value, size = GATES[op], {"axis": np.array([2])}, [], "x", inputs
    for layer in range(2):
        names = [f"{kind}{layer}" for kind in "wrb"]
        for name, shape in zip(names, ((1, gates * hidden, size), (1, gates * hidden, hidden), (1, 2 * gates * hidden)), strict=True):
            constants[name] = rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        nodes.append(helper.make_node(op, [value, *names], [f"y{layer}"], hidden_size=hidden, layout=1))
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "axis"], [f"s{layer}"]))
        value, size = f"s{layer}", hidden
    print(inputs, hidden)
    proto = model(nodes, {"x": (F, ["n", 12, inputs])}, {"s1": (F, ["n", 12, hidden])}, constants)
    x = rng.standard_normal((9, 12, inputs)).astype(np.float32)
    engine = agree_by_text(op, proto, constants, x, hidden)
    with openinfer.load(proto, {"engine": {"threads": 2}}) as shared:
        assert (shared.run({"x": x})["s1"] == engine.run({"x": x})["s1"]).all()


def agree_by_text(op, proto, constants, x, hidden):
    """Accuracy by the text, since onnx.reference knows layout 1 only in part; the bits by running every sequence alone."""
    engine = openinfer.load(proto)
    found, value, zero = engine.run({"x": x})["s1"], np.swapaxes(x, 0, 1).astype(np.float64), np.zeros((len(x), hidden))
    for layer in range(2):
        w, r, b = (constants[f"{kind}{layer}"][0].astype(np.float64) for kind in "wrb")
        value, _, _ = by_the_text(op, value, w, r, b, [value.shape[0]] * len(x), zero, zero, np.zeros((3, hidden)), DEFAULT[op])
    expected = np.swapaxes(value, 0, 1)
    assert not engine.statistics().fallback
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    for i in range(len(x)):
        assert (engine.run({"x": x[i : i + 1]})["s1"][0] == found[i]).all()
    return engine


@pytest.mark.parametrize("op", GATES)
def test_onnx_reference_agrees(op):
    rng = generator()
    gates, hidden = GATES[op], 20
    shapes = {"w": (1, gates * hidden, 7), "r": (1, gates * hidden, hidden), "b": (1, 2 * gates * hidden)}
    constants = {name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y", "y_h"], hidden_size=hidden)
    proto = model([node], {"x": (F, [6, 3, 7])}, {"y": (F, [6, 1, 3, hidden]), "y_h": (F, [1, 3, hidden])}, constants)
    agree(proto, {"x": rng.standard_normal((6, 3, 7)).astype(np.float32)}, batched=False)
