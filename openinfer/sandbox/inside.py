"""The worker's life, inside the lock-down: wait for requests in the ring, answer them in order, until it is killed.

It has no descriptors and can open none; what it knows of the outside is the ring. Errors cross as text.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from openinfer.errors import InputError, OpenInferError
from openinfer.ir.graph import ITEM_BYTES, Signature
from openinfer.sandbox import messages, native
from openinfer.sandbox.messages import BIND, DYNAMIC, NEEDS, STATIC, UNBIND, MalformedError, Place
from openinfer.sandbox.regions import rounded
from openinfer.sandbox.ring import (
    CALL,
    DATA_BYTES,
    DONE,
    FAILED,
    LINE,
    POSTED,
    POSTED_WAITERS,
    QUEUE,
    SLOTS,
    STATE,
    STATES,
    TAKEN,
    UNKNOWN_CALL,
    WAITERS,
    Ring,
    Words,
)

_LOOK_AGAIN_NS = 1_000_000_000


class Target(Protocol):
    """What a worker serves: an `Engine`, or a stand-in for one."""

    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]

    def bind(self, inputs: Any, outputs: Any = None) -> Any: ...

    def run(self, inputs: Any) -> dict[str, Any]: ...


class Inside:
    """The calls that this worker has bound, over one ring."""

    def __init__(self, ring: Ring, target: Target, spin_us: int) -> None:
        self._ring, self._target, self._spin_ns = ring, target, spin_us * 1000
        self._calls: dict[int, Callable[[Words], object]] = {}
        # Made before the lock-down: linking code needs what it takes away.
        self._wait, self._post = native.wait(), native.post()

    def serve(self) -> None:
        """Answer requests for ever."""
        words, wait, post = self._ring.words, self._wait, self._post
        posted, waiters = self._ring.word(POSTED), self._ring.word(POSTED_WAITERS)
        gc.freeze()
        head = 0
        while True:
            if words[POSTED] == head:
                wait(posted, head, waiters, 0, self._spin_ns, _LOOK_AGAIN_NS)
                continue
            slot = int(words[QUEUE + head % SLOTS])
            head += 1
            if not 0 <= slot < SLOTS:
                continue
            base = STATES + slot * LINE
            words[base + TAKEN] = 1
            state = self._answer(slot, int(words[base + CALL]))
            post(self._ring.word(base + STATE), state, self._ring.word(base + WAITERS))

    def _answer(self, slot: int, call: int) -> int:
        message = self._ring.message(slot)
        try:
            if call < 0:
                return self._manage(message)
            bound = self._calls.get(call)
            if bound is None:
                return UNKNOWN_CALL
            bound(message)
        except Exception as error:
            messages.write_error(message, type(error).__name__, str(error))
            return FAILED
        return DONE

    def _manage(self, message: Words) -> int:
        request = message.copy()
        if request[0] == UNBIND:
            for call in request[2 : 2 + max(0, min(int(request[1]), len(request) - 2))]:
                self._calls.pop(int(call), None)
            return DONE
        if request[0] != BIND:
            raise MalformedError(f"unknown request {int(request[0])}")
        call, offset, size_bytes = (int(word) for word in request[1:4])
        stop = offset + size_bytes
        if offset < DATA_BYTES or size_bytes < 0 or stop > self._ring.size_bytes:
            raise MalformedError(f"a window of {size_bytes} bytes at {offset} lies outside the ring")
        places = messages.read_places(request, 5, self._target.inputs, DATA_BYTES, self._ring.size_bytes)
        inputs = self._views(places, self._target.inputs)
        try:
            shapes = {name: array.shape for name, array in self._target.bind(inputs).outputs.items()}
        except InputError:
            # Part of the model runs on the fallback, or for these shapes; `run` says what is wrong where something is.
            self._calls[call] = self._dynamic(inputs, offset, stop)
            message[:2] = DYNAMIC, 0
            return DONE
        laid_out = layout([shapes[signature.name] for signature in self._target.outputs], self._target.outputs, offset)
        if laid_out[1] > stop:
            message[:2] = NEEDS, laid_out[1] - offset
            return DONE
        bound = self._target.bind(inputs, self._views(laid_out[0], self._target.outputs))
        self._calls[call] = lambda _: bound()
        message[0] = STATIC
        message[1] = len(laid_out[0])
        messages.write_places(message, 2, laid_out[0])
        return DONE

    def _dynamic(self, inputs: dict[str, Any], offset: int, stop: int) -> Callable[[Words], object]:
        """A call whose outputs' shapes are known afterwards only."""
        signatures = self._target.outputs

        def call(message: Words) -> None:
            results = self._target.run(inputs)
            arrays = [np.asarray(results[signature.name]) for signature in signatures]
            for array, signature in zip(arrays, signatures, strict=True):
                if array.dtype.name != signature.dtype:
                    raise OpenInferError(f"output {signature.name!r} is {array.dtype}, not {signature.dtype}; it cannot leave the sandbox")
            places, end = layout([array.shape for array in arrays], signatures, offset)
            if end > stop:
                message[:2] = NEEDS, end - offset
                return
            for view, array in zip(self._views(places, signatures).values(), arrays, strict=True):
                view[...] = array
            message[:2] = DYNAMIC, len(places)
            messages.write_places(message, 2, places)

        return call

    def _views(self, places: list[Place], signatures: tuple[Signature, ...]) -> dict[str, Any]:
        return {
            signature.name: np.frombuffer(self._ring.memory, signature.dtype, math.prod(place.shape), place.offset).reshape(place.shape)
            for place, signature in zip(places, signatures, strict=True)
        }


def layout(shapes: list[tuple[int, ...]], signatures: tuple[Signature, ...], offset: int) -> tuple[list[Place], int]:
    """Tensors one after another from `offset`, each on a cache line; the places, and the offset after the last."""
    places = []
    for shape, signature in zip(shapes, signatures, strict=True):
        places.append(Place(offset, tuple(shape)))
        offset += rounded(math.prod(shape) * ITEM_BYTES[signature.dtype])
    return places, offset
