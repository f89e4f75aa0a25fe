"""The windowed network of `hft`, in torch, and how it is written as ONNX. The build script alone imports this."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from openinfer.workloads.hft.windows import FEATURE_TICKS
from openinfer.workloads.onnx_writer import Port, Writer
from torch import nn

UNITS = 64


class TickLstm(nn.Module):
    """Standardised features, two LSTM layers of 64 units, three logits."""

    def __init__(self, mean: Any, scale: Any) -> None:
        super().__init__()
        self.mean, self.scale = torch.from_numpy(mean), torch.from_numpy(scale)
        self.lstm, self.head = nn.LSTM(len(mean), UNITS, 2, batch_first=True), nn.Linear(UNITS, 3)

    def forward(self, x: Any) -> Any:
        """Windows [n, 50, 40] to logits [n, 3]."""
        return self.head(self.lstm((x - self.mean) / self.scale)[0][:, -1])


def tick_lstm_onnx(net: TickLstm) -> onnx.ModelProto:
    """Windows "x" to "probabilities" of lower, equal, higher."""
    writer = Writer()
    scaled = writer.add("Div", writer.add("Sub", "x", _array(net.mean)), _array(net.scale))
    steps, _ = _lstm(writer, net.lstm, 0, writer.add("Transpose", scaled, perm=[1, 0, 2]))
    _answer(writer, net.head, _lstm(writer, net.lstm, 1, writer.add("Squeeze", steps, np.array([1])))[1])
    given: dict[str, Port] = {"x": (np.float32, ["batch", FEATURE_TICKS, 40])}
    return writer.model("tick_lstm", given, {"probabilities": (np.float32, ["batch", 3])})


def _lstm(writer: Writer, lstm: Any, layer: int, x: str) -> tuple[Any, Any]:
    """All steps [steps, 1, batch, units] and the last one [1, batch, units]. torch orders the gates i, f, g, o; ONNX i, o, f, c."""

    def gates(name: str) -> Any:
        i, f, g, o = np.split(_array(getattr(lstm, f"{name}_l{layer}")), 4)
        return np.concatenate([i, o, f, g])

    bias = np.concatenate([gates("bias_ih"), gates("bias_hh")])[None]
    results = writer.add("LSTM", x, gates("weight_ih")[None], gates("weight_hh")[None], bias, hidden_size=UNITS, outputs=2)
    return results[0], results[1]


def _answer(writer: Writer, head: Any, last: str) -> None:
    logits = writer.add("Gemm", writer.add("Squeeze", last, np.array([0])), _array(head.weight), _array(head.bias), transB=1)
    writer.add("Softmax", logits, axis=-1, name="probabilities")


def _array(tensor: Any) -> Any:
    return tensor.detach().numpy()
