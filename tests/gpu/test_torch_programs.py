"""Real programs compute the same on cenote, bit for bit, as on PyTorch's own allocator. torch_programs.py times all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from torch_program_list import PROGRAMS

RUNNER = Path(__file__).with_name("torch_programs.py")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if not program.only_by_name])
def test_program_computes_the_same(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip(PROGRAMS[name].needs)
    from cenote.allocators.torch import full_build

    full_build.build()
    done = subprocess.run(
        [sys.executable, str(RUNNER), "--rounds", "0", name], capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
