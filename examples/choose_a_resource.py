"""Choose where memory comes from, and see what becomes of it.

A specification puts resources together in one line: here a pool of at most 1 GiB, which maps pages. Objects can
be put around it: here counters. Run it on a GPU with ``python choose_a_resource.py``, or without one with
``CENOTE_CUDA_DRIVER=sim python choose_a_resource.py``.
"""

import cenote

pool = cenote.mr.from_spec("pool:max=1GiB")
resource = cenote.mr.StatisticsResourceAdaptor(pool)
cenote.mr.set_current_device_resource(resource)
print(resource)

water = cenote.DeviceBuffer.to_device(b"the water is the same")
copy = water.copy()
print(copy.tobytes().decode())

del water
counts = resource.allocation_counts
print(f"now {counts.current_bytes} bytes in {counts.current_count} blocks, at most {counts.peak_bytes} bytes")
print(f"the pool holds {pool.state().held:,} bytes of the device")

try:
    cenote.DeviceBuffer(size=2 * 1024**3)
except MemoryError as error:
    print(error)
