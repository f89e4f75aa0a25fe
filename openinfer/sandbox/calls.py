"""Calls over the ring: memory for inputs and outputs that both sides see, bound once, then called with nothing."""

from __future__ import annotations

import collections
import ctypes
import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from openinfer.config import SandboxConfig
from openinfer.errors import SandboxError, SealedError
from openinfer.ir.graph import ITEM_BYTES, Signature
from openinfer.sandbox import messages
from openinfer.sandbox.client import Client, Ticket
from openinfer.sandbox.host import Source, named_error
from openinfer.sandbox.inside import layout
from openinfer.sandbox.messages import BIND, DYNAMIC, NEEDS, STATIC, UNBIND, MalformedError, Place
from openinfer.sandbox.regions import Regions
from openinfer.sandbox.ring import ALIGNMENT, DATA_BYTES, DONE, FAILED, SLOTS, UNKNOWN_CALL, Ring, Words

_FIRST_WINDOW_BYTES = 64 << 10
_KEPT_SHAPES = 32
_REBINDS = 16

Shapes = tuple[tuple[int, ...], ...]
_Result = TypeVar("_Result")


class Call:
    """Inputs and outputs of fixed shapes in the ring. One thread at a time. `outputs` is None where shapes vary from call to call."""

    def __init__(self, calls: Calls, shapes: Shapes, window_bytes: int, given: Mapping[str, Any] | None = None) -> None:
        self._calls = calls
        self.shapes = shapes
        self.number = next(calls.client.numbers)
        inputs, outputs = calls.client.description.inputs, calls.client.description.outputs
        at = [calls.offset(given[signature.name]) if given else None for signature in inputs]
        new = [index for index, offset in enumerate(at) if offset is None]
        head = layout([shapes[index] for index in new], tuple(inputs[index] for index in new), 0)[1]
        size = head + window_bytes
        offset, self._memory = calls.take(size)
        weakref.finalize(self, calls.stale.append, self.number).atexit = False
        self._offset, self._window = offset, (offset + head, window_bytes)
        made = iter(layout([shapes[index] for index in new], tuple(inputs[index] for index in new), offset)[0])
        self._inputs = [next(made) if old is None else Place(old, shape) for old, shape in zip(at, shapes, strict=True)]
        views = self._views([self._inputs[index] for index in new], [inputs[index] for index in new])
        self.inputs: dict[str, Any] = {
            signature.name: views[signature.name] if signature.name in views else (given or {})[signature.name] for signature in inputs
        }
        self._outputs: list[Place] | None = None
        self.needs_bytes = 0
        self._typical_ns = 0
        self.outputs: dict[str, Any] | None = None
        self._bind()
        if self._outputs is not None:
            self.outputs = self._views(self._outputs, outputs)

    def __call__(self) -> None:
        """Run once; `outputs` then holds the results. `SandboxError` where the worker was lost over it."""
        begin = time.monotonic_ns()
        (ticket,) = self._calls.client.begin(((self.number, self),))
        self.finish(ticket, self._typical_ns)
        # Falls at once, rises slowly: what is slept through must not outlast a call.
        spent, typical = time.monotonic_ns() - begin, self._typical_ns
        self._typical_ns = spent if spent < typical else typical + (spent - typical) // 8

    def finish(self, ticket: Ticket, typical_ns: int = 0) -> None:
        """Wait for a call that was posted, and give its slot back."""
        client = self._calls.client
        dynamic = self._outputs is None
        try:
            state = client.finish(ticket, typical_ns)
            for _ in range(_REBINDS):
                # Only a worker that came after the binding may not know the call.
                if state != UNKNOWN_CALL or client.replaced == self._bound_at:
                    break
                self._bind(ticket)
                client.post((ticket,), ((self.number, self),))
                state = client.finish(ticket)
            message = client.ring.message(ticket.index).copy() if dynamic or state != DONE else None
        finally:
            client.release(ticket)
        if message is not None:
            if state != DONE:
                raise self._calls.problem(state, message)
            self._read_dynamic(message)

    def clear(self) -> None:
        """Overwrite the memory that this call took with zeros."""
        np.frombuffer(memoryview(self._memory), np.uint8).fill(0)

    def _bind(self, held: Ticket | None = None) -> None:
        """Tell the worker of this call, by a slot of its own or by one that is held. Never waits for a slot while it holds one."""
        client = self._calls.client
        self._bound_at = client.replaced
        ticket = held or client.ticket()
        try:
            words = client.ring.message(ticket.index)
            words[:5] = BIND, self.number, *self._window, len(self._inputs)
            try:
                messages.write_places(words, 5, self._inputs)
            except MalformedError as error:
                raise SandboxError(f"the request does not fit a message: {error}; use sandbox.mode = 'off'") from None
            client.post((ticket,), ((-1, self),))
            state = client.finish(ticket)
            answer = words.copy()
        finally:
            if held is None:
                client.release(ticket)
        if state != DONE:
            raise self._calls.problem(state, answer)
        form = int(answer[0])
        if form == NEEDS:
            self.needs_bytes = self._needed(answer)
        elif form == STATIC:
            places = self._read(answer)
            if self._outputs is not None and places != self._outputs:
                raise SandboxError("the sandbox placed the same outputs elsewhere; load the model again")
            self._outputs = places
        elif form != DYNAMIC:
            raise SandboxError(f"the sandbox answered in an unknown form {form}; load the model again")

    def _read_dynamic(self, message: Words) -> None:
        if message[0] == NEEDS:
            self.needs_bytes, self.outputs = self._needed(message), None
        else:
            self.needs_bytes = 0
            self.outputs = self._views(self._read(message), self._calls.client.description.outputs)

    def _read(self, message: Words) -> list[Place]:
        start, size_bytes = self._window
        try:
            return messages.read_places(message, 2, self._calls.client.description.outputs, start, start + size_bytes)
        except MalformedError as error:
            raise SandboxError(f"the sandbox's answer is malformed: {error}; the model may be hostile") from None

    def _needed(self, message: Words) -> int:
        needed = int(message[1])
        if not self._window[1] < needed <= self._calls.regions.total_bytes:
            raise SandboxError(
                f"the results take {needed} bytes, the sandbox shares {self._calls.regions.total_bytes}; raise sandbox.shared_mb"
            )
        return needed

    def _views(self, places: Sequence[Place], signatures: Sequence[Signature]) -> dict[str, Any]:
        return {
            signature.name: np.frombuffer(
                memoryview(self._memory), signature.dtype, math.prod(place.shape), place.offset - self._offset
            ).reshape(place.shape)
            for place, signature in zip(places, signatures, strict=True)
        }


class Calls:
    """The calls of one sandbox. Any thread may `run`, `bind` and `run_many`; a `Call` belongs to one at a time."""

    def __init__(self, source: Source, knobs: SandboxConfig) -> None:
        self.client = Client(source, knobs)
        self.regions = Regions(DATA_BYTES, self.client.ring.size_bytes)
        self.stale: collections.deque[int] = collections.deque()
        self._wipe = knobs.wipe
        self._lock = threading.Lock()
        self._idle: dict[Shapes, list[Call]] = {}
        self._windows: dict[Shapes, int] = {}

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An uninitialised array in the ring, of a dtype in `ITEM_BYTES`: a call that is bound to it copies nothing."""
        count = math.prod(shape)
        _, memory = self.take(count * ITEM_BYTES[dtype])
        return np.frombuffer(memoryview(memory), dtype, count).reshape(shape)

    def take(self, size_bytes: int) -> tuple[int, ctypes.Array[ctypes.c_char]]:
        """Memory of the ring: its offset, and what keeps it. When that and all arrays over it are gone, it is free, and wiped if asked."""
        offset = self.regions.take(size_bytes)
        memory = self.client.ring.owner(offset, max(size_bytes, 1))
        free = _wipe_and_free if self._wipe else _free
        weakref.finalize(memory, free, self.client.ring, self.regions, offset, size_bytes).atexit = False
        return offset, memory

    def offset(self, array: Any) -> int | None:
        """Where an array lies in the ring, None where it does not."""
        offset = int(array.ctypes.data) - self.client.ring.address
        inside = offset >= DATA_BYTES and offset + array.nbytes <= self.client.ring.size_bytes
        return offset if inside and offset % ALIGNMENT == 0 else None

    def bind(self, shapes: Shapes, given: Mapping[str, Any] | None = None) -> Call:
        """A call for inputs of these shapes, in the order of the signature; arrays of `given` that lie in the ring are used in place."""
        self._unbind_stale()
        return self._with_code(shapes, lambda: self._bound(shapes, given))

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """One request: checked arrays in the signature's order in, fresh arrays out."""
        call = self._filled(arrays)
        try:
            self._with_code(call.shapes, call)
            if call.needs_bytes:
                call = self._again(call, arrays)
            answer = {name: array.copy() for name, array in (call.outputs or {}).items()}
        except Exception:
            self._release(call)
            raise
        # Not where the waiting was interrupted: the worker may still write there.
        self._release(call)
        return answer

    def _bound(self, shapes: Shapes, given: Mapping[str, Any] | None) -> Call:
        window = self._windows.get(shapes) or self._guess(shapes)
        while True:
            call = Call(self, shapes, window, given)
            if not call.needs_bytes:
                return call
            window = self._windows[shapes] = call.needs_bytes

    def _with_code(self, shapes: Shapes, action: Callable[[], _Result]) -> _Result:
        """`action`, after another load of the model where it needs code for these shapes that the last load did not make."""
        try:
            return action()
        except SealedError:
            self.client.widen(shapes)
            return action()

    def run_many(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Several requests in as few crossings as slots allow. The first that fails raises, after all have ended."""
        answers: list[dict[str, Any]] = []
        for start in range(0, len(requests), SLOTS // 2):
            answers += self._run_some(requests[start : start + SLOTS // 2])
        return answers

    def problem(self, state: int, message: Words) -> Exception:
        """The error of a request that did not succeed."""
        if state != FAILED:
            return SandboxError(f"the sandbox answered in an unknown state {state}; the model may be hostile")
        kind, text = messages.read_error(message)
        if kind == "MemoryError":
            self.client.renew(overran=True)
            return SandboxError(f"the request needs more than sandbox.memory_mb = {self.client.knobs.memory_mb} MiB; raise it if it may")
        if kind in ("InputError", "OverloadError", "SealedError"):
            return named_error(kind, text)
        return SandboxError(f"in the sandbox: {kind}: {text}")

    def _run_some(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        leases = [self._filled(arrays) for arrays in requests]
        tickets = self.client.begin([(call.number, call) for call in leases])
        failures: list[Exception | None] = []
        for index, (call, ticket) in enumerate(zip(leases, tickets, strict=True)):
            try:
                call.finish(ticket)
                failures.append(None)
            except Exception as error:
                failures.append(error)
            except BaseException:
                self.client.abandon(tickets[index + 1 :])
                raise
        answers = []
        # Only now: to bind again takes a slot, and whoever holds slots must not wait for more.
        for index, arrays in enumerate(requests):
            if failures[index] is None or isinstance(failures[index], SealedError):
                if failures[index] is not None:
                    self._with_code(leases[index].shapes, leases[index])
                    failures[index] = None
                if leases[index].needs_bytes:
                    leases[index] = self._again(leases[index], arrays)
                answers.append({name: array.copy() for name, array in (leases[index].outputs or {}).items()})
        for call in leases:
            self._release(call)
        for failure in failures:
            if failure is not None:
                raise failure
        return answers

    def _filled(self, arrays: Mapping[str, Any]) -> Call:
        call = self._lease(tuple(array.shape for array in arrays.values()))
        self.client.announce()
        for name, array in arrays.items():
            call.inputs[name][...] = array
        return call

    def _again(self, call: Call, arrays: Mapping[str, Any]) -> Call:
        """The same request with a window large enough for its results."""
        self._windows[call.shapes] = call.needs_bytes
        larger = self.bind(call.shapes)
        for name, array in arrays.items():
            larger.inputs[name][...] = array
        if self._wipe:
            call.clear()
        larger()
        if larger.needs_bytes:
            raise SandboxError("the results grew while the same request ran again; the model may be hostile")
        return larger

    def _lease(self, shapes: Shapes) -> Call:
        with self._lock:
            idle = self._idle.get(shapes)
            if idle:
                return idle.pop()
        return self.bind(shapes)

    def _release(self, call: Call) -> None:
        if self._wipe:
            call.clear()
        with self._lock:
            self._idle[call.shapes] = [*self._idle.pop(call.shapes, []), call]
            while len(self._idle) > _KEPT_SHAPES:
                self._idle.pop(next(iter(self._idle)))

    def _unbind_stale(self) -> None:
        """Tell the worker of calls that are gone; it would keep them for ever."""
        gone = [self.stale.popleft() for _ in range(min(len(self.stale), 500))]
        if gone:
            ticket = self.client.ticket()
            try:
                words = self.client.ring.message(ticket.index)
                words[: 2 + len(gone)] = UNBIND, len(gone), *gone
                self.client.post((ticket,), ((-1, None),))
                self.client.finish(ticket)
            finally:
                self.client.release(ticket)

    def _guess(self, shapes: Shapes) -> int:
        """Bytes that outputs probably take: the signature's, where the inputs bind all its symbols."""
        inputs, outputs = self.client.description.inputs, self.client.description.outputs
        bound = {
            name: size
            for signature, shape in zip(inputs, shapes, strict=True)
            for name, size in zip(signature.shape or (), shape, strict=False)
            if isinstance(name, str) and name
        }
        total = 0
        for signature in outputs:
            sizes = [bound.get(size, -1) if isinstance(size, str) else size for size in signature.shape or (-1,)]
            total += _FIRST_WINDOW_BYTES if -1 in sizes else layout([tuple(sizes)], (signature,), 0)[1]
        return max(total, 64)


def _free(shared: Ring, regions: Regions, offset: int, size_bytes: int) -> None:
    regions.give_back(offset, size_bytes)


def _wipe_and_free(shared: Ring, regions: Regions, offset: int, size_bytes: int) -> None:
    ctypes.memset(shared.address + offset, 0, size_bytes)
    regions.give_back(offset, size_bytes)
