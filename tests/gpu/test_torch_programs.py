"""Real programs compute the same on cenote, bit for bit, as on PyTorch's own allocator. Their times are printed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("torch_programs.py")
NEEDED = {
    "gpt2_training": "transformers",
    "resnet_training_with_evaluation": "torchvision",
    "generation_with_a_growing_cache": "transformers",
    "graphed_inference_over_eight_batch_sizes": "torch",
    "lora_fine_tuning": "peft",
    "compiled_training": "torch",
}


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_programs_compute_the_same() -> None:
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()
    names = [name for name, package in NEEDED.items() if importlib.util.find_spec(package) is not None]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--rounds", "1", *names],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
