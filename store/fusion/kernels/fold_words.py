"""The fusion of a chunk, compiled for the CPU.

Sums are kept in fixed lanes and added up in a fixed order, so that a result does not depend on how wide the
processor's registers are, nor on the number of threads. The functions are compiled when this module is first
imported, and kept in numba's cache.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt32
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from store.fusion.kernels.vectors import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    WORD,
    data_of,
    llvm_function,
    place_at,
    splat,
)

_LANES = 8
_PLANES = 3
_TILE_WORDS = 16
"""Words a tile: its planes of float64 are 12 KiB and stay in the first-level cache."""
_ROWS_TOGETHER = 2
"""Tasks that share each load of the planes."""
_ZERO = np.float32(0.0)


@no_type_check
def _voted(context: Any, builder: Any, *, kinds: Any, values: Any) -> tuple[list[Any], list[Any]]:
    """All rows' votes on the elements of a word, added to what votes and largest hold: (sums, their places).

    Takes the arguments that _vote_word and _decide_word share.
    """
    rows_, num_rows_, word_, rescalers_, votes_, largest_, place_ = values
    array = context.make_array(kinds[0])(context, builder, value=rows_)
    stride = cgutils.unpack_tuple(builder, array.shape)[1]
    vector = ir.VectorType(FLOAT32, WORD)
    first = builder.mul(place_, INT64(WORD))
    places = [
        place_at(builder, data_of(context, builder, kind=kind, value=value), first, vector=vector)
        for kind, value in ((kinds[4], votes_), (kinds[5], largest_))
    ]
    votes, largest = (cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in places)
    factors = data_of(context, builder, kind=kinds[3], value=rescalers_)
    with cgutils.for_range(builder, num_rows_) as row:
        bits = builder.load(place_at(builder, array.data, builder.add(builder.mul(row.index, stride), word_)))
        everywhere = splat(builder, builder.load(place_at(builder, factors, row.index)))
        chosen = builder.bitcast(bits, ir.VectorType(BOOL, WORD))
        owned = builder.select(chosen, everywhere, ir.Constant(vector, None))
        builder.store(builder.fadd(builder.load(votes), owned), votes)
        before = builder.load(largest)
        larger = builder.fcmp_ordered(">", owned, before)
        builder.store(builder.select(larger, owned, before), largest)
    return [builder.load(votes), builder.load(largest)], places


@intrinsic
@no_type_check
def _vote_word(
    _typing: Any,
    rows: Any,
    num_rows: Any,
    word: Any,
    rescalers: Any,
    votes: Any,
    largest: Any,
    place: Any,
) -> Any:
    """All rows' votes on a word: at `place`, votes += lambda M and largest = max(largest, lambda M)."""

    @no_type_check
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, places = _voted(context, builder, kinds=signature.args, values=arguments)
        for value, where in zip(sums, places, strict=True):
            builder.store(value, where, align=4)
        return context.get_dummy_value()

    return types.void(rows, num_rows, word, rescalers, votes, largest, place), generate


@intrinsic
@no_type_check
def _decide_word(
    _typing: Any,
    rows: Any,
    num_rows: Any,
    word: Any,
    rescalers: Any,
    votes: Any,
    largest: Any,
    place: Any,
    unified: Any,
    delta: Any,
    out: Any,
) -> Any:
    """The new unified delta of a word's elements, from all rows' votes and those at `place`."""

    @no_type_check
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (votes_, largest_), _ = _voted(context, builder, kinds=signature.args[:7], values=arguments[:7])
        vector = ir.VectorType(FLOAT32, WORD)
        zero = ir.Constant(vector, None)
        first = builder.mul(arguments[2], INT64(WORD))
        old_at, new_at, out_at = (
            place_at(builder, data_of(context, builder, kind=kind, value=value), first, vector=vector)
            for kind, value in zip(signature.args[7:], arguments[7:], strict=True)
        )
        u, d = (builder.load(place, align=4) for place in (old_at, new_at))
        vote = builder.fadd(builder.fmul(u, votes_), d)
        positive = builder.fcmp_ordered(">", vote, zero)
        magnitude = llvm_function(builder, "llvm.fabs", vector, num_arguments=1)
        sizes = []
        for value, size in (
            (u, builder.fmul(builder.call(magnitude, [u]), largest_)),
            (d, builder.call(magnitude, [d])),
        ):
            above, below = (builder.fcmp_ordered(sign, value, zero) for sign in "><")
            agrees = builder.select(positive, above, below)
            sizes.append(builder.select(agrees, size, zero))
        larger = builder.select(builder.fcmp_ordered(">", *sizes), *sizes)
        signed = builder.select(positive, larger, builder.fsub(zero, larger))
        builder.store(signed, out_at, align=4)
        return context.get_dummy_value()

    return (
        types.void(rows, num_rows, word, rescalers, votes, largest, place, unified, delta, out),
        generate,
    )


@intrinsic
@no_type_check
def _same_signs(_typing: Any, one: Any, other: Any, word: Any) -> Any:
    """The word whose bits are set where both floats have one sign and neither is zero."""

    @no_type_check
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(FLOAT32, WORD)
        zero = ir.Constant(vector, None)
        first = builder.mul(arguments[2], INT64(WORD))
        values = []
        for kind, argument in zip(signature.args[:2], arguments[:2], strict=True):
            place = place_at(
                builder, data_of(context, builder, kind=kind, value=argument), first, vector=vector
            )
            values.append(builder.load(place, align=4))
        both = [builder.and_(*(builder.fcmp_ordered(sign, x, zero) for x in values)) for sign in "<>"]
        return builder.bitcast(builder.or_(*both), INT32)

    return types.uint32(one, other, word), generate


@intrinsic
@no_type_check
def _tile_l1(_typing: Any, floats: Any, word: Any, num_words: Any) -> Any:
    """Sum |x| over a tile, in the order of _add_products: so lambda of a task alone is 1, not nearly 1."""

    @no_type_check
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        floats_, word_, num_words_ = arguments
        narrow, wide = ir.VectorType(FLOAT32, _LANES), ir.VectorType(FLOAT64, _LANES)
        data = data_of(context, builder, kind=signature.args[0], value=floats_)
        magnitude = llvm_function(builder, "llvm.fabs", wide, num_arguments=1)
        total = cgutils.alloca_once_value(builder, ir.Constant(wide, None))
        with cgutils.for_range(builder, num_words_) as tile:
            first = builder.mul(builder.add(word_, tile.index), INT64(WORD))
            for group in range(0, WORD, _LANES):
                place = place_at(builder, data, builder.add(first, INT64(group)), vector=narrow)
                values = builder.call(magnitude, [builder.fpext(builder.load(place, align=4), wide)])
                builder.store(builder.fadd(builder.load(total), values), total)
        return _sum_of_lanes(builder, builder.load(total))

    return types.float64(floats, word, num_words), generate


@intrinsic
@no_type_check
def _add_products(
    _typing: Any,
    rows: Any,
    row: Any,
    word: Any,
    keep: Any,
    num_words: Any,
    planes: Any,
    weight: Any,
    sums: Any,
    counts: Any,
) -> Any:
    """Clears the bits that do not keep, and adds a tile's products to the sums, for _ROWS_TOGETHER tasks.

    Per task: sums += (weight |x|, x x, x r, r r) where its bit was set, from the planes x, r and r r.
    """

    @no_type_check
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, row_, word_, _, num_words_, _, weight_, _, _ = arguments
        array = context.make_array(signature.args[0])(context, builder, value=arguments[0])
        stride = cgutils.unpack_tuple(builder, array.shape)[1]
        keep_data, planes_data, sums_data, counts_data = (
            data_of(context, builder, kind=signature.args[index], value=arguments[index])
            for index in (3, 5, 7, 8)
        )
        numbers = [builder.add(row_, INT64(offset)) for offset in range(_ROWS_TOGETHER)]
        nothing = ir.Constant(ir.VectorType(FLOAT64, _LANES), None)
        sums_of = [[cgutils.alloca_once_value(builder, nothing) for _ in range(4)] for _ in numbers]
        counts_of = [[cgutils.alloca_once_value(builder, INT64(0)) for _ in range(2)] for _ in numbers]
        with cgutils.for_range(builder, num_words_) as tile:
            kept = builder.load(place_at(builder, keep_data, tile.index))
            words = []
            for number, count in zip(numbers, counts_of, strict=True):
                position = builder.add(builder.mul(number, stride), builder.add(word_, tile.index))
                words.append(
                    _clear_word(builder, place_at(builder, array.data, position), kept, counts=count)
                )
            planes_here = place_at(builder, planes_data, builder.mul(tile.index, INT64(_PLANES * WORD)))
            _add_owned(builder, planes_here, words, sums_of=sums_of)
        for number, totals, count in zip(numbers, sums_of, counts_of, strict=True):
            sums_here = [_sum_of_lanes(builder, builder.load(total)) for total in totals]
            sums_here[0] = builder.fmul(weight_, sums_here[0])
            _add_to(builder, sums_data, number, values=sums_here, add=builder.fadd)
            counts_here = [builder.load(total) for total in count]
            _add_to(builder, counts_data, number, values=counts_here, add=builder.add)
        return context.get_dummy_value()

    arguments = (rows, row, word, keep, num_words, planes, weight, sums, counts)
    return types.void(*arguments), generate


def _clear_word(builder: Any, place: Any, keep: Any, *, counts: list[Any]) -> Any:
    """The word's bits before; in its place stand those that keep. Both are counted."""
    before = builder.load(place)
    after = builder.and_(before, keep)
    builder.store(after, place)
    for bits, total in zip((before, after), counts, strict=True):
        ones = builder.zext(builder.ctpop(bits), INT64)
        builder.store(builder.add(builder.load(total), ones), total)
    return before


def _add_owned(builder: Any, planes: Any, words: list[Any], *, sums_of: list[list[Any]]) -> None:
    """Each row's sums += |x|, x x, x r, r r where the row's bit is set, from the planes x, r and r r.

    Products of float32s are exact in float64, so that it makes no difference whether a processor fuses them
    with the addition. Two additions and two fused ones keep both kinds of unit busy.
    """
    vector = ir.VectorType(FLOAT64, _LANES)
    for group in range(0, WORD, _LANES):
        x, r, square = (
            builder.load(place_at(builder, planes, INT64(plane * WORD + group), vector=vector), align=8)
            for plane in range(_PLANES)
        )
        magnitude = builder.call(llvm_function(builder, "llvm.fabs", vector, num_arguments=1), [x])
        fused = llvm_function(builder, "llvm.fmuladd", vector, num_arguments=3)
        for word, (total, total_xx, total_xr, total_rr) in zip(words, sums_of, strict=True):
            lanes = builder.trunc(builder.lshr(word, INT32(group)), ir.IntType(_LANES))
            chosen = builder.bitcast(lanes, ir.VectorType(BOOL, _LANES))
            sums = [builder.load(place) for place in (total, total_xx, total_xr, total_rr)]
            added = (
                builder.fadd(sums[0], magnitude),
                builder.call(fused, [x, x, sums[1]]),
                builder.call(fused, [x, r, sums[2]]),
                builder.fadd(sums[3], square),
            )
            for place, before, after in zip((total, total_xx, total_xr, total_rr), sums, added, strict=True):
                builder.store(builder.select(chosen, after, before), place)


def _add_to(builder: Any, table: Any, row: Any, *, values: list[Any], add: Any) -> None:
    for column, value in enumerate(values):
        place = place_at(builder, table, builder.add(builder.mul(row, INT64(len(values))), INT64(column)))
        builder.store(add(builder.load(place), value), place)


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    parts = [builder.extract_element(vector, INT32(lane)) for lane in range(_LANES)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [builder.fadd(parts[k], parts[k + half]) for k in range(half)]
    return parts[0]


_F, _W = "float32[::1]", "uint32[:,::1]"
Floats = Float32[np.ndarray, " elements"]
Rows = UInt32[np.ndarray, "rows words"]
Words = UInt32[np.ndarray, " words"]


@njit(f"void({_W}, int64, int64, {_F}, {_F}, {_F})", nogil=True, cache=True)
@no_type_check
def vote(
    rows: Rows, num_rows: int, num_words: int, rescalers: Floats, votes: Floats, largest: Floats
) -> None:
    """Add the first rows' votes: votes += lambda M, largest = max(largest, lambda M), row by row."""
    for word in range(num_words):
        _vote_word(rows, num_rows, word, rescalers, votes, largest, word)


@njit(f"void({_W}, int64, {_F}, {_F}, {_F}, {_F}, {_F}, {_F})", nogil=True, cache=True)
@no_type_check
def decide(
    rows: Rows,
    num_rows: int,
    rescalers: Floats,
    unified: Floats,
    delta: Floats,
    votes: Floats,
    largest: Floats,
    out: Floats,
) -> None:
    """Add the first rows' votes to those given, and form the new unified delta; see store.fusion.condu.

    Where nobody has voted before, votes and largest are the zeros of one word.
    """
    has_earlier = votes.shape[0] > WORD
    for word in range(unified.shape[0] // WORD):
        place = word if has_earlier else 0
        _decide_word(rows, num_rows, word, rescalers, votes, largest, place, unified, delta, out)


@njit(f"float64({_F}, int64[::1], float64[::1])", nogil=True, cache=True)
@no_type_check
def weighted_l1(
    values: Floats, bounds: Int64[np.ndarray, " cuts"], weights: Float64[np.ndarray, " segments"]
) -> float:
    """Sum of weight |x|; `bounds` count words."""
    total = 0.0
    for segment in range(weights.shape[0]):
        for first in range(bounds[segment], bounds[segment + 1], _TILE_WORDS):
            num_words = min(_TILE_WORDS, bounds[segment + 1] - first)
            total += weights[segment] * _tile_l1(values, first, num_words)
    return total


@njit(f"void({_F}, uint32[::1])", nogil=True, cache=True)
@no_type_check
def mark_nonzero(values: Floats, words: Words) -> None:
    """Set the bits of the values that are not zero."""
    for word in range(words.shape[0]):
        words[word] = _same_signs(values, values, word)


@njit(
    f"void({_W}, int64, {_F}, {_F}, int64[::1], float64[::1], float64[:,::1], int64[:,::1])",
    nogil=True,
    cache=True,
)
@no_type_check
def fold_rows(
    rows: Rows,
    num_rows: int,
    old: Floats,
    new: Floats,
    bounds: Int64[np.ndarray, " cuts"],
    weights: Float64[np.ndarray, " segments"],
    sums: Float64[np.ndarray, "rows 4"],
    counts: Int64[np.ndarray, "rows 2"],
) -> None:
    """A bit stays where old and new have one sign.

    Per row, with x = new and r = old: sums += (sum weight |x|, sum x x, sum x r) over the bits that stay and
    sum r r over all; counts += the bits before and after.
    """
    olds, news = old.reshape(-1, WORD), new.reshape(-1, WORD)
    keep = np.empty(_TILE_WORDS, np.uint32)
    planes = np.empty((_TILE_WORDS, _PLANES, WORD))
    for segment in range(weights.shape[0]):
        for first in range(bounds[segment], bounds[segment + 1], _TILE_WORDS):
            num_words = min(_TILE_WORDS, bounds[segment + 1] - first)
            for i in range(num_words):
                keep[i] = _same_signs(old, new, first + i)
                for j in range(WORD):
                    r, x = np.float64(olds[first + i, j]), np.float64(news[first + i, j])
                    # A product is positive where the signs are one; float64 has no underflow of float32s.
                    planes[i, 0, j] = x if x * r > 0.0 else 0.0
                    planes[i, 1, j] = r
                    planes[i, 2, j] = r * r
            for row in range(0, num_rows, _ROWS_TOGETHER):
                _add_products(rows, row, first, keep, num_words, planes, weights[segment], sums, counts)
