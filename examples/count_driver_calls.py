"""Test code that uses GPU memory on a machine without a GPU, as in continuous integration.

The simulated driver stands in for the real one: it counts calls, fails those that a test names, and writes down what a
real driver would not forgive. Run it anywhere with ``python count_driver_calls.py``.
"""

import cenote
from cenote import sim

sim.configure(devices=1, memory="8GiB")  # before anything uses the driver


def work(mr: cenote.mr.DeviceMemoryResource) -> None:
    """Stand for the code under test."""
    for _ in range(1000):
        cenote.DeviceBuffer(size=100_000, mr=mr)


for specification in ("cuda", "pool:initial=1MiB | cuda"):
    resource = cenote.mr.from_spec(specification)
    sim.reset_calls()
    work(resource)
    print(f"{specification}: {sum(sim.calls().values())} driver calls, {sim.calls('cuMemAlloc')} of them cuMemAlloc")

with sim.failing("cuMemAlloc", nth=3):  # the third from here finds no memory
    try:
        work(cenote.mr.CudaMemoryResource())
    except MemoryError as error:
        print(f"handled: {error}")

assert sim.violations() == []
assert sim.live().allocations == 1, "all but the chunk of the pool is freed"
