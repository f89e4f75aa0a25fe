"""Bit-mask traversal of a tile of rows: every split of a tree is tried on all rows at once, no row branches.

for each word: kept = all ones, a 64-bit lane per row
               for each entry: kept = kept & mask where x[slot] > threshold (true for NaN), else kept
               a row whose kept is not 0 has its leaf: the word's first leaf + the number of kept's trailing zeros
sum: per row four float64 chains over the leaves' values, by the tree's position, as the walk has them
"""

from __future__ import annotations

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from openinfer.kernels.cpu.pointers import i64
from openinfer.kernels.cpu.vectors import I32, I64, VectorType

SUMS = 4


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType())


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def find(dtype: str, lanes: int, groups: int) -> Any:
    """find(tile, thresholds, slots, masks, words, count, found): the leaf, in bit order, of each of `lanes` · `groups` rows and each tree
    into `found` ([trees, rows] int32). `tile` is [slots, rows].
    """
    rows = lanes * groups
    vector = VectorType(dtype, lanes)
    words_type, whole_type = ir.VectorType(I64, lanes), ir.VectorType(I32, lanes)

    @intrinsic
    def try_word(
        typing_context: Any, tile: Any, thresholds: Any, slots: Any, masks: Any, begin: Any, end: Any, found: Any, base: Any
    ) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            tile, thresholds, slots, masks = (_pointer(builder, a) for a in args[:4])
            begin, end, found, base = args[4:]
            before = builder.basic_block
            loop, done = builder.append_basic_block("entries"), builder.append_basic_block("leaf")
            ones = ir.Constant(words_type, [-1] * lanes)
            builder.cbranch(builder.icmp_signed("<", begin, end), loop, done)
            builder.position_at_end(loop)
            index = builder.phi(I64)
            index.add_incoming(begin, before)
            kept = [builder.phi(words_type) for _ in range(groups)]
            limit = _splat(builder, vector.load_scalar(builder, thresholds, index), lanes)
            slot = builder.sext(builder.load(builder.gep(slots, [index], source_etype=I32), align=4, typ=I32), I64)
            mask = _splat(builder, builder.load(builder.gep(masks, [index], source_etype=I64), align=8, typ=I64), lanes)
            row = builder.mul(slot, ir.Constant(I64, rows))
            left = []
            for g, word in enumerate(kept):
                word.add_incoming(ones, before)
                x = vector.load(builder, tile, builder.add(row, ir.Constant(I64, g * lanes)))
                left.append(builder.select(builder.fcmp_unordered(">", x, limit), builder.and_(word, mask), word))
                word.add_incoming(left[-1], loop)
            following = builder.add(index, ir.Constant(I64, 1))
            index.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, end), loop, done)
            builder.position_at_end(done)
            final = [builder.phi(words_type) for _ in range(groups)]
            for g, word in enumerate(final):
                word.add_incoming(ones, before)
                word.add_incoming(left[g], loop)
            for g, word in enumerate(final):
                kind = ir.FunctionType(words_type, [words_type, ir.IntType(1)])
                zeros = cgutils.get_or_insert_function(builder.module, kind, f"llvm.cttz.v{lanes}i64")
                position = builder.trunc(builder.call(zeros, [word, ir.Constant(ir.IntType(1), 0)]), whole_type)
                leaf = builder.add(position, _splat(builder, builder.trunc(base, I32), lanes))
                place = builder.gep(_pointer(builder, found), [ir.Constant(I64, g * lanes)], source_etype=I32)
                other = builder.load(place, align=4, typ=whole_type)
                nothing = builder.icmp_signed("==", word, ir.Constant(words_type, [0] * lanes))
                builder.store(builder.select(nothing, other, leaf), place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), emit

    @nb.njit(error_model="numpy")
    def all_words(tile: int, thresholds: int, slots: int, masks: int, words: int, count: int, found: int) -> None:
        word = i64(words)
        for w in range(count):
            try_word(tile, thresholds, slots, masks, word[w * 3], word[w * 3 + 3], found + word[w * 3 + 1] * (4 * rows), word[w * 3 + 2])

    return all_words


def add_up(dtype: str, lanes: int, groups: int) -> Any:
    """add_up(found, values, trees, totals): the sum of each row's leaves in float64."""
    rows = lanes * groups
    value, double = VectorType(dtype, 8), VectorType("float64", 8)

    @intrinsic
    def gather_add(typing_context: Any, found: Any, values: Any, first: Any, trees: Any, totals: Any) -> Any:
        """Eight rows from row `first` on."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found, values, first, trees, totals = args
            found, totals = _pointer(builder, found), _pointer(builder, totals)
            chains = [cgutils.alloca_once_value(builder, double.constant(0.0)) for _ in range(SUMS)]
            whole = builder.and_(trees, ir.Constant(I64, -SUMS))

            def add(tree: Any, chain: Any) -> None:
                at = builder.add(builder.mul(tree, ir.Constant(I64, rows)), first)
                leaf = builder.load(builder.gep(found, [at], source_etype=I32), align=4, typ=ir.VectorType(I32, 8))
                total = builder.load(chain, typ=double.type)
                builder.store(builder.fadd(total, _gather(builder, value, double, values, leaf)), chain)

            with cgutils.for_range_slice(builder, ir.Constant(I64, 0), whole, ir.Constant(I64, SUMS), I64) as (tree, _):
                for s, chain in enumerate(chains):
                    add(builder.add(tree, ir.Constant(I64, s)), chain)
            for s in range(SUMS - 1):
                tree = builder.add(whole, ir.Constant(I64, s))
                with builder.if_then(builder.icmp_signed("<", tree, trees)):
                    add(tree, chains[s])
            t = [builder.load(chain, typ=double.type) for chain in chains]
            double.store(builder, builder.fadd(builder.fadd(builder.fadd(t[0], t[1]), t[2]), t[3]), totals, first)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp, types.intp), emit

    @nb.njit(error_model="numpy")
    def all_rows(found: int, values: int, trees: int, totals: int) -> None:
        for first in range(0, rows, 8):
            gather_add(found, values, first, trees, totals)

    return all_rows


def _gather(builder: Any, value: VectorType, double: VectorType, base: Any, index: Any) -> Any:
    """values[index] for eight indices, in float64; `base` is the address as an integer: llvmlite has no getelementptr of vectors."""
    far = builder.mul(builder.sext(index, ir.VectorType(I64, 8)), ir.Constant(ir.VectorType(I64, 8), [value.item_bytes] * 8))
    places = builder.inttoptr(builder.add(_splat(builder, base, 8), far), ir.VectorType(ir.PointerType(), 8))
    bits = ir.VectorType(ir.IntType(1), 8)
    kind = ir.FunctionType(value.type, [ir.VectorType(ir.PointerType(), 8), I32, bits, value.type])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.gather.{value.suffix}.v8p0")
    every = ir.Constant(bits, [1] * 8)
    read = builder.call(function, [places, ir.Constant(I32, value.item_bytes), every, value.constant(0.0)])
    return builder.fpext(read, double.type) if value.dtype == "float32" else read
