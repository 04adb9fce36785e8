"""Who keeps what alive, and what the end of a resource may wait for."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

import cenote
from busy_stream import KEEP_BUSY
from cenote import mr

# The device's work waits for a Python thread: it ends only if that thread gets the GIL.
POOL_THAT_DIES_UNDER_WORK = """
pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
{hold}
stream = cenote.Stream()
thread = keep_busy(stream)
{let_go}
thread.join()
print("ended")
"""

# What is done under the GIL while a resource has a block, and how the last block of a replaced one goes.
BUFFER = """
mr.set_current_device_resource(pool)
del pool
for _ in range(4):  # so that the last free will be one at once
    buffer = cenote.DeviceBuffer(size=1024)
mr.set_current_device_resource(mr.CudaMemoryResource())
"""


@pytest.mark.parametrize(
    ("hold", "let_go"),
    [("", "del pool"), (BUFFER, "del buffer")],
    ids=["object", "buffer"],
)
def test_a_pool_that_dies_lets_other_threads_run(hold: str, let_go: str) -> None:
    code = KEEP_BUSY + POOL_THAT_DIES_UNDER_WORK.format(hold=hold, let_go=let_go)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_install_does_not_keep_a_resource_that_was_replaced() -> None:
    free = cenote.driver.memory_info(0)[0]
    cenote.install("pool:initial=1GiB | cuda", frameworks=())
    mr.get_current_device_resource()  # makes it, if the device was not used before
    assert cenote.driver.memory_info(0)[0] <= free - 2**30
    mr.set_current_device_resource(mr.CudaMemoryResource())
    gc.collect()
    assert cenote.driver.memory_info(0)[0] == free


def test_install_makes_a_new_resource_where_the_last_was_replaced() -> None:
    cenote.install("pool:initial=1MiB | cuda", frameworks=())
    mr.set_current_device_resource(mr.CudaMemoryResource())
    cenote.install("pool:initial=1MiB | cuda", frameworks=())
    assert mr.get_current_device_resource().specification == "pool:initial=1MiB | cuda"


def test_a_resource_is_equal_to_itself_alone() -> None:
    first, second = mr.CudaMemoryResource(), mr.CudaMemoryResource()
    assert first == first and first != second and len({first, second}) == 2


def test_a_resource_that_is_made_anew_does_not_lend_its_name() -> None:
    resource = mr.CudaMemoryResource()
    resource.__init__()
    others = [mr.from_spec("managed") for _ in range(100)]
    assert {type(other) for other in others} == {mr.ManagedMemoryResource}
