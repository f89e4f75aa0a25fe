"""Requests and answers that carry more than a call's number, as int64 words in a slot's message area.

    BIND     [BIND, call, window offset, window bytes, inputs, (offset, rank, dimensions…) an input]
      answer [form, outputs, (offset, rank, dimensions…) an output], form STATIC or DYNAMIC; or [NEEDS, bytes] for a larger window
    UNBIND   [UNBIND, calls, call …]
    the answer to a DYNAMIC call: as to BIND

Both sides read a private copy, and believe nothing in it: every number is checked before it is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import ITEM_BYTES, Signature
from openinfer.sandbox.ring import ALIGNMENT, MESSAGE_WORDS, Words

BIND, UNBIND = 1, 2
STATIC, DYNAMIC, NEEDS = 0, 1, 2
MAX_RANK = 16
_MAX_ELEMENTS = 1 << 40


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor in the ring: offset in bytes, and shape."""

    offset: int
    shape: tuple[int, ...]


class MalformedError(ValueError):
    """The other side wrote something that no honest side writes."""


def write_places(words: Words, at: int, places: Sequence[Place]) -> int:
    """Write places from word `at`; the word after them. `MalformedError` where they do not fit a message."""
    flat = [number for place in places for number in (place.offset, len(place.shape), *place.shape)]
    if at + len(flat) > MESSAGE_WORDS:
        raise MalformedError(f"{len(places)} tensors take {at + len(flat)} words; a message has {MESSAGE_WORDS}")
    words[at : at + len(flat)] = flat
    return at + len(flat)


def read_places(words: Words, at: int, signatures: Sequence[Signature], start: int, stop: int) -> list[Place]:
    """Places of the tensors of `signatures` from a private copy of a message, each inside [start, stop) and aligned; else
    `MalformedError`.
    """
    places = []
    for signature in signatures:
        if at + 2 > len(words):
            raise MalformedError("the message ends before its tensors do")
        offset, rank = int(words[at]), int(words[at + 1])
        if not 0 <= rank <= MAX_RANK or at + 2 + rank > len(words):
            raise MalformedError(f"{signature.name!r} has rank {rank}; allowed: 0 to {MAX_RANK}")
        shape = tuple(int(size) for size in words[at + 2 : at + 2 + rank])
        if any(size < 0 for size in shape) or any(size > _MAX_ELEMENTS for size in shape):
            raise MalformedError(f"{signature.name!r} has shape {shape}")
        if not fits_signature(shape, signature):
            raise MalformedError(f"{signature.name!r} has shape {shape}; its signature says {signature.shape}")
        size_bytes = math.prod(shape) * ITEM_BYTES[signature.dtype]
        if offset % ALIGNMENT or offset < start or offset + size_bytes > stop:
            raise MalformedError(f"{signature.name!r} of {size_bytes} bytes at {offset} lies outside [{start}, {stop})")
        places.append(Place(offset, shape))
        at += 2 + rank
    return places


def fits_signature(shape: Sequence[int], signature: Signature) -> bool:
    """Whether a shape has the rank and the fixed dimensions of a signature."""
    if signature.shape is None:
        return True
    return len(shape) == len(signature.shape) and all(
        not isinstance(wanted, int) or size == wanted for size, wanted in zip(shape, signature.shape, strict=True)
    )


def write_error(words: Words, kind: str, text: str) -> None:
    """An error's class name and its message, cut to what fits."""
    data = f"{kind}\0{text}".encode(errors="replace")[: 8 * (MESSAGE_WORDS - 1)]
    words[0] = len(data)
    words[1:].view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)


def read_error(words: Words) -> tuple[str, str]:
    """The class name and the message from a private copy: printable, on one line, at most 500 characters."""
    length = min(max(int(words[0]), 0), 8 * (MESSAGE_WORDS - 1))
    kind, _, text = words[1:].tobytes()[:length].decode(errors="replace").partition("\0")
    return _printable(kind)[:60], _printable(text)[:500]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
