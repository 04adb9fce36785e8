"""Work with more data than the devices of Dask's workers hold: each worker spills when its pool runs out.

Two workers have a device and a pool of 256 MiB each, and keep 1 GiB of buffers between them. Run it on two GPUs with
``python spill_with_dask.py``, or without one with ``CENOTE_CUDA_DRIVER=sim CENOTE_SIM=devices=2 python
spill_with_dask.py``. It needs ``pip install 'cenote[dask]'``.
"""

import logging

from dask.distributed import Client, LocalCluster

import cenote
from cenote.dask import CenotePlugin

MIB = 1 << 20


def make(value: int) -> cenote.DeviceBuffer:
    """Fill a buffer on the worker's device."""
    return cenote.DeviceBuffer.to_device(bytes([value]) * (32 * MIB))


def check(buffer: cenote.DeviceBuffer, value: int) -> bool:
    """Say whether a buffer, which may have been on the host meanwhile, is as it was made."""
    return buffer.tobytes() == bytes([value]) * (32 * MIB)


def send_figures(dask_worker) -> dict:
    """Give the figures that the worker sends to the scheduler."""
    return dask_worker.metrics["cenote"](dask_worker)


if __name__ == "__main__":  # Dask's workers import this file
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="4GiB",
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,  # workers that no longer hear the scheduler at the end say so as an error
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(CenotePlugin("pool:max=256MiB", device="local"))
        buffers = client.map(make, range(32))
        right = client.map(check, buffers, range(32))
        print(f"{sum(client.gather(right))} of 32 buffers of 32 MiB are right")
        for worker, figures in enumerate(client.run(send_figures).values()):
            assert figures["held"] <= figures["limit"]
            print(
                f"worker {worker} keeps {figures['used'] // MIB} MiB of {figures['limit'] // MIB} MiB on its device, "
                f"{'and has spilled' if figures['spilled'] else 'and has not spilled'}"
            )
