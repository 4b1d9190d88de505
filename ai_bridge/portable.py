"""exp and ln that give the same bits on every machine.

The C library's differ in the last bit from one version or processor to the next, and weights have
to be the same on every node and a year later. Only additions, multiplications, divisions and
powers of two are used here, and IEEE 754 defines each of them to the last bit.
"""

from __future__ import annotations

import math

# ln 2 in two parts: multiples of the first by up to 2^20 are exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_PER_LN2 = 1.44269504088896338700
_LEAST, _MOST = -700.0, 700.0
_HALF_ROOT = 0.70710678118654752440
_EXP = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
_LN = tuple(2.0 / (2 * n + 1) for n in range(11, 0, -1))


def exp(x: float) -> float:
    """e to the power of x, within 2 units in the last place; 0 below -700.

    Raises OverflowError above 700.
    """
    if x < _LEAST:
        return 0.0
    if x > _MOST:
        raise OverflowError(f"exp of {x!r}")
    k = round(x * _PER_LN2)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = 0.0
    for factor in _EXP:
        total = total * r + factor
    return math.ldexp(total, k)


def ln(x: float) -> float:
    """Natural logarithm of a number above 0, within 2 units in the last place."""
    m, e = math.frexp(x)
    if m < _HALF_ROOT:
        m, e = m * 2.0, e - 1
    s = (m - 1.0) / (m + 1.0)
    square, total = s * s, 0.0
    for factor in _LN:
        total = (total + factor) * square
    return e * _LN2_HIGH + (2.0 * s + (s * total + e * _LN2_LOW))
