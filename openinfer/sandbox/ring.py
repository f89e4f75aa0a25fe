"""The shared memory between an engine and its worker: where each word lies, and the two sides' views of it.

    page 0            words, a cache line each: POSTED (how many requests were posted), its WAITERS, READY (1 once
                      a worker is locked, and a bit for each wall), GO (the number of the worker that is to answer)
    then              QUEUE: the slots in the order of their posting
    then              SLOTS, a cache line each: STATE, its WAITERS, CALL (which), TAKEN (the worker has begun)
    then              MESSAGES, one area a slot: int64 words, or the text of an error
    from DATA         tensors

The parent makes the memory, sealed so that nobody can shrink it under the other, before the worker is locked. Whoever reads a message
copies it first and checks the copy: the other side may still be writing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import sys
from typing import Any

import numpy as np

SLOTS = 64
LINE = 8  # words in a cache line
POSTED, POSTED_WAITERS, READY, READY_WAITERS, GO, GO_WAITERS = (line * LINE for line in range(6))
QUEUE = 512
STATES = 1024  # slot k: the four words below from STATES + k·LINE
STATE, WAITERS, CALL, TAKEN = 0, 1, 2, 3
MESSAGES = 2048
MESSAGE_WORDS = 1024
DATA_BYTES = 8 * (MESSAGES + SLOTS * MESSAGE_WORDS)
ALIGNMENT = 64

# What STATE says. TAKEN is a word of its own, so that a waiter sleeps through the beginning of its request.
QUEUED, DONE, UNKNOWN_CALL, FAILED, LOST = range(5)

Words = np.ndarray[Any, np.dtype[np.int64]]


class Ring:
    """One worker's shared memory of `size_bytes`: `words` are the control words, `data(offset, …)` tensors, `address` the first byte."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.size_bytes = len(memory)
        self.words: Words = np.frombuffer(memory, np.int64, DATA_BYTES // 8)
        self.address = int(self.words.ctypes.data)

    def owner(self, offset: int, size_bytes: int) -> ctypes.Array[ctypes.c_char]:
        """Bytes from `offset` as an object that keeps the memory alive and can be watched for its end."""
        return (ctypes.c_char * size_bytes).from_buffer(self.memory, offset)

    def message(self, slot: int) -> Words:
        """A view of a slot's message area."""
        start = MESSAGES + slot * MESSAGE_WORDS
        return self.words[start : start + MESSAGE_WORDS]

    def word(self, index: int) -> int:
        """Address of a control word."""
        return self.address + 8 * index


def create(size_bytes: int) -> tuple[int, Ring]:
    """A sealed memory file of at least `size_bytes` for tensors, its descriptor and its mapping, kept out of core dumps."""
    total = -(-(DATA_BYTES + size_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    descriptor = os.memfd_create("openinfer-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, total)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor, Ring(_mapped(descriptor, total))
    except BaseException:
        os.close(descriptor)
        raise


def attach(descriptor: int) -> Ring:
    """The worker's mapping of a ring; the descriptor may be closed afterwards."""
    return Ring(_mapped(descriptor, os.fstat(descriptor).st_size))


def _mapped(descriptor: int, total: int) -> mmap.mmap:
    memory = mmap.mmap(descriptor, total, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_DONTDUMP)
    return memory
