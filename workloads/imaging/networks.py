"""The two networks of `imaging`, in torch, and how each is written as ONNX. The build script alone imports this."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from openinfer.workloads.imaging.phantom import SIZE
from openinfer.workloads.onnx_writer import Port, Writer
from torch import nn

STAGES = (8, 16, 32)
SCALES = (8, 16, 32, 64)
_IMAGE: dict[str, Port] = {"image": (np.float32, ["batch", 1, SIZE, SIZE])}


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016), at half the size where `stride` is 2."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.norm3 = None if same else nn.BatchNorm2d(after)

    def forward(self, x: Any) -> Any:
        """[n, before, h, w] to [n, after, h / stride, w / stride]."""
        kept = x if self.shortcut is None or self.norm3 is None else self.norm3(self.shortcut(x))
        return torch.relu(self.norm2(self.second(torch.relu(self.norm1(self.first(x))))) + kept)


class Classifier(nn.Module):
    """A stem at half the size, a residual block a stage, the average over the slice, two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, STAGES[0], 3, 2, 1, bias=False), nn.BatchNorm2d(STAGES[0])
        befores = (STAGES[0], *STAGES[:-1])
        self.blocks = nn.ModuleList(Residual(b, a, 1 if i == 0 else 2) for i, (b, a) in enumerate(zip(befores, STAGES, strict=True)))
        self.head = nn.Linear(STAGES[-1], 2)

    def forward(self, x: Any) -> Any:
        """[n, 1, 128, 128] to logits [n, 2]."""
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Double(nn.Module):
    """Two 3×3 convolutions, each normalised and rectified."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, x: Any) -> Any:
        """[n, before, h, w] to [n, after, h, w]."""
        return torch.relu(self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


class UNet(nn.Module):
    """Contracting and expanding path with skip connections (Ronneberger et al. 2015), padded so that the size stays."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(Double(b, a) for b, a in zip((1, *SCALES[:-1]), SCALES, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in reversed(SCALES[:-1]))
        self.join = nn.ModuleList(Double(2 * c, c) for c in reversed(SCALES[:-1]))
        self.head = nn.Conv2d(SCALES[0], 1, 1)

    def forward(self, x: Any) -> Any:
        """[n, 1, 128, 128] to logits of the same shape."""
        kept = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def classifier_onnx(net: Classifier) -> onnx.ModelProto:
    """Slices "image" to "probabilities" of none and lesion."""
    writer = Writer()
    x = writer.add("Relu", _normed(writer, net.stem, net.norm, "image"))
    for block in net.blocks:
        assert isinstance(block, Residual)
        kept = x if block.shortcut is None else _normed(writer, block.shortcut, block.norm3, x)
        inner = writer.add("Relu", _normed(writer, block.first, block.norm1, x))
        x = writer.add("Relu", writer.add("Add", _normed(writer, block.second, block.norm2, inner), kept))
    x = writer.add("Flatten", writer.add("GlobalAveragePool", x), axis=1)
    x = writer.add("Gemm", x, _array(net.head.weight), _array(net.head.bias), transB=1)
    writer.add("Softmax", x, axis=-1, name="probabilities")
    return writer.model("lesion_classifier", _IMAGE, {"probabilities": (np.float32, ["batch", 2])})


def unet_onnx(net: UNet) -> onnx.ModelProto:
    """Slices "image" to "lesion", the probability at every pixel."""
    writer = Writer()

    def double(block: Any, x: str) -> Any:
        inner = writer.add("Relu", _normed(writer, block.first, block.norm1, x))
        return writer.add("Relu", _normed(writer, block.second, block.norm2, inner))

    x, kept = "image", []
    for index, block in enumerate(net.down):
        x = double(block, x if index == 0 else writer.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
        kept.append(x)
    for up, join, skip in zip(net.up, net.join, reversed(kept[:-1]), strict=True):
        raised = writer.add("ConvTranspose", x, _array(up.weight), _array(up.bias), kernel_shape=[2, 2], strides=[2, 2])
        x = double(join, writer.add("Concat", skip, raised, axis=1))
    x = writer.add("Conv", x, _array(net.head.weight), _array(net.head.bias), kernel_shape=[1, 1])
    writer.add("Sigmoid", x, name="lesion")
    return writer.model("lesion_unet", _IMAGE, {"lesion": (np.float32, ["batch", 1, SIZE, SIZE])})


def _normed(writer: Writer, conv: Any, norm: Any, x: str) -> Any:
    """A convolution without bias, then its batch normalisation."""
    (height, width), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
    x = writer.add("Conv", x, _array(conv.weight), kernel_shape=[height, width], strides=[stride] * 2, pads=[padding] * 4)
    parameters = [_array(value) for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    return writer.add("BatchNormalization", x, *parameters, epsilon=norm.eps)


def _array(tensor: Any) -> Any:
    return tensor.detach().numpy()
