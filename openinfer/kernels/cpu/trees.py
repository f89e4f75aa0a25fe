"""Tree ensembles, row by row (`tree_walk`) or a tile of rows at a time (`tree_bits`): whichever is cheaper for the rows at hand.

Both find the same leaves and add them in the same order: for one target, four float64 chains by the tree's position in the file, joined in
order; otherwise tree by tree (`tree_scores`).
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu import tree_bits
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS, f64, i32, i64
from openinfer.kernels.cpu.tree_scores import scorer
from openinfer.kernels.cpu.tree_walk import walk

SUMS = tree_bits.SUMS


@functools.cache
def trees(
    *,
    width: int,
    bits: int,
    features: int,
    mirrored: bool,
    given: str,
    dtype: str,
    tile_lanes: int,
    tile_groups: int,
    tile_least: int,
    aggregate: str,
    transform: str,
    targets: int,
    binary: int,
    classes: int,
    out: str,
) -> Any:
    """trees(x, nodes, starts, base, offsets, weight_targets, weights, class_labels, thresholds, slots, masks, words, leaves, row, places,
    queue, sums, tile, found, labels, y, padded, count, word_count, low, high): a block is a row.

    `given` is the input's dtype, `dtype` that of comparisons. From `tile_least` rows on they are taken by tiles of `tile_lanes` ·
    `tile_groups` rows; 0 never does. `targets` = 0: one target, the leaves hold their values, `base` is (divisor, base value).
    """
    real, cast, read = POINTERS[dtype], NUMBA_TYPES[dtype], POINTERS[given]
    slots_of_row = 2 * features if mirrored else features
    walk_row = walk(width, bits, slots_of_row, dtype)
    tile_rows = tile_lanes * tile_groups
    plain = targets == 0
    number = i32 if dtype == "float32" else i64
    write, rounded = POINTERS[out], NUMBA_TYPES[out]
    score: Any = (
        None if plain else scorer(aggregate=aggregate, transform=transform, targets=targets, binary=binary, classes=classes, dtype=out)
    )

    @nb.njit(error_model="numpy")
    def plain_score(nodes: int, places: int, base: int, padded: int) -> Any:
        threshold, place, factors = real(nodes), i32(places), f64(base)
        t0 = t1 = t2 = t3 = 0.0
        for g in range(0, padded - padded % 4, 4):
            t0 += threshold[i64_(place[g]) * 2]
            t1 += threshold[i64_(place[g + 1]) * 2]
            t2 += threshold[i64_(place[g + 2]) * 2]
            t3 += threshold[i64_(place[g + 3]) * 2]
        rest = padded - padded % 4
        if padded % 4 > 0:
            t0 += threshold[i64_(place[rest]) * 2]
        if padded % 4 > 1:
            t1 += threshold[i64_(place[rest + 1]) * 2]
        if padded % 4 > 2:
            t2 += threshold[i64_(place[rest + 2]) * 2]
        return (((t0 + t1) + t2) + t3) / factors[0] + factors[1]

    @nb.njit(error_model="numpy")
    def leaves_of(nodes: int, places: int, count: int) -> None:
        numbers, place = number(nodes), i32(places)
        for tree in range(count):
            place[tree] = numbers[i64_(place[tree]) * 2]

    i64_ = nb.int64

    @nb.njit(error_model="numpy")
    def one_row(
        x: int, nodes: int, starts: int, base: int, o: int, t: int, w: int, c: int, row: int, places: int, queue: int, sums: int,
        labels: int, y: int, padded: int, count: int, index: int,
    ) -> None:  # fmt: skip
        source, mine = read(x), real(row)
        for j in range(features):
            value = cast(source[index * features + j])
            mine[j] = value
            if mirrored:
                mine[features + j] = -value
        walk_row(row, nodes, starts, places, queue, padded)
        if plain:
            write(y)[index] = rounded(plain_score(nodes, places, base, padded))
        else:
            leaves_of(nodes, places, count)
            score(places, count, base, o, t, w, sums, c, labels, y, index)

    if tile_least == 0:

        @nb.njit(error_model="numpy")
        def by_rows(
            x: int, nodes: int, starts: int, base: int, o: int, t: int, w: int, c: int, thresholds: int, slots: int, masks: int, words: int,
            leaves: int, row: int, places: int, queue: int, sums: int, tile: int, found: int, labels: int, y: int, padded: int, count: int,
            word_count: int, low: int, high: int,
        ) -> None:  # fmt: skip
            mine = real(row)
            mine[slots_of_row] = mine[slots_of_row + 1] = -np.inf
            for index in range(low, high):
                one_row(x, nodes, starts, base, o, t, w, c, row, places, queue, sums, labels, y, padded, count, index)

        return by_rows

    find_leaves = tree_bits.find(dtype, tile_lanes, tile_groups)
    add_up = tree_bits.add_up(dtype, tile_lanes, tile_groups)

    @nb.njit(error_model="numpy")
    def load_tile(x: int, tile: int, first: int, rows: int) -> None:
        source, cell = read(x), real(tile)
        for r in range(tile_rows):
            # Lanes without a row of their own repeat the last one.
            line = (first + min(r, rows - 1)) * features
            for j in range(features):
                value = cast(source[line + j])
                cell[j * tile_rows + r] = value
                if mirrored:
                    cell[(features + j) * tile_rows + r] = -value

    @nb.njit(error_model="numpy")
    def by_tiles(
        x: int, nodes: int, starts: int, base: int, o: int, t: int, w: int, c: int, thresholds: int, slots: int, masks: int, words: int,
        leaves: int, row: int, places: int, queue: int, sums: int, tile: int, found: int, labels: int, y: int, padded: int, count: int,
        word_count: int, low: int, high: int,
    ) -> None:  # fmt: skip
        mine = real(row)
        mine[slots_of_row] = mine[slots_of_row + 1] = -np.inf
        index = low
        while index < high:
            rows = min(tile_rows, high - index)
            if rows >= tile_least:
                load_tile(x, tile, index, rows)
                find_leaves(tile, thresholds, slots, masks, words, word_count, found)
                if plain:
                    add_up(found, leaves, count, sums)
                    total, factors, result = f64(sums), f64(base), write(y)
                    for r in range(rows):
                        result[index + r] = rounded(total[r] / factors[0] + factors[1])
                else:
                    leaf, numbers, place = i32(found), i32(leaves), i32(places)
                    for r in range(rows):
                        for tree in range(count):
                            place[tree] = numbers[leaf[tree * tile_rows + r]]
                        score(places, count, base, o, t, w, sums, c, labels, y, index + r)
            else:
                for k in range(index, index + rows):
                    one_row(x, nodes, starts, base, o, t, w, c, row, places, queue, sums, labels, y, padded, count, k)
            index += rows

    return by_tiles
