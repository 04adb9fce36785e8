"""Whose the used bytes of each device are: tests/gpu/account.py, whose parts must add up to them."""

from __future__ import annotations

from pathlib import Path

ACCOUNT = Path(__file__).with_name("account.py")


def test_parts_of_each_devices_memory_add_up_to_what_is_used(run):
    printed = run(f"import runpy, sys; sys.argv = ['account']; runpy.run_path({str(ACCOUNT)!r}, run_name='__main__')")
    assert "in all; remainder" in printed
