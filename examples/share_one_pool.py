"""Put PyTorch, CuPy, Numba and cenote's own buffers onto one pool.

Frameworks that are not installed are reported and left out. Run it on a GPU with ``python share_one_pool.py``; without
one (``CENOTE_CUDA_DRIVER=sim``) the report says why no framework took part.
"""

import cenote

report = cenote.install("pool:max=2GiB")
print(report)

kept = [cenote.DeviceBuffer(size=1_000_000)]
for row in report:
    if not row.installed:
        continue
    if row.framework == "torch":
        import torch

        kept.append(torch.ones(1_000_000, device="cuda"))
    elif row.framework == "cupy":
        import cupy

        kept.append(cupy.ones(1_000_000))
    elif row.framework == "numba":
        import numpy
        from numba import cuda

        kept.append(cuda.to_device(numpy.ones(1_000_000)))

for client, usage in cenote.usage().items():
    print(f"{client:<8} {usage.bytes:>12,} bytes in {usage.allocations} blocks")
