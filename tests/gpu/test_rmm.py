"""The real RMM on cenote, on a device: buffers, libraries over librmm, one pool with the frameworks."""

from __future__ import annotations

import pytest

pytest.importorskip("rmm.pylibrmm")

BEGIN = """
import gc
import cenote
from cenote.allocators.rmm import extension_build
IS_BUILT = {is_built}
if IS_BUILT:
    extension_build.build()
report = cenote.install("statistics | pool:max=2GiB", frameworks="rmm")
assert report and ("in C++" in str(report)) == IS_BUILT, str(report)
import rmm

def held():
    gc.collect()
    return cenote.usage()["rmm"].bytes

"""


@pytest.mark.parametrize("is_built", [True, False])
def test_buffers_of_rmm_come_from_cenote(run, tmp_path, is_built):
    run(
        BEGIN.format(is_built=is_built)
        + """
buffer = rmm.DeviceBuffer.to_device(bytes(range(200)))
assert held() == 200 and buffer.tobytes() == bytes(range(200))
buffer.resize(1000)
assert held() == 1000
over = rmm.mr.PoolMemoryResource(rmm.mr.get_current_device_resource(), 1 << 20, 4 << 20)   # RMM's own, over cenote's
inner = rmm.DeviceBuffer(size=1000, mr=over)
assert held() == 1000 + (1 << 20)
del buffer, inner, over
assert held() == 0
try:
    rmm.DeviceBuffer(size=1 << 40)
except MemoryError:
    pass
else:
    raise SystemExit("no MemoryError")
""",
        XDG_CACHE_HOME=str(tmp_path),
    )


def test_libraries_over_librmm_share_the_pool(run, tmp_path):
    pytest.importorskip("pylibraft")
    pytest.importorskip("cupy")
    run(
        BEGIN.format(is_built=True)
        + """
import cupy
from pylibraft.common import device_ndarray
from pylibraft.random import rmat

cenote.install("statistics | pool:max=2GiB", frameworks="cupy")
before = cenote.usage()["rmm"].total_allocations
out = device_ndarray.empty((1000, 2), dtype="int32")         # its memory is an rmm.DeviceBuffer
theta = cupy.random.rand(1000, dtype="float32")
rmat(out, theta, 8, 8, seed=7)
assert cenote.usage()["rmm"].total_allocations > before and cenote.usage()["cupy"].bytes > 0
values = out.copy_to_host()
assert values.shape == (1000, 2) and (values < 256).all()
del out
assert held() == 0, cenote.usage()
""",
        XDG_CACHE_HOME=str(tmp_path),
    )
