"""Clusters of dask-cuda: a worker for each device, on the pool, whose arrays and buffers go to another worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

for module in ("dask_cuda", "cupy"):
    pytest.importorskip(module, exc_type=ImportError)

TOO_FEW = "two devices are needed"

CLUSTER = """
import os
import cenote
from cenote.dask import CenotePlugin
from dask_cuda import LocalCUDACluster
from distributed import Client

MIB = 1 << 20
COUNT = cenote.driver.device_count()
if COUNT < 2:
    print({too_few!r})
    raise SystemExit

def place():
    import cupy
    array = cupy.ones(1000, dtype="u1")
    return os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0], cenote.usage()["cupy"].bytes, cenote.driver.device_count()

def make(value):
    import cupy
    return cupy.full(64 * MIB, value, dtype="u1")

def is_right(array, value):
    return bool((array == value).all())

def random_bytes(seed):
    import numpy
    return numpy.random.default_rng(seed).bytes(256 * MIB)

def make_buffer(seed):
    return cenote.DeviceBuffer.to_device(random_bytes(seed))

def is_same(buffer, seed):
    assert isinstance(buffer, cenote.DeviceBuffer), buffer
    return buffer.tobytes() == random_bytes(seed)

async def send(dask_worker):
    await dask_worker.heartbeat()

def pairs(client, make, check, count):
    # Each array is made by one worker and checked by the next one.
    workers = list(client.scheduler_info()["workers"])
    made = [client.submit(make, i, workers=[workers[i % COUNT]], pure=False) for i in range(count)]
    found = [client.submit(check, each, i, workers=[workers[(i + 1) % COUNT]], pure=False)
             for i, each in enumerate(made)]
    assert client.gather(found) == [True] * count
    return made

with LocalCUDACluster(protocol={protocol!r}, dashboard_address=":0") as cluster, Client(cluster) as client:
    client.register_plugin(CenotePlugin("pool:max=8GiB", frameworks={frameworks!r}))
    places = list(client.run(place).values())
    assert len({{device for device, _, _ in places}}) == COUNT == len(places), places
    assert {{used for _, used, _ in places}} == {{1000}}, places
    arrays = pairs(client, make, is_right, 16)
    buffers = pairs(client, make_buffer, is_same, 2)
    client.run(send)
    for each in client.scheduler_info()["workers"].values():
        metrics = each["metrics"]["cenote"]
        assert metrics["used"] and metrics["used"] % (64 * MIB) == 0, metrics
        assert metrics["limit"] == 8 << 30
"""


def move(run: Callable[..., str], protocol: str, frameworks: list[str]) -> None:
    """Skip where there is no other worker to move to."""
    if TOO_FEW in run(CLUSTER.format(protocol=protocol, frameworks=frameworks, too_few=TOO_FEW)):
        pytest.skip(TOO_FEW)


def test_arrays_and_buffers_go_to_another_worker_through_the_host(run: Callable[..., str]) -> None:
    move(run, "tcp", ["cupy"])


def test_arrays_and_buffers_go_to_another_worker_over_ucx(run: Callable[..., str]) -> None:
    """RMM, which UCXX needs, is put onto the pool too."""
    for module in ("distributed_ucxx", "rmm.pylibrmm"):
        pytest.importorskip(module, exc_type=ImportError)
    move(run, "ucxx", ["cupy", "rmm"])
