"""Messages between a parent and its child: one JSON document and the arrays it names, length-prefixed, over a socket.

No pickle: what a child sends can be a wrong number, never code. Frame: uint32 size of the JSON, uint64 size of the arrays, both payloads.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from typing import Any

import numpy as np

_HEAD = struct.Struct("<IQ")
_MAX_JSON_BYTES = 1 << 28
_MAX_ARRAY_BYTES = 1 << 36


class ChannelClosed(EOFError):
    """The other side has gone."""


def send(connection: socket.socket, values: dict[str, Any]) -> None:
    """Send JSON-able values; top-level values that are arrays travel as raw bytes."""
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    layout = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps([plain, layout], separators=(",", ":")).encode()
    payload = b"".join(array.tobytes() for array in arrays.values())
    try:
        connection.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)
    except (BrokenPipeError, ConnectionResetError):
        raise ChannelClosed("the other side closed the channel") from None


def receive(connection: socket.socket, deadline: float | None = None, limit_bytes: int = _MAX_ARRAY_BYTES) -> dict[str, Any]:
    """The next message; `ChannelClosed` at the end, `ValueError` on a malformed frame or one of more than `limit_bytes`, `TimeoutError`
    where it is not complete at `deadline` (`time.monotonic()`, s).
    """
    text_bytes, payload_bytes = _HEAD.unpack(_exactly(connection, _HEAD.size, deadline))
    if text_bytes > min(_MAX_JSON_BYTES, limit_bytes) or payload_bytes > limit_bytes:
        raise ValueError(f"frame of {text_bytes} + {payload_bytes} bytes is larger than this channel carries")
    text = _exactly(connection, text_bytes, deadline)
    payload = _exactly(connection, payload_bytes, deadline)
    try:
        return _decoded(text, payload)
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the message is no document with its arrays: {type(error).__name__}") from None


def _decoded(text: bytearray, payload: bytearray) -> dict[str, Any]:
    values, layout = json.loads(text)
    payload_bytes = len(payload)
    offset = 0
    for name, code, shape in layout:
        dtype = np.dtype(code)
        count = math.prod(shape)
        if dtype.hasobject or count < 0 or offset + count * dtype.itemsize > payload_bytes:
            raise ValueError(f"array {name!r} of {code} {shape} does not fit its frame")
        values[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape).copy()
        offset += count * dtype.itemsize
    return dict(values)


def remaining_s(deadline: float) -> float:
    """Seconds until `deadline`, at least a millisecond: a time-out of 0 would make a socket non-blocking."""
    return max(0.001, deadline - time.monotonic())


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            connection.settimeout(remaining_s(deadline))
        try:
            count = connection.recv_into(view)
        except ConnectionResetError:
            count = 0
        if count == 0:
            raise ChannelClosed("the other side closed the channel")
        view = view[count:]
    return data
