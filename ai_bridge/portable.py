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
# 1 / 13! down to 1 / 2!, and 2 / 23 down to 2 / 3, of the two series.
_E13, _E12, _E11, _E10, _E9, _E8, _E7, _E6, _E5, _E4, _E3 = (
    1.0 / math.factorial(n) for n in range(13, 2, -1)
)
_L11, _L10, _L9, _L8, _L7, _L6, _L5, _L4, _L3, _L2, _L1 = (
    2.0 / (2 * n + 1) for n in range(11, 0, -1)
)


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
    high = ((((_E13 * r + _E12) * r + _E11) * r + _E10) * r + _E9) * r + _E8
    low = ((((high * r + _E7) * r + _E6) * r + _E5) * r + _E4) * r + _E3
    return math.ldexp(((low * r + 0.5) * r + 1.0) * r + 1.0, k)


def ln(x: float) -> float:
    """Natural logarithm of a number above 0, within 2 units in the last place."""
    m, e = math.frexp(x)
    if m < _HALF_ROOT:
        m, e = m * 2.0, e - 1
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    high = ((((_L11 * z + _L10) * z + _L9) * z + _L8) * z + _L7) * z + _L6
    total = (((((high * z + _L5) * z + _L4) * z + _L3) * z + _L2) * z + _L1) * z
    return e * _LN2_HIGH + (2.0 * s + (s * total + e * _LN2_LOW))
