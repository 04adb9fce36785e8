"""Processes end with live tensors of PyTorch on cenote as they do with PyTorch's own allocator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("torch_exits.py")
NUMBER = os.environ.get("CENOTE_TEST_EXITS", "24")  # 200 before a release


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_exits_make_no_noise_that_pytorch_does_not_make() -> None:
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), NUMBER], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        _, _, differences = done.stdout.rpartition(" differences")
        pytest.fail(differences or done.stderr[-1500:], pytrace=False)
