"""What kernels that are written in LLVM's vector instructions have in common.

A mask is read as 32-bit words, a word for 32 elements, and the word itself is the vector predicate of
whatever runs over its set bits: LLVM keeps it in a mask register where the processor has them and makes it a
blend elsewhere.

numba's cache looks at the file of a compiled function only. Whoever changes this file changes theirs, too.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

WORD = 32
"""Elements that one word of a mask stands for."""

BOOL, INT32, INT64, FLOAT32, FLOAT64 = (
    ir.IntType(1),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
    ir.DoubleType(),
)


def data_of(context: Any, builder: Any, *, kind: Any, value: Any) -> Any:
    """Where an array's elements begin."""
    return context.make_array(kind)(context, builder, value=value).data


def place_at(builder: Any, pointer: Any, index: Any, *, vector: Any = None) -> Any:
    """Where element `index` lies, or the vector that begins with it."""
    place = builder.gep(pointer, [index])
    return place if vector is None else builder.bitcast(place, vector.as_pointer())


def splat(builder: Any, value: Any) -> Any:
    """A vector of the value in each of a word's lanes."""
    vector = ir.VectorType(FLOAT32, WORD)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, WORD), [0] * WORD))


def llvm_function(builder: Any, name: str, vector: Any, *, num_arguments: int) -> Any:
    """LLVM's own function of this name for vectors of this type."""
    kind = ir.FunctionType(vector, [vector] * num_arguments)
    name = f"{name}.v{vector.count}f{32 if vector.element == FLOAT32 else 64}"
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
