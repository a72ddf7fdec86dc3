"""64-bit hashes in compiled code: XXH3, the same number that the library xxhash gives, and plainer ones of our own.

MinHash signatures decide which documents are alike, so they keep the hashes that they always had. The library cannot be
called from compiled code; a test holds `xxh3` to it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LONGEST = 240
"""Bytes of the longest key that `xxh3` takes: beyond it, XXH3 is another algorithm."""

_BYTES = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_SECRET = np.array([int.from_bytes(_BYTES[n : n + 8], "little") for n in range(len(_BYTES) - 7)], np.uint64)
"""XXH3's constant bytes, as the number that begins at each."""

_PRIME_1, _PRIME_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3, _RRMXMX = np.uint64(0x165667B19E3779F9), np.uint64(0x9FB21C651E98DF25)
_AVALANCHE = np.uint64(0x165667919E3779F9)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses no bit
_MERSENNE = np.uint64((1 << 61) - 1)


@njit(inline="always")
def _u(number):
    return np.uint64(number)


@njit(inline="always")
def _read(key, at, size):
    """`size` bytes of a key as a number, the first the lowest."""
    number = _u(0)
    for n in range(size):
        number |= _u(key[at + n]) << _u(8 * n)
    return number


@njit(inline="always")
def product(a, b):
    """The upper and the lower 64 bits of the product of two uint64."""
    low, mask = _u(32), _u(0xFFFFFFFF)
    a_high, a_low, b_high, b_low = a >> low, a & mask, b >> low, b & mask
    first = a_low * b_low
    middle = a_high * b_low + (first >> low)
    other = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> low) + (other >> low), (other << low) | (first & mask)


@njit(inline="always")
def _fold(a, b):
    high, low = product(a, b)
    return high ^ low


@njit(inline="always")
def _left(number, bits):
    return (number << _u(bits)) | (number >> _u(64 - bits))


@njit(inline="always")
def _avalanche(number):
    number = (number ^ (number >> _u(37))) * _AVALANCHE
    return number ^ (number >> _u(32))


@njit(inline="always")
def _mix(key, at, secret):
    """Sixteen bytes of a key with sixteen of the secret."""
    return _fold(_read(key, at, 8) ^ _SECRET[secret], _read(key, at + 8, 8) ^ _SECRET[secret + 8])


@njit(nogil=True, cache=True)
def xxh3(key, begin, end):
    """XXH3 (64 bits, no seed) of bytes `begin` to `end` of `key` (uint8): 1 to LONGEST of them."""
    size = end - begin
    if size <= 16:
        return _of_16(key, begin, end)
    number = _u(size) * _PRIME_1
    if size <= 128:
        for n in range((size - 1) // 32, -1, -1):
            number += _mix(key, begin + 16 * n, 32 * n)
            number += _mix(key, end - 16 * (n + 1), 32 * n + 16)
        return _avalanche(number)
    for n in range(8):
        number += _mix(key, begin + 16 * n, 16 * n)
    number = _avalanche(number)
    for n in range(8, size // 16):
        number += _mix(key, begin + 16 * n, 16 * (n - 8) + 3)
    return _avalanche(number + _mix(key, end - 16, 119))


@njit(inline="always")
def _of_16(key, begin, end):
    """XXH3 of at most sixteen bytes."""
    size = end - begin
    if size > 8:
        low = _read(key, begin, 8) ^ (_SECRET[24] ^ _SECRET[32])
        high = _read(key, end - 8, 8) ^ (_SECRET[40] ^ _SECRET[48])
        swapped = _u(0)
        for n in range(8):
            swapped = (swapped << _u(8)) | ((low >> _u(8 * n)) & _u(0xFF))
        return _avalanche(_u(size) + swapped + high + _fold(low, high))
    if size >= 4:
        number = _read(key, end - 4, 4) + (_read(key, begin, 4) << _u(32))
        number ^= _SECRET[8] ^ _SECRET[16]
        number ^= _left(number, 49) ^ _left(number, 24)
        number *= _RRMXMX
        number = (number ^ ((number >> _u(35)) + _u(size))) * _RRMXMX
        return number ^ (number >> _u(28))
    number = (_u(key[begin]) << _u(16)) | (_u(key[begin + (size >> 1)]) << _u(24))
    number |= _u(key[end - 1]) | (_u(size) << _u(8))
    number ^= (_SECRET[0] & _u(0xFFFFFFFF)) ^ (_SECRET[0] >> _u(32))
    number = (number ^ (number >> _u(33))) * _PRIME_2
    number = (number ^ (number >> _u(29))) * _PRIME_3
    return number ^ (number >> _u(32))


@njit(inline="always")
def with_character(number, character):
    """A hash of characters, with one more. The first is put to 0."""
    number = (number ^ (_u(character) + _BASE)) * _RRMXMX
    return number ^ (number >> _u(29))


@njit(inline="always")
def spread(number):
    """A hash with every bit of it in its highest bits too."""
    return _avalanche(number)


@njit(inline="always")
def run(hashes, begin, n):
    """A hash of `n` words in a row, from their hashes (uint64), as `text.n_gram_hashes` has it."""
    number = _u(0)
    for k in range(begin, begin + n):
        number = number * _BASE + hashes[k]
    return number ^ (number >> _u(29))


@njit(inline="always")
def below(number):
    """A uint64 modulo 2**61 - 1."""
    number = (number & _MERSENNE) + (number >> _u(61))
    return number - _MERSENNE if number >= _MERSENNE else number


@njit(inline="always")
def times(a, b):
    """The product of two numbers modulo 2**61 - 1, of which both are below it."""
    high, low = product(a, b)
    return below((low & _MERSENNE) + ((high << _u(3)) | (low >> _u(61))))
