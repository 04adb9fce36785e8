"""Blocks that two processes have, on a device: the bytes, the order, and what is left when one of them is killed."""

from __future__ import annotations

from collections.abc import Callable

# Both halves in one text: the child runs the same program with a handle for its argument.
PROGRAM = """
import os, random, subprocess, sys, time
import numpy as np
import cenote
from cenote import mr

MIB = 1 << 20

def pattern(seed, size):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()

CHILD = '''
import sys
import numpy as np
import cenote
def pattern(seed, size):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
for line in sys.stdin:
    seed, handle = line.split()
    block = cenote.open_shared(handle)
    right = block.tobytes() == pattern(int(seed), block.size)
    block.copy_from_host(pattern(int(seed) + 1, block.size))
    if int(seed) % 100 == 42:
        print("open", flush=True)
        sys.stdin.readline()
    block.close()
    print("right" if right else "wrong", flush=True)
'''

def start():
    return subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def tell(child, seed, handle):
    child.stdin.write(f"{seed} {handle}\\n")
    child.stdin.flush()
    return child.stdout.readline().strip()

pool = mr.from_spec("pool | virtual")
stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
chance = random.Random(16)
child = start()
kills = 0
for seed in range(0, ROUNDS * 2, 2):
    size = chance.choice([chance.randint(1, 4096), chance.randint(1, 2 * MIB), chance.randint(MIB, 24 * MIB)])
    data = pattern(seed, size)
    buffer = cenote.DeviceBuffer(size=size, stream=stream, mr=pool)
    buffer.copy_from_host(data, stream=stream)  # queued: the event that travels is what orders the reader
    answer = tell(child, seed, buffer.share(stream))
    if answer == "open":  # it has the block, and is killed with it
        assert pool.pins()
        child.kill()
        child.wait()
        kills += 1
        child = start()
    else:
        assert answer == "right", (seed, size, answer)
        assert buffer.tobytes() == pattern(seed + 1, size), (seed, size)
    end = time.monotonic() + 10
    while pool.pins():
        assert time.monotonic() < end
        time.sleep(0.001)
    if seed == 20:
        descriptors = len(os.listdir("/proc/self/fd"))
assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
del buffer
pool.trim(0, wait=True)
state = pool.state()
assert state.in_use == 0 and state.held == 0, state
child.stdin.close()
child.wait()
print("shared", ROUNDS, "blocks, and killed", kills, "processes")
"""


def test_blocks_arrive_in_order_and_leave_nothing(run: Callable[..., str]) -> None:
    assert "shared 150 blocks, and killed 3 processes" in run(PROGRAM.replace("ROUNDS", "150"))


def test_plain_memory_is_refused_with_what_to_do(run: Callable[..., str]) -> None:
    run("""
        import cenote
        from cenote import mr
        for resource in (mr.CudaMemoryResource(), mr.from_spec("pool | virtual:ipc=false")):
            try:
                cenote.DeviceBuffer(size=1 << 20, mr=resource).share()
            except RuntimeError as error:
                assert "pool | virtual" in str(error), error
            else:
                raise SystemExit("nothing was raised")
    """)
