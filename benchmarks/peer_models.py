"""Whole networks of the workloads' shapes with random weights, as ONNX bytes, for comparisons of speed. Each has one input, `x`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
TABLES, ROWS, WIDTH = 26, 1000, 16


class Builder:
    """A graph under construction: every method adds a layer on `value` and returns the name of what comes out."""

    def __init__(self, x: Shape, dtype: int = TensorProto.FLOAT) -> None:
        self.x, self._dtype = x, dtype
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._rng = np.random.default_rng(0)

    def constant(self, array: np.ndarray) -> str:
        """A stored array."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan_in: int) -> str:
        """Random weights that keep the size of what passes through."""
        return self.constant((self._rng.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Any operator's first output."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def conv(
        self,
        value: str,
        channels: int,
        filters: int,
        kernel: Sequence[int],
        activation: str | None = "Relu",
        group: int = 1,
        **attributes: Any,
    ) -> str:
        """A convolution with bias and activation; "Relu6" is a Clip."""
        fan_in = channels // group * math.prod(kernel)
        weight = self.weight(filters, channels // group, *kernel, fan_in=fan_in)
        y = self.node("Conv", value, weight, self.weight(filters, fan_in=100), group=group, **attributes)
        if activation == "Relu6":
            return self.node("Clip", y, self.constant(np.float32(0)), self.constant(np.float32(6)))
        return y if activation is None else self.node(activation, y)

    def dense(self, value: str, inputs: int, outputs: int, activation: str | None = "Relu") -> str:
        """A product with bias and activation."""
        y = self.node("Gemm", value, self.weight(inputs, outputs, fan_in=inputs), self.weight(outputs, fan_in=100))
        return y if activation is None else self.node(activation, y)

    def lstm(self, value: str, inputs: int, hidden: int) -> str:
        """[steps, 1, inputs] → [steps, 1, hidden]."""
        w, r = self.weight(1, 4 * hidden, inputs, fan_in=2 * inputs), self.weight(1, 4 * hidden, hidden, fan_in=2 * hidden)
        y = self.node("LSTM", value, w, r, self.weight(1, 8 * hidden, fan_in=100), hidden_size=hidden)
        return self.node("Squeeze", y, self.constant(np.array([1])))

    def reshape(self, value: str, *shape: int) -> str:
        """To a fixed shape; -1 is what is left."""
        return self.node("Reshape", value, self.constant(np.array(shape)))

    def build(self, value: str) -> bytes:
        """The model whose output is `value`."""
        self._nodes.append(helper.make_node("Identity", [value], ["y"]))
        x = helper.make_tensor_value_info("x", self._dtype, list(self.x))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "peer", [x], [y], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
        return data


def unet() -> bytes:
    """Three levels of 16, 32 and 64 channels on 128 × 128; pooled down, transposed up, skips joined."""
    b, skips, value, channels = Builder((1, 1, 128, 128)), [], "x", 1
    for width in (16, 32, 64):
        for _ in range(2):
            value, channels = b.conv(value, channels, width, (3, 3), pads=[1] * 4), width
        skips.append(value)
        if width < 64:
            value = b.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    for width, skip in ((32, skips[1]), (16, skips[0])):
        weight = b.weight(channels, width, 2, 2, fan_in=channels)
        value = b.node("ConvTranspose", value, weight, b.weight(width, fan_in=100), strides=[2, 2])
        value, channels = b.node("Concat", skip, value, axis=1), 2 * width
        for _ in range(2):
            value, channels = b.conv(value, channels, width, (3, 3), pads=[1] * 4), width
    return b.build(b.conv(value, 16, 1, (1, 1), "Sigmoid"))


def dscnn() -> bytes:
    """MLPerf Tiny's keyword spotter: 10×4/2, four depthwise and pointwise pairs of 64, average pool."""
    b = Builder((1, 1, 49, 10))
    value = b.conv("x", 1, 64, (10, 4), pads=[4, 1, 5, 1], strides=[2, 2])
    for _ in range(4):
        value = b.conv(value, 64, 64, (3, 3), group=64, pads=[1] * 4)
        value = b.conv(value, 64, 64, (1, 1))
    value = b.reshape(b.node("GlobalAveragePool", value), 1, 64)
    return b.build(b.node("Softmax", b.dense(value, 64, 12, None)))


def resnet8() -> bytes:
    """MLPerf Tiny's image classifier: a stem and three residual blocks of 16, 32 and 64 channels on 32 × 32."""
    b = Builder((1, 3, 32, 32))
    value, channels = b.conv("x", 3, 16, (3, 3), pads=[1] * 4), 16
    for width in (16, 32, 64):
        stride = width // channels
        y = b.conv(value, channels, width, (3, 3), pads=[2 - stride, 2 - stride, 1, 1], strides=[stride] * 2)
        y = b.conv(y, width, width, (3, 3), None, pads=[1] * 4)
        shortcut = value if stride == 1 else b.conv(value, channels, width, (1, 1), None, strides=[2, 2])
        value, channels = b.node("Relu", b.node("Add", y, shortcut)), width
    value = b.reshape(b.node("GlobalAveragePool", value), 1, 64)
    return b.build(b.node("Softmax", b.dense(value, 64, 10, None)))


def mobilenet_v2() -> bytes:
    """MobileNetV2 of width 1 on 224 × 224 (Sandler et al. 2018, table 2)."""
    b = Builder((1, 3, 224, 224))
    value, channels = b.conv("x", 3, 32, (3, 3), "Relu6", pads=[1] * 4, strides=[2, 2]), 32
    for expansion, width, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for stride in (first, *[1] * (count - 1)):
            inner = expansion * channels
            y = value if expansion == 1 else b.conv(value, channels, inner, (1, 1), "Relu6")
            y = b.conv(y, inner, inner, (3, 3), "Relu6", group=inner, pads=[1] * 4, strides=[stride] * 2)
            y = b.conv(y, inner, width, (1, 1), None)
            value = b.node("Add", value, y) if stride == 1 and channels == width else y
            channels = width
    value = b.node("GlobalAveragePool", b.conv(value, 320, 1280, (1, 1), "Relu6"))
    return b.build(b.dense(b.reshape(value, 1, 1280), 1280, 1000, None))


def byte_cnn() -> bytes:
    """MalConv (Raff et al. 2017) of 128 filters on 4,096 bytes: windows of 64, a sigmoid gate, the largest over the file."""
    b = Builder((1, 4096), TensorProto.INT64)
    value = b.node("Transpose", b.node("Gather", b.weight(257, 8, fan_in=2), "x"), perm=[0, 2, 1])
    gate = b.conv(value, 8, 128, (64,), "Sigmoid", strides=[64])
    value = b.node("Mul", b.conv(value, 8, 128, (64,), None, strides=[64]), gate)
    value = b.reshape(b.node("GlobalMaxPool", value), 1, 128)
    return b.build(b.node("Sigmoid", b.dense(b.dense(value, 128, 128), 128, 1, None)))


def deeplob() -> bytes:
    """DeepLOB (Zhang et al. 2019): three blocks of convolutions, an inception module, an LSTM of 64 over what is left of 100 events."""
    b, value, channels = Builder((1, 1, 100, 40)), "x", 1
    for kernel, strides in (((1, 2), [1, 2]), ((1, 2), [1, 2]), ((1, 10), [1, 1])):
        value = b.conv(value, channels, 32, kernel, "LeakyRelu", strides=strides)
        for _ in range(2):
            value = b.conv(value, 32, 32, (4, 1), "LeakyRelu", pads=[1, 0, 2, 0])
        channels = 32
    left = b.conv(b.conv(value, 32, 64, (1, 1), "LeakyRelu"), 64, 64, (3, 1), "LeakyRelu", pads=[1, 0, 1, 0])
    middle = b.conv(b.conv(value, 32, 64, (1, 1), "LeakyRelu"), 64, 64, (5, 1), "LeakyRelu", pads=[2, 0, 2, 0])
    pooled = b.node("MaxPool", value, kernel_shape=[3, 1], pads=[1, 0, 1, 0])
    joined = b.node("Concat", left, middle, b.conv(pooled, 32, 64, (1, 1), "LeakyRelu"), axis=1)
    steps = b.node("Transpose", b.reshape(joined, 1, 192, 100), perm=[2, 0, 1])
    last = b.node("Gather", b.lstm(steps, 192, 64), b.constant(np.array(99)), axis=0)
    return b.build(b.node("Softmax", b.dense(last, 64, 3, None)))


def lstm() -> bytes:
    """Two layers of 100 units over a window of 50 steps of 40."""
    b = Builder((50, 1, 40))
    last = b.node("Gather", b.lstm(b.lstm("x", 40, 100), 100, 100), b.constant(np.array(49)), axis=0)
    return b.build(b.dense(last, 100, 3, None))


def autoencoder() -> bytes:
    """MLPerf Tiny's anomaly detector: 640, four of 128, 8, four of 128, 640."""
    b, value = Builder((1, 640)), "x"
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    for index in range(10):
        value = b.dense(value, widths[index], widths[index + 1], "Relu" if index < 9 else None)
    return b.build(value)


def interaction() -> bytes:
    """DLRM's middle (Naumov et al. 2019): 26 look-ups of 16, their dot products below the diagonal, a perceptron on top. Each column of `x`
    is a row of its table.
    """
    b = Builder((1, TABLES), TensorProto.INT64)
    rows = [
        b.node("Gather", b.weight(ROWS, WIDTH, fan_in=2 * WIDTH), b.node("Gather", "x", b.constant(np.array([table])), axis=1))
        for table in range(TABLES)
    ]
    joined = b.node("Concat", *rows, axis=1)
    products = b.node("MatMul", joined, b.node("Transpose", joined, perm=[0, 2, 1]))
    below = np.flatnonzero(np.tri(TABLES, k=-1, dtype=bool))
    kept = b.node("Gather", b.reshape(products, 1, TABLES * TABLES), b.constant(below), axis=1)
    value = b.node("Concat", b.reshape(joined, 1, TABLES * WIDTH), kept, axis=1)
    inputs = TABLES * WIDTH + len(below)
    return b.build(b.node("Sigmoid", b.dense(b.dense(value, inputs, 256), 256, 1, None)))


# name: the model, and the largest integer that its input holds, 0 where it is floating point
MODELS: dict[str, tuple[Callable[[], bytes], int]] = {
    "autoencoder": (autoencoder, 0),
    "byte CNN": (byte_cnn, 256),
    "DeepLOB": (deeplob, 0),
    "DLRM interaction": (interaction, ROWS - 1),
    "DS-CNN": (dscnn, 0),
    "LSTM": (lstm, 0),
    "MobileNetV2": (mobilenet_v2, 0),
    "ResNet-8": (resnet8, 0),
    "U-Net": (unet, 0),
}
