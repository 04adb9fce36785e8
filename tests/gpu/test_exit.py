"""The process ends cleanly with live arrays of every framework, every time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

EXITS = int(os.environ.get("CENOTE_TEST_EXITS", "24"))  # 200 before a release
AT_ONCE = 8

LIVE_ARRAYS = """
import cenote
report = cenote.install("statistics | pool:initial=64MiB | cuda", ("torch", "cupy", "numba"))
assert report, str(report)
import threading
import numpy, torch, cupy
from numba import cuda
side = torch.cuda.Stream()
held = [torch.ones(1000, device="cuda"), cupy.ones(1000)]
held += [cuda.to_device(numpy.ones(1000)), cenote.DeviceBuffer(size=1000)]
held[0].record_stream(side)
cycle = [held]
cycle.append(cycle)                       # dies in the last garbage collection
torch.keep = torch.ones(10, device="cuda")   # dies with the module
cupy.keep = cupy.ones(10)
cuda.keep = cuda.to_device(numpy.ones(10))
cenote.keep = cenote.DeviceBuffer(size=10)
"""


def test_the_process_exits_cleanly_with_live_arrays(run):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(run, [LIVE_ARRAYS] * EXITS)) == [""] * EXITS
