"""Reading and writing at indices that only the call knows. A negative index counts from the end; one outside the axis reads zero and
writes nothing, and is counted: gathers and scatters return how many did so.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.lines import line_start
from openinfer.kernels.cpu.movement import WORDS
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS

COMBINE = {
    "none": "v",
    "add": "write[to] + v",
    "mul": "write[to] * v",
    "max": "v if v > write[to] or v != v else write[to]",
    "min": "v if v < write[to] or v != v else write[to]",
}


@functools.cache
def gather_elements(*, item_bytes: int, index: str, rank: int, axis: int) -> Any:
    """gather_elements(x, indices, y, size, dims…, strides…, low, high): y[p] = x[p with coordinate `axis` from indices[p]].

    `dims` are those of the indices, `strides` those of x in elements, `size` is x's axis; a block is one element.
    """
    body = ["write[block] = read[to] if inside else 0", "wrong += 0 if inside else 1"]
    names = ["x", "indices", "y"]
    return _elementwise(names, body, WORDS[item_bytes], WORDS[item_bytes], index, rank, axis, "for block in range(low, high):")


@functools.cache
def scatter_elements(*, dtype: str, index: str, rank: int, axis: int, reduction: str) -> Any:
    """scatter_elements(updates, indices, y, size, dims…, strides…, low, high): the updates go to y in their order; one block in all."""
    body = ["if inside:", "    v = read[block]", f"    write[to] = cast({COMBINE[reduction]})", "else:", "    wrong += 1"]
    names = ["updates", "indices", "y"]
    count = " * ".join(["1", *(f"d{i}" for i in range(rank))])
    return _elementwise(
        names, body, POINTERS[dtype], POINTERS[dtype], index, rank, axis, f"for block in range({count} if low < high else 0):", dtype
    )


def _elementwise(
    names: list[str], body: list[str], source: Any, destination: Any, index: str, rank: int, axis: int, loop: str, dtype: str = "float64"
) -> Any:
    header = [*names, "size", *(f"d{i}" for i in range(rank)), *(f"s{i}" for i in range(rank)), "low", "high"]
    lines = [f"def kernel({', '.join(header)}):", f"    read, places, write = source({names[0]}), indexed({names[1]}), destination(y)"]
    lines += ["    wrong = 0", f"    {loop}", "        rest, to = block, 0"]
    for i in reversed(range(rank)):
        lines.append(f"        i, rest = rest % d{i}, rest // d{i}")
        if i != axis:
            lines.append(f"        to += i * s{i}")
    lines += ["        at = int(places[block])", "        at = at + size if at < 0 else at", "        inside = 0 <= at < size"]
    lines += [f"        to += at * s{axis}", *(f"        {line}" for line in body), "    return wrong"]
    namespace: dict[str, Any] = {
        "source": source,
        "destination": destination,
        "indexed": POINTERS[index],
        "cast": NUMBA_TYPES[dtype],
        "__name__": "openinfer.generated",
    }
    exec(compile("\n".join(lines), "<openinfer indexing>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


@functools.cache
def gather_slices(*, item_bytes: int, depth: int) -> Any:
    """gather_slices(x, indices, y, rows, batch_elements, inner, dims…, strides…, low, high): a block is one row of `depth` int64 indices,
    which names a slice of `inner` elements; `rows` rows belong to each of the batches of `batch_elements` elements of x.
    """
    lines = [
        f"def kernel(x, indices, y, rows, batch_elements, inner, {_list(depth)}, low, high):",
        "    read, places, write = word(x), indexed(indices), word(y)",
        "    wrong = 0",
        "    for block in range(low, high):",
        "        to, inside = block // rows * batch_elements, True",
        *_slice_address(depth),
        "        if inside:",
        "            for j in range(inner):",
        "                write[block * inner + j] = read[to + j]",
        "        else:",
        "            wrong += 1",
        "            for j in range(inner):",
        "                write[block * inner + j] = 0",
        "    return wrong",
    ]
    namespace: dict[str, Any] = {"word": WORDS[item_bytes], "indexed": POINTERS["int64"], "__name__": "openinfer.generated"}
    exec(compile("\n".join(lines), "<openinfer gather>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


@functools.cache
def scatter_slices(*, dtype: str, depth: int, reduction: str) -> Any:
    """scatter_slices(updates, indices, y, rows, inner, dims…, strides…, low, high): slices go to y in their order; one block in all."""
    lines = [
        f"def kernel(updates, indices, y, rows, inner, {_list(depth)}, low, high):",
        "    read, places, write = pointer(updates), indexed(indices), pointer(y)",
        "    wrong = 0",
        "    for block in range(rows if low < high else 0):",
        "        to, inside = 0, True",
        *_slice_address(depth),
        "        if inside:",
        "            for j in range(inner):",
        "                v = read[block * inner + j]",
        f"                write[to] = cast({COMBINE[reduction]})",
        "                to += 1",
        "        else:",
        "            wrong += 1",
        "    return wrong",
    ]
    namespace: dict[str, Any] = {
        "pointer": POINTERS[dtype],
        "indexed": POINTERS["int64"],
        "cast": NUMBA_TYPES[dtype],
        "__name__": "openinfer.generated",
    }
    exec(compile("\n".join(lines), "<openinfer scatter>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


def _list(depth: int) -> str:
    return ", ".join([*(f"d{i}" for i in range(depth)), *(f"s{i}" for i in range(depth))])


def _slice_address(depth: int) -> list[str]:
    lines = []
    for i in range(depth):
        lines += [
            f"        at = places[block * {depth} + {i}]",
            f"        at = at + d{i} if at < 0 else at",
            f"        inside = inside and 0 <= at < d{i}",
            f"        to += at * s{i}",
        ]
    return lines


@functools.cache
def one_hot(*, index: str, item_bytes: int) -> Any:
    """one_hot(indices, values, y, depth, inner, low, high): y[o, :, i] is values[1] at indices[o, i] and values[0] elsewhere; a block is
    one (o, i). An index outside the axis leaves values[0] everywhere.
    """
    word, index_pointer = WORDS[item_bytes], POINTERS[index]

    @nb.njit(error_model="numpy")
    def kernel(indices: int, values: int, y: int, depth: int, inner: int, low: int, high: int) -> None:
        places, content, write = index_pointer(indices), word(values), word(y)
        off, on = content[0], content[1]
        for block in range(low, high):
            at = int(places[block])
            at = at + depth if at < 0 else at
            start = line_start(block, depth, inner)
            for i in range(depth):
                write[start + i * inner] = on if i == at else off

    return kernel
