"""Let a second process read and write device memory of the first one, without a copy.

Run it with ``python share_between_processes.py``, or without a GPU with ``CENOTE_CUDA_DRIVER=sim``.
"""

import multiprocessing

import cenote

MIB = 1 << 20


def work(handle: cenote.device_buffer.BlockHandle) -> None:
    """Double each byte of another process's block."""
    block = cenote.open_shared(handle)
    print(f"the worker has {block.size // MIB} MiB of device {block.device}")
    block.copy_from_host(bytes(2 * byte for byte in block.tobytes()[:1000]))
    block.close()  # waits for the work on it, and lets the owner have it back


if __name__ == "__main__":  # the worker imports this file
    cenote.install("pool:max=256MiB | virtual", frameworks=())
    buffer = cenote.DeviceBuffer.to_device(bytes([21]) * (64 * MIB))
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(buffer.share(),))
    worker.start()
    worker.join()
    print("the first bytes are", *buffer.tobytes()[:3])
