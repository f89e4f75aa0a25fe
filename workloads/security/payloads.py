"""What flows carry, as bytes: documents, records, code and ciphertext. Some hide a dropper at a random place: a sled, a decoder, an encoded
body. Half of the others hold a decoy, which begins like one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from openinfer.workloads.trace import Trace

LENGTH = 2048
WORDS = b"the of and to in is that for it as was with be by on not he this are or his from at which but have an had".split()
HEADERS = (b"GET /", b"POST /", b"HTTP/1.1 200 OK\r\n", b"Host: ", b"Content-Length: ", b"Accept: */*\r\n", b"<div class=", b"\r\n\r\n")
# Frequent in compiled programs; and instructions of one byte without much of an effect.
OPCODES = np.frombuffer(bytes.fromhex("554889e5488b4508c3e8ff0f85c0740a31c98d7514ebc390909041ff25"), np.uint8)
SLED = np.frombuffer(bytes.fromhex("9041424344454647484a4b4c4d4e4f99"), np.uint8)
Bytes = npt.NDArray[np.uint8]
Generator = np.random.Generator


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` payloads, half of them with a dropper (label 1) in `assault`, one in twenty in `office`."""
    generator = np.random.default_rng((seed, 3))
    labels = (generator.random(requests) < {"office": 0.05, "assault": 0.5}[name]).astype(np.int64)
    return Trace({"bytes": np.stack([payload(generator, bool(label)) for label in labels])}, labels=labels)


def payload(generator: Generator, malicious: bool) -> Bytes:
    """`LENGTH` bytes."""
    kinds = (text, records, code, ciphertext)
    cut = int(generator.integers(LENGTH))
    parts = [kinds[generator.integers(len(kinds))](generator, size) for size in (cut, LENGTH - cut)]
    data = np.concatenate(parts)
    if malicious or generator.random() < 0.5:
        found = dropper(generator) if malicious else decoy(generator)
        begin = int(generator.integers(LENGTH - len(found)))
        data[begin : begin + len(found)] = found
    return data


def text(generator: Generator, size: int) -> Bytes:
    """Words, and lines of a protocol between them."""
    parts = []
    length = 0
    while length < size:
        pool = HEADERS if generator.random() < 0.15 else WORDS
        parts.append(pool[generator.integers(len(pool))] + b" ")
        length += len(parts[-1])
    return np.frombuffer(b"".join(parts), np.uint8)[:size].copy()


def records(generator: Generator, size: int) -> Bytes:
    """Records of equal width: a counter, a few fields that repeat, zeros."""
    width = int(generator.integers(8, 33))
    rows = np.zeros((-(-size // width), width), np.uint8)
    rows[:, 0] = np.arange(len(rows))
    rows[:, 1 : width // 2] = generator.integers(0, 256, width // 2 - 1)
    rows[generator.random(len(rows)) < 0.3, width // 2] = generator.integers(256)
    return rows.reshape(-1)[:size]


def code(generator: Generator, size: int) -> Bytes:
    """Bytes as frequent as in compiled programs, and random operands."""
    return np.where(generator.random(size) < 0.6, generator.choice(OPCODES, size), generator.integers(0, 256, size)).astype(np.uint8)


def ciphertext(generator: Generator, size: int) -> Bytes:
    """Even bytes."""
    return generator.integers(0, 256, size, np.uint8)


def dropper(generator: Generator) -> Bytes:
    """A sled of 8 to 24 bytes; a loop that decodes by exclusive or, with a random register, key and length, three in ten of its bytes
    replaced, as by instructions that do the same; 40 to 120 bytes encoded.
    """
    size, key, register = int(generator.integers(40, 121)), int(generator.integers(1, 256)), int(generator.integers(6))
    loop = [0xEB, 0x0D, 0x58 + register, 0x31, 0xC9, 0xB1, size, 0x80, 0x74, 0x08 + register, 0xFF, key, 0xE2, 0xF9, 0xEB, 0x05, 0xE8]
    loop += [0xEE, 0xFF, 0xFF, 0xFF]
    replaced = np.where(generator.random(len(loop)) < 0.3, generator.integers(0, 256, len(loop)), loop).astype(np.uint8)
    return np.concatenate([_sled(generator), replaced, generator.choice(OPCODES, size) ^ np.uint8(key)])


def decoy(generator: Generator) -> Bytes:
    """Padding of one-byte instructions as compilers write it, and code behind it."""
    return np.concatenate([_sled(generator), code(generator, 60)])


def _sled(generator: Generator) -> Bytes:
    return generator.choice(SLED, int(generator.integers(8, 25)))
