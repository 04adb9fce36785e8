"""A pool over virtual memory on a device: pages move under running kernels, and nobody waits for kernels elsewhere."""

from __future__ import annotations

KERNELS = r"""
import random
import cupy
import cenote

MIB = 1 << 20
code = cupy.RawModule(code=r'''
extern "C" __global__ void spin(long long cycles) {
  const long long begin = clock64();
  while (clock64() - begin < cycles) {}
}
extern "C" __global__ void write(unsigned* to, unsigned long long words, unsigned value) {
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < words;
       i += (unsigned long long)gridDim.x * blockDim.x) to[i] = value ^ (unsigned)i;
}
extern "C" __global__ void compare(const unsigned* with, unsigned long long words, unsigned value,
                                   unsigned long long* wrong) {
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < words;
       i += (unsigned long long)gridDim.x * blockDim.x)
    if (with[i] != (value ^ (unsigned)i)) atomicAdd(wrong, 1ull);
}
''')
spin, write, compare = (code.get_function(name) for name in ("spin", "write", "compare"))
with cupy.cuda.Stream(non_blocking=True) as warm:  # so that no kernel is loaded, which waits, while one spins
    scratch, wrong = cupy.zeros(256, cupy.uint32), cupy.zeros(1, cupy.uint64)
    write((1,), (32,), (scratch, cupy.uint64(8), cupy.uint32(1)))
    compare((1,), (32,), (scratch, cupy.uint64(8), cupy.uint32(1), wrong))
    spin((1,), (1,), (cupy.int64(1),))
    warm.synchronize()
assert int(wrong[0]) == 0


def put(stream, block, nbytes, value):
    with stream:
        write((64,), (256,), (cupy.uintp(block), cupy.uint64(nbytes // 4), cupy.uint32(value)))


def look(stream, block, nbytes, value):
    with stream:
        compare((64,), (256,), (cupy.uintp(block), cupy.uint64(nbytes // 4), cupy.uint32(value), wrong))
"""


def test_no_byte_is_wrong_after_ten_thousand_moves_under_kernels_on_several_streams(run):
    run(
        KERNELS
        + """
pool = cenote.mr.PoolMemoryResource(cenote.mr.VirtualMemoryResource(), maximum_pool_size=96 * MIB)
streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)]
rng = random.Random(1)
live = []
steps = 0
while pool.counters().pages_moved < 10_000:
    steps += 1
    assert steps < 200_000, pool.counters()
    stream = rng.choice(streams)
    nbytes = rng.randrange(1, 40) * MIB // 4 if rng.random() < 0.7 else rng.randrange(1, 512) * 1024
    try:
        block = pool.allocate(nbytes, stream)
    except MemoryError:
        block = 0
    if block:
        value = rng.getrandbits(32)
        put(stream, block, nbytes, value)
        live.append((block, nbytes, value, stream))
    while live and (not block or sum(each[1] for each in live) > 80 * MIB):
        block, nbytes, value, stream = live.pop(rng.randrange(len(live)))
        look(stream, block, nbytes, value)
        pool.deallocate(block, nbytes, stream)
        break
for block, nbytes, value, stream in live:
    look(stream, block, nbytes, value)
    pool.deallocate(block, nbytes, stream)
for stream in streams:
    stream.synchronize()
assert int(wrong[0]) == 0, int(wrong[0])
pool.check()
print(steps, pool.counters())
"""
    )


def test_growth_moves_unmapping_and_trim_wait_for_no_kernel_of_another_stream(run):
    run(
        KERNELS
        + """
pool = cenote.mr.PoolMemoryResource(cenote.mr.VirtualMemoryResource(), maximum_pool_size=64 * MIB)
busy, stream = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
first = pool.allocate(2 * MIB, busy)  # which the kernel may use
with busy:
    spin((1,), (1,), (cupy.int64(20_000_000_000),))  # about ten seconds
blocks = [pool.allocate(2 * MIB, stream) for _ in range(30)]  # grows
for block in blocks[::2]:
    pool.deallocate(block, 2 * MIB, stream)
large = pool.allocate(28 * MIB, stream)  # moves
assert pool.counters().pages_moved > 0
pool.deallocate(large, 28 * MIB, stream)
for block in blocks[1::2]:
    pool.deallocate(block, 2 * MIB, stream)
stream.synchronize()
again = pool.allocate(40 * MIB, stream)  # unmaps what has moved
pool.deallocate(again, 40 * MIB, stream)
pool.trim()
assert not busy.done, "the kernel of the other stream was waited for"
busy.synchronize()
pool.deallocate(first, 2 * MIB, busy)
pool.check()
"""
    )


def test_trim_gives_back_what_is_free_beside_a_tensor_in_sixteen(run):
    run(
        """
import cenote
report = cenote.install("pool | virtual", frameworks="torch")
assert all(row.installed for row in report), report
import torch
pool = cenote.mr.get_current_device_resource()
while not hasattr(pool, "pool_size"):
    pool = pool.upstream_mr
tensors = [torch.empty(256 << 20, dtype=torch.uint8, device="cuda") for _ in range(80)]
before = pool.pool_size()
tensors = tensors[::16]
torch.cuda.synchronize()
pool.trim()
assert before - pool.pool_size() == 75 * (256 << 20), (before, pool.pool_size())
"""
    )


def test_a_pool_takes_what_lies_idle_in_another_once_its_work_is_done(run):
    run(
        KERNELS
        + """
cenote.budget("256MiB")  # as if the device had no more
one, other = (cenote.mr.PoolMemoryResource(cenote.mr.VirtualMemoryResource()) for _ in range(2))
a, b = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
for turn in range(10):
    for pool, stream in ((one, a), (other, b)):
        block = pool.allocate(200 * MIB, stream)
        put(stream, block, 200 * MIB, turn)
        if turn % 2:  # else nothing is pending by the time the other pool asks
            with stream:
                spin((1,), (1,), (cupy.int64(20_000_000),))
        look(stream, block, 200 * MIB, turn)
        pool.deallocate(block, 200 * MIB, stream)
a.synchronize(), b.synchronize()
assert int(wrong[0]) == 0
assert one.pool_size() + other.pool_size() <= 256 * MIB
one.check(), other.check()
"""
    )
