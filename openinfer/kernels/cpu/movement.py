"""Moves elements between strided layouts: transposes, slices, concatenation, padding, gathering. Independent of what the bytes mean."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.pointers import POINTERS, u8, u16, u32, u64

WORDS = {1: u8, 2: u16, 4: u32, 8: u64}


@functools.cache
def strided_copy(*, item_bytes: int, outer: int) -> Any:
    """strided_copy(source, destination, start_source, start_destination, n, step_source, step_destination, sizes…, source strides…,
    destination strides…, low, high): all in elements; a block is one row of `n` elements."""
    dims = [f"d{axis}" for axis in range(outer)]
    header = ["source", "destination", "start_s", "start_d", "n", "step_s", "step_d", *dims]
    header += [f"s{axis}" for axis in range(outer)] + [f"t{axis}" for axis in range(outer)] + ["low", "high"]
    lines = [
        f"def kernel({', '.join(header)}):",
        "    p, q = W(source), W(destination)",
        "    for row in range(low, high):",
        "        rest = row",
    ]
    for axis in reversed(range(outer)):
        lines += [f"        i{axis} = rest % d{axis}", f"        rest = rest // d{axis}"] if axis else ["        i0 = rest"]
    lines.append("        a = start_s" + "".join(f" + i{axis} * s{axis}" for axis in range(outer)))
    lines.append("        b = start_d" + "".join(f" + i{axis} * t{axis}" for axis in range(outer)))
    lines += [
        "        if step_s == 1 and step_d == 1:",
        "            for i in range(n):",
        "                q[b + i] = p[a + i]",
        "        else:",
        "            for i in range(n):",
        "                q[b + i * step_d] = p[a + i * step_s]",
    ]
    namespace: dict[str, Any] = {"W": WORDS[item_bytes], "__name__": "openinfer.generated"}
    exec(compile("\n".join(lines), "<openinfer strided copy>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


@functools.cache
def fill(*, item_bytes: int, block: int) -> Any:
    """fill(value, destination, count, low, high): `value` is the address of one element."""
    word = WORDS[item_bytes]

    @nb.njit(error_model="numpy")
    def kernel(value: int, destination: int, count: int, low: int, high: int) -> None:
        content, write = word(value)[0], word(destination)
        for i in range(low * block, min(high * block, count)):
            write[i] = content

    return kernel


@functools.cache
def gather(*, item_bytes: int, index: str) -> Any:
    """gather(data, indices, out, axis_size, index_count, inner, low, high): out[o, j, :] = data[o, indices[j], :]; a block is one (o, j).

    `indices` are of the dtype `index`; a negative one counts from the end; one outside the axis writes zeros. Returns how many did.
    """
    word, index_pointer = WORDS[item_bytes], POINTERS[index]

    @nb.njit(error_model="numpy")
    def kernel(data: int, indices: int, out: int, axis_size: int, index_count: int, inner: int, low: int, high: int) -> int:
        read, write, places = word(data), word(out), index_pointer(indices)
        wrong = 0
        for block in range(low, high):
            j = block % index_count
            at = int(places[j])
            at = at + axis_size if at < 0 else at
            if 0 <= at < axis_size:
                start = (block // index_count * axis_size + at) * inner
                for i in range(inner):
                    write[block * inner + i] = read[start + i]
            else:
                wrong += 1
                for i in range(inner):
                    write[block * inner + i] = 0
        return wrong

    return kernel
