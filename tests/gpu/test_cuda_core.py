"""cuda.core beside the frameworks on a device: one pool, arrays exchanged without copies.

What needs no kernel is tested with the real cuda.core on the simulated device: tests/python/test_cuda_core.py.
"""

from __future__ import annotations

import pytest

pytest.importorskip("cuda.core")

INSTALL = """
import gc
import numpy as np
import cenote
from cuda.core import Device
device = Device(0)
device.set_current()
report = cenote.install("pool:max=2GiB", frameworks=FRAMEWORKS)
assert report, str(report)
stream = device.create_stream()
"""


def test_host_arrays_that_are_passed_to_a_kernel_of_numba_come_from_the_pool(run):
    pytest.importorskip("numba.cuda")
    run(
        INSTALL.replace("FRAMEWORKS", '("numba", "cuda")')
        + """
from numba import cuda

@cuda.jit
def double(array):
    i = cuda.grid(1)
    if i < array.size:
        array[i] *= 2

values = np.arange(1000, dtype="f4")
double[4, 256](values)
cuda.synchronize()
assert (values == 2 * np.arange(1000)).all()
counted = cenote.usage()["cuda.core"]
assert counted.total_allocations >= 1 and counted.peak_bytes >= values.nbytes, cenote.usage()
gc.collect()
assert cenote.usage()["cuda.core"].bytes == 0, cenote.usage()
"""
    )


@pytest.mark.parametrize("framework", ["torch", "cupy"])
def test_buffers_pass_to_and_from_a_framework_without_a_copy(run, framework):
    pytest.importorskip(framework)
    run(
        INSTALL.replace("FRAMEWORKS", '("cuda",)')
        + f"import {framework} as library\nfrom_dlpack = library.from_dlpack\n"
        + """
from cuda.core.utils import StridedMemoryView
buffer = device.allocate(1024, stream=stream)
buffer.fill(7, stream=stream)
stream.sync()
array = from_dlpack(buffer)
address = array.data_ptr() if hasattr(array, "data_ptr") else array.data.ptr
assert address == int(buffer.handle)
del buffer                                   # the array keeps the memory
gc.collect()
assert cenote.usage()["cuda.core"].bytes == 1024
assert int((array == 7).sum()) == 1024
del array
gc.collect()
assert cenote.usage()["cuda.core"].bytes == 0

own = cenote.DeviceBuffer.to_device(bytes(range(256)), stream=stream)
stream.sync()
assert int(from_dlpack(own).sum()) in (sum(range(256)), sum(range(256)) % 256)
view = StridedMemoryView.from_any_interface(own, stream_ptr=int(stream.handle))
assert view.ptr == own.ptr
"""
    )
