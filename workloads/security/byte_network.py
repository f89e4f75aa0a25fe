"""Trains and writes the byte network: MalConv's shape, narrower (Raff et al., Malware detection by eating a whole EXE, 2017).

Bytes are embedded; two convolutions over windows of 32 bytes, one the other's gate; the largest answer of each filter over all windows;
two dense layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads.security.payloads import LENGTH, generate

from openinfer.engine import load

TRAINING, HELD_OUT = 9201, 9301
PAYLOADS = 8000
Rates = tuple[float, float, float]
EMBEDDED, FILTERS, WINDOW, STRIDE, HIDDEN = 8, 64, 32, 16, 32


class ByteNetwork(torch.nn.Module):  # type: ignore[misc]  # torch's types are not read, see pyproject.toml
    """The network in torch; it answers the logit of "malicious"."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(256, EMBEDDED)
        self.feature = torch.nn.Conv1d(EMBEDDED, FILTERS, WINDOW, STRIDE)
        self.gate = torch.nn.Conv1d(EMBEDDED, FILTERS, WINDOW, STRIDE)
        self.hidden = torch.nn.Linear(FILTERS, HIDDEN)
        self.output = torch.nn.Linear(HIDDEN, 1)

    def forward(self, data: Any) -> Any:
        """Logits `[batch, 1]` of bytes `[batch, LENGTH]`."""
        embedded = self.embedding(data.int()).transpose(1, 2)
        gated = self.feature(embedded) * torch.sigmoid(self.gate(embedded))
        return self.output(torch.relu(self.hidden(gated.amax(2))))


def build(path: Path, train: Callable[..., None], detection: Callable[[Any, Any, int], Rates]) -> Rates:
    """Train, write to `path`, and measure."""
    torch.manual_seed(1)
    trace, network = generate("assault", PAYLOADS, TRAINING), ByteNetwork()
    labels = torch.from_numpy(np.asarray(trace.labels, np.float32)[:, None])
    train(network, torch.from_numpy(trace.inputs["bytes"]), labels, torch.nn.functional.binary_cross_entropy_with_logits, 8, 64)
    onnx.save(exported(network), path)
    held = generate("assault", PAYLOADS, HELD_OUT)
    with load(path) as engine:
        return detection(engine.run(dict(held.inputs))["malicious"][:, 0], np.asarray(held.labels), 40)


def exported(network: ByteNetwork) -> onnx.ModelProto:
    """The network as a checked model with a symbolic batch: bytes (uint8) to the probability of "malicious"."""
    values = {name.replace(".", "_"): value.detach().numpy() for name, value in network.named_parameters()}
    values |= {name: values[name].T.copy() for name in ("hidden_weight", "output_weight")}
    nodes = [
        helper.make_node("Cast", ["bytes"], ["index"], to=TensorProto.INT32),
        helper.make_node("Gather", ["embedding_weight", "index"], ["embedded"], axis=0),
        helper.make_node("Transpose", ["embedded"], ["channels"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["channels", "feature_weight", "feature_bias"], ["feature"], strides=[STRIDE]),
        helper.make_node("Conv", ["channels", "gate_weight", "gate_bias"], ["gate"], strides=[STRIDE]),
        helper.make_node("Sigmoid", ["gate"], ["opening"]),
        helper.make_node("Mul", ["feature", "opening"], ["gated"]),
        helper.make_node("ReduceMax", ["gated"], ["found"], axes=[2], keepdims=0),
        helper.make_node("Gemm", ["found", "hidden_weight", "hidden_bias"], ["dense"]),
        helper.make_node("Relu", ["dense"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "output_weight", "output_bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["malicious"]),
    ]
    graph = helper.make_graph(
        nodes,
        "byte_network",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["batch", LENGTH])],
        [helper.make_tensor_value_info("malicious", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="openinfer")
    onnx.checker.check_model(proto)
    return proto
