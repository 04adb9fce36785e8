"""Two actors of Ray with a GPU each: a resource on each, a buffer from one to the other, figures for Prometheus.

Run it on two GPUs with ``python actors_with_ray.py``, or without one with ``CENOTE_CUDA_DRIVER=sim CENOTE_SIM=devices=2
python actors_with_ray.py``: Ray counts GPUs itself, so it is told here that there are two. It needs ``pip install
cenote 'ray[default]'``.
"""

import logging
import os
import threading

import ray
from ray.util.metrics import Gauge

import cenote

MIB = 1 << 20


@ray.remote(num_gpus=1, max_restarts=1)
class Worker:
    """An actor with a pool on its own device, which is the only one that it sees."""

    def __init__(self) -> None:
        cenote.install("pool:max=256MiB", device="local")
        self.used = Gauge("cenote_used_bytes", description="Device memory by client", tag_keys=("client",))
        threading.Thread(target=self.report, daemon=True).start()

    def report(self) -> None:
        """Tell Ray's metrics agent, which Prometheus asks, once in a second."""
        while True:
            for client, usage in cenote.usage().items():
                self.used.set(usage.bytes, tags={"client": client})
            threading.Event().wait(1)

    def device(self) -> str:
        """Say which GPU of the host this actor has."""
        return f"GPU {os.environ['CUDA_VISIBLE_DEVICES']}, {cenote.mr.get_current_device_resource().specification}"

    def make(self, nbytes: int) -> cenote.DeviceBuffer:
        """Return a buffer: Ray keeps its bytes on the host."""
        return cenote.DeviceBuffer.to_device(bytes([7]) * nbytes)

    def count(self, buffer: cenote.DeviceBuffer) -> int:
        """Read a buffer, which was put onto this actor's device on its way."""
        return buffer.tobytes().count(7)


if __name__ == "__main__":
    variables = {name: value for name, value in os.environ.items() if name.startswith("CENOTE_")}
    ray.init(
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": variables},
    )
    first, second = Worker.remote(), Worker.remote()
    print(*sorted(ray.get([first.device.remote(), second.device.remote()])), sep="\n")
    print(ray.get(second.count.remote(first.make.remote(32 * MIB))) // MIB, "MiB arrived")
    ray.shutdown()
