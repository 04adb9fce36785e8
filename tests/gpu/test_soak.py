"""A short soak of all doors at once: tests/gpu/soak.py, which a longer time is asked of by CENOTE_SOAK_SECONDS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for module in ("torch", "cupy", "numba.cuda", "cuda.core"):
    pytest.importorskip(module)

SOAK = Path(__file__).with_name("soak.py")


def test_libraries_exchange_arrays_without_a_wrong_byte_or_a_leak(run):
    seconds = os.environ.get("CENOTE_SOAK_SECONDS", "8")
    printed = run(f"import runpy; runpy.run_path({str(SOAK)!r}, run_name='__main__')", CENOTE_SOAK_SECONDS=seconds)
    assert "exchanges" in printed
