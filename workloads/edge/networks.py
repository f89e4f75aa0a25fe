"""The networks of MLPerf Tiny (Banbury et al. 2021) in PyTorch, and as ONNX with every batch normalisation kept as a node.

Padding is TensorFlow's "same": the odd pixel goes to the end. Parameters are counted as Keras counts them, moving averages included.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from openinfer.workloads.onnx_writer import Writer
from torch import nn


class Same(nn.Module):
    """A convolution of `size`, input included, whose output is ceil(input / stride)."""

    def __init__(self, channels: tuple[int, int], kernel: tuple[int, int], size: tuple[int, int], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        total = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)]
        self.begin, self.end = [t // 2 for t in total], [t - t // 2 for t in total]
        self.convolution = nn.Conv2d(*channels, kernel, stride, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to [n, c', ceil(h / stride), ceil(w / stride)]."""
        padded = nn.functional.pad(x, (self.begin[1], self.end[1], self.begin[0], self.end[0]))
        made: torch.Tensor = self.convolution(padded)
        return made


class Mean(nn.Module):
    """The mean over the pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to [n, c]."""
        return x.mean(dim=(2, 3))


def ds_cnn(classes: int) -> nn.Sequential:
    """Depthwise separable CNN for keywords (Zhang et al. 2017), [n, 1, 49, 10] to logits; 24,908 parameters for 12 classes."""
    layers: list[nn.Module] = [Same((1, 64), (10, 4), (49, 10), 2), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(4):
        layers += [Same((64, 64), (3, 3), (25, 5), groups=64), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [Same((64, 64), (1, 1), (25, 5)), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, Mean(), nn.Linear(64, classes))


def autoencoder(width: int) -> nn.Sequential:
    """Dense autoencoder (DCASE 2020, task 2), [n, width] to the same; 269,992 parameters for 640 inputs."""
    layers: list[nn.Module] = []
    widths = (width, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.BatchNorm1d(wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, width))


def parameters(model: onnx.ModelProto) -> int:
    """Numbers in the model's float weights."""
    return sum(int(np.prod(w.dims, dtype=np.int64)) for w in model.graph.initializer if w.data_type == TensorProto.FLOAT)


def export(network: nn.Sequential, name: str, shape: tuple[int, ...], output: tuple[str, int], softmax: bool) -> onnx.ModelProto:
    """`network`, whose last layer is linear, on `x` of [batch, *shape] to `output`, its name and width; checked."""
    writer = Writer()
    *body, head = network.eval()
    made = _write(writer, nn.Sequential(*body), "x")
    made = writer.add("Gemm", made, _array(head.weight), _array(head.bias), transB=1, name=None if softmax else output[0])
    if softmax:
        writer.add("Softmax", made, axis=-1, name=output[0])
    return writer.model(name, {"x": (np.float32, ("batch", *shape))}, {output[0]: (np.float32, ("batch", output[1]))})


def _write(writer: Writer, module: nn.Module, x: str) -> Any:
    """Append what `module` does to `x`; the value it makes."""
    if isinstance(module, nn.Sequential):
        for layer in module:
            x = _write(writer, layer, x)
        return x
    if isinstance(module, Same):
        inner = module.convolution
        shape: dict[str, Any] = {"kernel_shape": list(inner.kernel_size), "strides": list(inner.stride), "pads": module.begin + module.end}
        return writer.add("Conv", x, _array(inner.weight), _array(inner.bias), group=inner.groups, **shape)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        values = (module.weight, module.bias, module.running_mean, module.running_var)
        return writer.add("BatchNormalization", x, *(_array(value) for value in values), epsilon=module.eps)
    if isinstance(module, nn.Linear):
        return writer.add("Gemm", x, _array(module.weight), _array(module.bias), transB=1)
    if isinstance(module, Mean):
        return writer.add("Flatten", writer.add("GlobalAveragePool", x))
    assert isinstance(module, nn.ReLU)
    return writer.add("Relu", x)


def _array(value: torch.Tensor) -> Any:
    return value.detach().numpy()
