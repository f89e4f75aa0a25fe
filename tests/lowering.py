"""Runs one node through its operator's `infer` and `lower` and the kernels they name, without the engine around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.config import EngineConfig
from openinfer.ir.graph import Node, TensorType
from openinfer.kernels.cpu import registry as kernels
from openinfer.machine import host
from openinfer.ops import registry
from openinfer.ops._base import Alias, NotCompiled, Packed, Scratch, Target, Value

GUARD = 64  # poisoned bytes on both sides of every output


def run_node(
    node: Node,
    inputs: Mapping[str, np.ndarray],
    constants: Sequence[str] = (),
    *,
    threads: int = 1,
    engine: EngineConfig | None = None,
) -> list[np.ndarray | None]:
    """The node's outputs, in order (`None` for an absent one).

    Inputs named in `constants` count as model constants (they may be packed). `threads` splits every step's blocks into as many ranges,
    run in reverse order, so that a hidden dependence between blocks shows. Outputs and scratch start as 0xFF bytes (NaN).
    """
    operator = registry.find(node.domain, node.op)
    if operator is None:
        raise NotCompiled(f"no operator {node.domain}:{node.op}")
    given = [_value(name, inputs[name], name in constants) if name else None for name in node.inputs]
    types = operator.infer(node, given)
    outputs = [Value(name, kind) if name else None for name, kind in zip(node.outputs, types, strict=False)]
    storage: dict[str, np.ndarray] = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    before = {name: array.tobytes() for name, array in storage.items()}
    guards: dict[str, np.ndarray] = {}
    for output in outputs:
        if output is not None:
            guards[output.name], storage[output.name] = _poisoned(output.type)
    packed: dict[str, np.ndarray] = {}
    scratch: dict[str, np.ndarray] = {}
    for action in operator.lower(node, given, outputs, Target(host(), engine or EngineConfig())):
        if isinstance(action, Alias):
            source = storage[action.source.name]
            storage[action.output.name] = source.reshape(-1).view(source.dtype).reshape(action.output.shape)
            guards.pop(action.output.name, None)
            continue
        kernel = kernels.make(action.kernel, dict(action.statics))
        for thread in reversed(range(threads)):
            low, high = action.blocks * thread // threads, action.blocks * (thread + 1) // threads
            addresses = []
            for operand in action.operands:
                if isinstance(operand, Packed):
                    if operand.key not in packed:
                        packed[operand.key] = _aligned(operand.make())
                    addresses.append(packed[operand.key].ctypes.data)
                elif isinstance(operand, Scratch):
                    if operand.name not in scratch:
                        scratch[operand.name] = _aligned(
                            np.full(operand.size_bytes * (threads if operand.per_thread else 1) + 64, 0xFF, np.uint8)
                        )
                    addresses.append(scratch[operand.name].ctypes.data + (thread * operand.size_bytes if operand.per_thread else 0))
                else:
                    addresses.append(storage[operand.name].ctypes.data)
            kernel(*addresses, *action.sizes, low, high)
    for name, guard in guards.items():
        assert (guard[:GUARD] == 0xFF).all() and (guard[-GUARD:] == 0xFF).all(), f"{node.op} wrote outside {name}"
    for name, content in before.items():
        assert storage[name].tobytes() == content, f"{node.op} changed its input {name}"
    return [None if output is None else storage[output.name] for output in outputs]


def make_node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), *, version: int = 22, domain: str = "", **attributes: Any
) -> Node:
    """A node as the frontend makes it: attribute values are numbers, strings, arrays or tuples of them."""
    return Node(op, tuple(inputs), tuple(outputs), attributes, domain, version)


def _value(name: str, array: np.ndarray, constant: bool) -> Value:
    return Value(name, TensorType(array.dtype.name, array.shape), array if constant else None, constant)


def _poisoned(kind: TensorType) -> tuple[np.ndarray, np.ndarray]:
    whole = _aligned(np.full(kind.size_bytes + 2 * GUARD, 0xFF, np.uint8))
    return whole, whole[GUARD : GUARD + kind.size_bytes].view(kind.dtype).reshape(kind.shape)


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a 64-byte boundary."""
    flat = np.ascontiguousarray(array)
    raw = np.empty(flat.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    place = raw[start : start + flat.nbytes]
    place[...] = flat.reshape(-1).view(np.uint8)
    return place.view(flat.dtype).reshape(flat.shape)
