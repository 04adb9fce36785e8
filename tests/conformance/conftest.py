"""The suite runs on the simulated device, or on a GPU where ``CENOTE_TEST_ON_GPU=1`` says that there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

ON_GPU = os.environ.get("CENOTE_TEST_ON_GPU") == "1"
if not ON_GPU:
    os.environ["CENOTE_CUDA_DRIVER"] = "sim"
    os.environ["CENOTE_SIM"] = "devices=2,memory=8GiB,pageable=1"


@pytest.fixture(autouse=True)
def nothing_forbidden_was_done() -> Iterator[None]:
    """The simulated driver writes down what a real one would not forgive."""
    if ON_GPU:
        yield
        return
    from cenote import sim

    sim.clear_violations()
    yield
    assert sim.violations() == []
