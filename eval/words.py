"""Eight bytes of text at a time, for the compiled parsers: unaligned loads, and all digits of a word at once."""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eval.compiled import compiled

_ZEROS = np.uint64(0x3030303030303030)
_BEYOND_NINE = np.uint64(0x7676767676767676)  # lifts every byte above 9 to 128 or more
_TOP_BITS = np.uint64(0x8080808080808080)
_PAIRS, _FOURS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_JOIN_1, _JOIN_2, _JOIN_4 = np.uint64(2561), np.uint64(6553601), np.uint64(42949672960001)
_8, _16, _32, _64 = np.uint64(8), np.uint64(16), np.uint64(32), np.uint64(64)


@intrinsic
def load_word(typing_context, text, at):
    """The bytes text[at : at + 8] as one little-endian uint64; the caller vouches for their being there."""

    def code(context, builder, signature, arguments):
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        word = builder.load(place)
        word.align = 1
        return word

    return types.uint64(text, types.intp), code


@intrinsic
def trailing_zeros(typing_context, word):
    """How many of the lowest bits of a uint64 other than 0 are 0."""

    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), code


@compiled
def leading_digits(word):
    """(value, count) of the decimal digits that a word of text begins with, count 0 to 8."""
    digits = word ^ _ZEROS  # 0 to 9 where there was a digit
    # A carry out of a byte that is none reaches later bytes only.
    others = ((digits + _BEYOND_NINE) | digits) & _TOP_BITS
    if others == 0:
        count = _8
    else:
        count = trailing_zeros(others) // _8
        if count == 0:
            return np.uint64(0), 0
        digits = digits << (_64 - count * _8)  # leading zeros instead of what follows
    # Neighbours join: to two digits in 16 bits, four in 32, eight in 64.
    digits = (digits * _JOIN_1) >> _8
    digits = ((digits & _PAIRS) * _JOIN_2) >> _16
    return ((digits & _FOURS) * _JOIN_4) >> _32, np.int64(count)
