"""The rebuild of an expert's chunk, compiled for the CPU when this module is first imported."""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, UInt32
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from store.fusion.kernels.vectors import BOOL, FLOAT32, INT32, INT64, WORD, data_of, place_at, splat

STREAM_BYTES = 64
"""What a buffer's address must be a multiple of to be written past the caches."""

_F = "float32[::1]"
Floats = Float32[np.ndarray, " elements"]
Words = UInt32[np.ndarray, " words"]


def _word_rebuild(*, streams: bool) -> Any:
    """An intrinsic: the 32 elements of a word, base + rescaler * unified where its bit is set, else base.

    With `streams` they go to memory past the caches, which need not read what is overwritten: a third less
    traffic, for buffers that start at a multiple of 64 bytes.
    """

    @intrinsic
    @no_type_check
    def rebuild(_typing: Any, base: Any, unified: Any, word: Any, bits: Any, rescaler: Any, out: Any) -> Any:
        @no_type_check
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(FLOAT32, WORD)
            first = builder.mul(arguments[2], INT64(WORD))
            theta_at, delta_at, out_at = (
                place_at(
                    builder,
                    data_of(context, builder, kind=signature.args[index], value=arguments[index]),
                    first,
                    vector=vector,
                )
                for index in (0, 1, 5)
            )
            theta, delta = (builder.load(place, align=4) for place in (theta_at, delta_at))
            expert = builder.fadd(theta, builder.fmul(splat(builder, arguments[4]), delta))
            owned = builder.bitcast(arguments[3], ir.VectorType(BOOL, WORD))
            store = builder.store(builder.select(owned, expert, theta), out_at, align=64 if streams else 4)
            if streams:
                store.set_metadata("nontemporal", builder.module.add_metadata([INT32(1)]))
            return context.get_dummy_value()

        return types.void(base, unified, word, bits, rescaler, out), generate

    return rebuild


_rebuild_word, _stream_word = _word_rebuild(streams=False), _word_rebuild(streams=True)


@njit(f"void({_F}, {_F}, uint32[::1], float32, {_F})", nogil=True, cache=True)
@no_type_check
def rebuild(base: Floats, unified: Floats, words: Words, rescaler: np.float32, out: Floats) -> None:
    """Fill `out` with base + rescaler (M * unified)."""
    for word in range(words.shape[0]):
        _rebuild_word(base, unified, word, words[word], rescaler, out)


@njit(f"void({_F}, {_F}, uint32[::1], float32, {_F})", nogil=True, cache=True)
@no_type_check
def rebuild_streaming(base: Floats, unified: Floats, words: Words, rescaler: np.float32, out: Floats) -> None:
    """Fill a buffer that starts at a multiple of STREAM_BYTES with base + rescaler (M * unified)."""
    for word in range(words.shape[0]):
        _stream_word(base, unified, word, words[word], rescaler, out)
