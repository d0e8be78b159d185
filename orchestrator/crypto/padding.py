"""
Padding that hides the length of a plaintext (protocol section 3.4).

A padded text is the length as 8 little-endian bytes, the plaintext, and zeros, in all
`max(256, Padmé(8 + length))` bytes. Padmé (Nikitin et al., PETS 2019, algorithm 1) adds at most
12 % and leaves O(log log n) bits of the length visible.
"""

LENGTH_BYTES = 8
MIN_PADDED = 256


def padme(length: int) -> int:
    """Return the smallest length >= *length* that Padmé allows."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mantissa_bits = exponent.bit_length()
    mask = (1 << exponent - mantissa_bits) - 1
    return length + mask & ~mask


def padded_length(length: int) -> int:
    """Return how long a plaintext of *length* bytes is once padded."""
    return max(MIN_PADDED, padme(LENGTH_BYTES + length))
