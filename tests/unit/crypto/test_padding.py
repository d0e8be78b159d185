"""Padmé, against values computed from the paper's algorithm and its promises."""

import math

import pytest

from orchestrator.crypto.padding import MIN_PADDED, padded_length, padme


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        *((0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (17, 18), (100, 104), (1000, 1024)),
        *((1025, 1088), (65_544, 67_584), (16_777_224, 17_301_504)),
    ],
)
def test_padme_of_known_lengths(length: int, padded: int) -> None:
    assert padme(length) == padded


def test_padme_is_the_smallest_length_whose_low_bits_are_zero() -> None:
    """The definition: exponent E, S = floor(log2 E) + 1 bits of mantissa are kept."""
    for length in range(2, 5_000):
        exponent = math.floor(math.log2(length))
        granularity = 2 ** max(0, exponent - math.floor(math.log2(exponent)) - 1)

        assert padme(length) == math.ceil(length / granularity) * granularity


def test_padding_costs_at_most_twelve_percent_and_hides_short_lengths() -> None:
    for length in range(0, 100_000, 7):
        total = padded_length(length)

        assert total >= max(MIN_PADDED, 8 + length)
        assert total <= max(MIN_PADDED, (8 + length) * 1.12)
    assert {padded_length(length) for length in range(249)} == {MIN_PADDED}
    assert padded_length(249) == 272
