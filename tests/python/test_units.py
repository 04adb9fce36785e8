"""Bytes as people write and read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cenote import mr
from cenote.units import format_bytes, parse_bytes

POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**80, -5, True, np.int64(7), np.uint8(255)])
def test_whole_numbers_are_returned_as_they_are(size: Any) -> None:
    assert parse_bytes(size) == int(size)


@pytest.mark.parametrize("letter", POWERS)
def test_every_unit_is_a_power_of_1000_or_1024_in_any_case(letter: str) -> None:
    power = POWERS[letter]
    for unit in (f"{letter}b", f"{letter}B", f"{letter.upper()}B"):
        assert parse_bytes(f"3{unit}") == parse_bytes(f"3 {unit}") == parse_bytes(f"3\t{unit}") == 3 * 1000**power
    for unit in (f"{letter}ib", f"{letter.upper()}iB", f"{letter.upper()}IB"):
        assert parse_bytes(f"3{unit}") == 3 * 1024**power


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("0", 0), ("4096", 4096), ("12b", 12), ("12 B", 12), ("1.5GiB", 3 * 2**29), ("0.5b", 0), ("2.9 B", 2)),
        *(("9007199254740993", 2**53 + 1), ("18446744073709551615", 2**64 - 1), ("16383PiB", 16383 * 2**50)),
    ],
)
def test_texts_are_read_exactly(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "2k", "8K", "GiB", "-1", "+1", ".5", "1e3", "0x10", "1 GiB 2", "1,5GiB", "nan", "inf", "50%", "٣"),
        *("1" * 400, "18446744073709551616", "16384PiB", "16384.0pib"),
    ],
)
def test_text_that_is_no_size_or_too_large_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="Could not parse"):
        parse_bytes(text)
    with pytest.raises(ValueError, match="Could not parse"):
        mr.CudaAsyncMemoryResource(initial_pool_size=text)


@pytest.mark.parametrize("wrong", [None, 1.5, b"1KiB", [1], np.float64(1)])
def test_what_is_neither_text_nor_whole_number_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        parse_bytes(wrong)


def test_sizes_are_written_in_the_largest_unit_that_fits() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 2**40, None)] == [
        "0 B",
        "1023 B",
        "1.50 KiB",
        "1.00 TiB",
        "unknown",
    ]
