"""For programs whose device is busy until another Python thread runs: who waits for it must let go of the GIL."""

from __future__ import annotations

# To be put before a program: thread = keep_busy(stream), what may wait, thread.join().
KEEP_BUSY = """
import ctypes, pathlib, sys, threading
import cenote
from cenote import mr

libc = ctypes.CDLL(None)
semaphore = ctypes.create_string_buffer(64)


def keep_busy(stream):
    driver = ctypes.CDLL(str(pathlib.Path(cenote.__file__).parent / "lib" / "libcenote_sim.so"))
    libc.sem_init(semaphore, 0, 0)
    wait = ctypes.cast(libc.sem_wait, ctypes.c_void_p)
    assert driver.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), wait, semaphore) == 0
    sys.setswitchinterval(60)  # nobody takes the GIL away: who waits must give it
    begin = threading.Event()
    thread = threading.Thread(target=lambda: (begin.wait(), libc.sem_post(semaphore)))
    thread.start()
    begin.set()
    return thread
"""
