"""Decimal text to the nearest float64, compiled, with the same result as Python's `float`.

Short numbers are exact with one floating-point operation (Clinger 1990). Longer ones multiply the digits by a
64-bit power of ten, which bounds the true value between two neighbours 2**-64 apart (the idea of Lemire,
"Number Parsing at a Gigabyte per Second", 2021); where rounding could go either way, about once in a thousand
long numbers, the caller is told to ask Python.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import math

import numpy as np

from eval.compiled import compiled
from eval.words import leading_digits, load_word

OK = 0  # the value is exact
MALFORMED = 1  # there is no number here
ASK_PYTHON = 2  # a number, perhaps, but not one this code can round with certainty

_SMALLEST_POWER, _LARGEST_POWER = -64, 38


def _powers_of_ten() -> tuple[np.ndarray, np.ndarray]:
    """10**q = mantissa * 2**exponent * (1 + e), 0 <= e < 2**-63, mantissas with the top bit of 64 set."""
    mantissas, exponents = [], []
    for q in range(_SMALLEST_POWER, _LARGEST_POWER + 1):
        numerator, denominator = (10**q, 1) if q >= 0 else (1, 10**-q)
        shift = 64 - numerator.bit_length() + denominator.bit_length()
        mantissa = (numerator << max(shift, 0)) // (denominator << max(-shift, 0))
        if mantissa >= 1 << 64:
            mantissa, shift = mantissa >> 1, shift - 1
        mantissas.append(mantissa)
        exponents.append(-shift)
    return np.array(mantissas, np.uint64), np.array(exponents, np.int64)


_POWER_MANTISSA, _POWER_EXPONENT = _powers_of_ten()
_EXACT_POWER = np.array([10.0**q for q in range(23)])
TEN_TO = np.array([10**q for q in range(9)], np.uint64)
PLAIN_BYTES = 48  # bytes that a plain number and the words read beyond it do not exceed
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_1 = np.uint64(1)
_10 = np.uint64(10)
_TOP_BIT = np.uint64(1 << 63)
_EXACT_INTEGERS = np.uint64(1 << 53)


@compiled(inline="always")
def _high_word(a, b):
    """Upper 64 bits of the 128-bit product of two uint64."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _32, b & _LOW, b >> _32
    cross_1, cross_2 = a_low * b_high, a_high * b_low
    middle = ((a_low * b_low) >> _32) + (cross_1 & _LOW) + (cross_2 & _LOW)
    return a_high * b_high + (cross_1 >> _32) + (cross_2 >> _32) + (middle >> _32)


@compiled
def _round_long(digits, power, truncated):
    """(digits * 10**power to nearest, status); `truncated`: more digits followed, it is a bit larger."""
    if power < _SMALLEST_POWER or power > _LARGEST_POWER:
        return 0.0, ASK_PYTHON
    shift = 0
    normalised = digits
    while normalised & _TOP_BIT == 0:
        normalised = normalised << _1
        shift += 1
    high = _high_word(normalised, _POWER_MANTISSA[power - _SMALLEST_POWER])
    extra = 11 if high & _TOP_BIT else 10  # bits beyond the 53 that a float64 keeps
    remainder = np.int64(high & np.uint64((1 << extra) - 1))
    half = np.int64(1) << (extra - 1)
    # The true product is `high` plus less than `slack`: the dropped low words, and the dropped digits.
    slack = 2 + ((np.int64(1) << shift) if truncated else 0)
    mantissa = np.int64(high >> np.uint64(extra))
    if remainder > half:
        mantissa += 1
    elif remainder + slack > half:
        return 0.0, ASK_PYTHON
    exponent = extra + 64 + _POWER_EXPONENT[power - _SMALLEST_POWER] - shift
    return math.ldexp(np.float64(mantissa), np.int32(exponent)), OK


@compiled
def _leading_digits(text, at, stop):
    """The first 19 significant digits of a number: (digits, power, whether any of the rest is not zero)."""
    digits, power, used = np.uint64(0), 0, 0
    truncated, fraction = False, False
    for i in range(at, stop):
        if text[i] == 46:
            fraction = True
        elif used < 19:
            digits = digits * _10 + np.uint64(text[i] - 48)
            used += digits > 0
            power -= fraction
        else:
            truncated = truncated or text[i] != 48
            power += not fraction
    return digits, power, truncated


@compiled
def parse_plain_number(text, at):
    """`parse_number` of a short number without exponent, eight bytes at a time; not OK if it is another.

    Takes for granted that `PLAIN_BYTES` bytes follow.
    """
    negative = text[at] == 45
    at += negative
    digits, count = leading_digits(load_word(text, at))
    if count == 0 or count == 8:
        return 0.0, at, ASK_PYTHON
    at += count
    whole, power = digits, 0
    if text[at] == 46:
        at += 1
        for _ in range(3):
            more, count = leading_digits(load_word(text, at))
            digits = digits * TEN_TO[count] + more
            at += count
            power -= count
            if count < 8:
                break
        if power < (-19 if whole == 0 else -12):  # more than an uint64 is sure to hold
            return 0.0, at, ASK_PYTHON
    if text[at] | 32 == 101:  # e or E
        return 0.0, at, ASK_PYTHON
    if digits <= _EXACT_INTEGERS:
        value, status = np.float64(digits) / _EXACT_POWER[-power], OK
    else:
        value, status = _round_long(digits, power, False)
    return (-value if negative else value), at, status


@compiled
def parse_number(text, at, stop):
    """Read a decimal number of `text` (uint8) that starts at `at`; return (value, end, status).

    Grammar: sign, digits, fraction, exponent, as `float` takes them. `end` is the first byte not read, whose
    being a delimiter is the caller's business. Words such as nan are MALFORMED.
    """
    if stop - at > PLAIN_BYTES:
        value, end, status = parse_plain_number(text, at)
        if status == OK:
            return value, end, status
    negative = False
    if at < stop and (text[at] == 45 or text[at] == 43):
        negative = text[at] == 45
        at += 1
    first = at
    digits, power, truncated = np.uint64(0), 0, False
    while at < stop and 48 <= text[at] <= 57:
        digits = digits * _10 + np.uint64(text[at] - 48)
        at += 1
    seen = at - first
    if at < stop and text[at] == 46:
        at += 1
        point = at
        while at < stop and 48 <= text[at] <= 57:
            digits = digits * _10 + np.uint64(text[at] - 48)
            at += 1
        power = point - at
        seen -= power
    if seen == 0:
        return 0.0, at, MALFORMED
    if seen > 19:  # more than an uint64 is sure to hold: read them again with care
        digits, power, truncated = _leading_digits(text, first, at)
    if at < stop and (text[at] == 101 or text[at] == 69):
        end, exponent, sign, some = at + 1, 0, 1, False
        if end < stop and (text[end] == 45 or text[end] == 43):
            sign = -1 if text[end] == 45 else 1
            end += 1
        while end < stop and 48 <= text[end] <= 57:
            exponent = min(exponent * 10 + np.int64(text[end] - 48), 100000)
            end += 1
            some = True
        if not some:
            return 0.0, at, MALFORMED
        power += sign * exponent
        at = end
    status = OK
    if digits == 0:
        value = 0.0
    elif not truncated and digits <= _EXACT_INTEGERS and -22 <= power <= 22:
        value = np.float64(digits)
        value = value / _EXACT_POWER[-power] if power < 0 else value * _EXACT_POWER[power]
    else:
        value, status = _round_long(digits, power, truncated)
    return (-value if negative else value), at, status


@compiled
def parse_integer(text, at, stop):
    """Read an integer of up to 18 digits; return (value, end, found)."""
    negative = False
    if at < stop and (text[at] == 45 or text[at] == 43):
        negative = text[at] == 45
        at += 1
    value, seen = 0, 0
    while at < stop and 48 <= text[at] <= 57 and seen < 19:
        value = value * 10 + np.int64(text[at] - 48)
        at += 1
        seen += 1
    return (-value if negative else value), at, 0 < seen < 19
