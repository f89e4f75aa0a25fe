"""Layers beside ONNX Runtime: one process, one thread, every shape visited in shuffled rounds, a new input each call.

    python benchmarks/layers.py [--seconds S] [--match TEXT] [--config KNOB=VALUE ...]

Each model is one convolution with bias and ReLU, one pooling, or one recurrent layer over a window of 50 steps of 40 inputs. Both sides
are called with addresses bound beforehand (ONNX Runtime: `run_with_iobinding`) and timed on the calling thread's processor clock, which
does not count the time that other processes take. The ratio is ONNX Runtime's median time ÷ ours: above 1 we are faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any

import numpy as np
import onnx
from duel import Duel, chosen, fight
from onnx import TensorProto, helper, numpy_helper

import openinfer

TOLERANCE = 1e-5

# name: (input shape, weight shape, attributes)
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "resnet8 stem 3x3 3-16 32x32": ((1, 3, 32, 32), (16, 3, 3, 3), {"pads": [1] * 4}),
    "resnet8 3x3 16-16 32x32": ((1, 16, 32, 32), (16, 16, 3, 3), {"pads": [1] * 4}),
    "resnet8 3x3/2 16-32 32x32": ((1, 16, 32, 32), (32, 16, 3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
    "resnet8 3x3 32-32 16x16": ((1, 32, 16, 16), (32, 32, 3, 3), {"pads": [1] * 4}),
    "resnet8 3x3 64-64 8x8": ((1, 64, 8, 8), (64, 64, 3, 3), {"pads": [1] * 4}),
    "resnet8 1x1/2 32-64 16x16": ((1, 32, 16, 16), (64, 32, 1, 1), {"strides": [2, 2]}),
    "resnet50 stem 7x7/2 3-64 224x224": ((1, 3, 224, 224), (64, 3, 7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    "resnet50 1x1 64-256 56x56": ((1, 64, 56, 56), (256, 64, 1, 1), {}),
    "resnet50 3x3 64-64 56x56": ((1, 64, 56, 56), (64, 64, 3, 3), {"pads": [1] * 4}),
    "resnet50 3x3/2 128-128 56x56": ((1, 128, 56, 56), (128, 128, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    "resnet50 3x3 256-256 14x14": ((1, 256, 14, 14), (256, 256, 3, 3), {"pads": [1] * 4}),
    "resnet50 1x1 1024-256 14x14": ((1, 1024, 14, 14), (256, 1024, 1, 1), {}),
    "resnet50 3x3 512-512 7x7": ((1, 512, 7, 7), (512, 512, 3, 3), {"pads": [1] * 4}),
    "resnet50 1x1 512-2048 7x7": ((1, 512, 7, 7), (2048, 512, 1, 1), {}),
    "unet 3x3 32-32 256x256": ((1, 32, 256, 256), (32, 32, 3, 3), {"pads": [1] * 4}),
    "dscnn 10x4/2 1-64 49x10": ((1, 1, 49, 10), (64, 1, 10, 4), {"pads": [4, 1, 5, 1], "strides": [2, 2]}),
    "dscnn depthwise 3x3 64 25x5": ((1, 64, 25, 5), (64, 1, 3, 3), {"pads": [1] * 4, "group": 64}),
    "dscnn 1x1 64-64 25x5": ((1, 64, 25, 5), (64, 64, 1, 1), {}),
    "mobilenet depthwise 3x3 144 56x56": ((1, 144, 56, 56), (144, 1, 3, 3), {"pads": [1] * 4, "group": 144}),
    "mobilenet depthwise 3x3/2 96 112x112": ((1, 96, 112, 112), (96, 1, 3, 3), {"pads": [1] * 4, "strides": [2, 2], "group": 96}),
    "mobilenet depthwise 3x3 960 7x7": ((1, 960, 7, 7), (960, 1, 3, 3), {"pads": [1] * 4, "group": 960}),
    "convnext depthwise 7x7 96 56x56": ((1, 96, 56, 56), (96, 1, 7, 7), {"pads": [3] * 4, "group": 96}),
    "deeplob 1x2/2 1-32 100x40": ((1, 1, 100, 40), (32, 1, 1, 2), {"strides": [1, 2]}),
    "deeplob 4x1 32-32 100x20": ((1, 32, 100, 20), (32, 32, 4, 1), {"pads": [1, 0, 2, 0]}),
    "deeplob 1x10 32-32 100x10": ((1, 32, 100, 10), (32, 32, 1, 10), {}),
    "conv1d 3 64-64 100": ((1, 64, 100), (64, 64, 3), {"pads": [1, 1]}),
    "transposed 2x2/2 64-32 64x64": ((1, 64, 64, 64), (64, 32, 2, 2), {"strides": [2, 2]}),
    "transposed 4x4/2 64-32 32x32": ((1, 64, 32, 32), (64, 32, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
}
# name: (operator, input shape, attributes)
POOLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "maxpool 3x3/2 padded 64 112x112": ("MaxPool", (1, 64, 112, 112), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    "maxpool 2x2/2 64 128x128": ("MaxPool", (1, 64, 128, 128), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "maxpool 3x3 padded 64 28x28": ("MaxPool", (1, 64, 28, 28), {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "maxpool 3x1 padded 32 100x1": ("MaxPool", (1, 32, 100, 1), {"kernel_shape": [3, 1], "pads": [1, 0, 1, 0]}),
    "avgpool 2x2/2 64 56x56": ("AveragePool", (1, 64, 56, 56), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "avgpool 3x3/2 padded 64 56x56": ("AveragePool", (1, 64, 56, 56), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
}
# name: (operator, batch, hidden units)
RECURRENT = {
    f"{op.lower()} {hidden} b{batch}": (op, batch, hidden)
    for op in ("LSTM", "GRU")
    for hidden in (64, 128, 256)
    for batch in (1, 4, 16, 64)
}
NAMES = (*CONVOLUTIONS, *POOLS, *RECURRENT)
STEPS, INPUTS, TURN = 50, 40, 8


@dataclasses.dataclass(frozen=True)
class Model:
    """One layer with a fixed batch: its ONNX bytes, the shape of its input, its floating-point operations."""

    data: bytes
    x: tuple[int, ...]
    flops: float


def build(name: str) -> Model:
    """The layer called `name`."""
    if name in POOLS:
        op, x, attributes = POOLS[name]
        model = _model(x, [helper.make_node(op, ["x"], ["y"], **attributes)], {})
        return dataclasses.replace(model, flops=float(math.prod(_shape(model)) * math.prod(attributes["kernel_shape"])))
    if name in RECURRENT:
        return _recurrent(*RECURRENT[name])
    x, weight, attributes = CONVOLUTIONS[name]
    op = "ConvTranspose" if name.startswith("transposed") else "Conv"
    filters = weight[1] if op == "ConvTranspose" else weight[0]
    scale = 1.0 / math.sqrt(math.prod(weight[1:]))
    nodes = [helper.make_node(op, ["x", "w", "b"], ["c"], **attributes), helper.make_node("Relu", ["c"], ["y"])]
    model = _model(x, nodes, {"w": (weight, scale), "b": ((filters,), 1.0)})
    positions = math.prod(x[2:]) * x[0] if op == "ConvTranspose" else math.prod(_shape(model)) / filters
    return dataclasses.replace(model, flops=2.0 * positions * math.prod(weight))


def _recurrent(op: str, batch: int, hidden: int) -> Model:
    x, gates, scale = (STEPS, batch, INPUTS), {"LSTM": 4, "GRU": 3}[op], 1.0 / math.sqrt(hidden)
    constants = {
        "w": ((1, gates * hidden, INPUTS), scale),
        "r": ((1, gates * hidden, hidden), scale),
        "b": ((1, 2 * gates * hidden), scale),
    }
    attributes = {"linear_before_reset": 1} if op == "GRU" else {}
    model = _model(x, [helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, **attributes)], constants)
    return dataclasses.replace(model, flops=2.0 * STEPS * batch * gates * hidden * (hidden + INPUTS))


def _model(x: tuple[int, ...], nodes: list[Any], constants: dict[str, tuple[tuple[int, ...], float]]) -> Model:
    """Constants are given by shape and standard deviation."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), key)
            for key, (shape, scale) in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Model(onnx.shape_inference.infer_shapes(model).SerializeToString(), x, 0.0)


def _shape(model: Model) -> tuple[int, ...]:
    """The output's shape."""
    (output,) = onnx.load_from_string(model.data).graph.output
    return tuple(dimension.dim_value for dimension in output.type.tensor_type.shape.dim)


def duel(name: str, model: Model, config: openinfer.Config) -> Duel:
    """Both engines on one layer."""
    rng = np.random.default_rng(1)
    return Duel(name, model.data, [rng.standard_normal(model.x).astype(np.float32) for _ in range(TURN)], TOLERANCE, config)


def main() -> None:
    """Print one line per shape and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--match", default="")
    parser.add_argument("--config", nargs="*", default=[], metavar="KNOB=VALUE")
    options = parser.parse_args()
    config = {key: int(value) if value.isdigit() else value for key, value in (item.split("=", 1) for item in options.config)}
    knobs = openinfer.Config().with_knobs(config)
    models = {name: build(name) for name in chosen(NAMES, options.match)}
    duels = {name: duel(name, model, knobs) for name, model in models.items()}
    fight(duels, options.seconds)
    print(f"{'':38}{'onnxruntime':>12}{'openinfer':>12}{'':>12}\n{'':38}{'µs':>12}{'µs':>12}{'GFLOP/s':>12}{'ratio':>8}")
    ratios = []
    for name, each in duels.items():
        ours, theirs = each.medians()
        ratios.append(theirs / ours)
        print(f"{name:38}{theirs / 1000:12.1f}{ours / 1000:12.1f}{models[name].flops / ours:12.1f}{ratios[-1]:8.2f}")
    rounds = min(each.rounds for each in duels.values())
    print(f"geometric mean {math.exp(np.mean(np.log(ratios))):.2f}, slowest {min(ratios):.2f}, rounds {rounds}")


if __name__ == "__main__":
    main()
