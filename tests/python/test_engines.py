"""The frameworks and engines themselves, where they are installed, on the simulated device: no stand-ins.

PyTorch without a GPU takes the allocator, and cannot use it. Dask's and Ray's workers are processes that allocate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

pytestmark = pytest.mark.long

SPECIFICATION = "statistics | pool:initial=0,max=64MiB | cuda"
ENVIRONMENT = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=1GiB", "CENOTE_RESOURCE": SPECIFICATION}


def current_specification() -> str:
    from cenote import mr

    return mr.get_current_device_resource().specification


def filled_buffer(data: bytes) -> Any:
    from cenote import DeviceBuffer

    return DeviceBuffer.to_device(data)


def contents(buffer: Any) -> bytes:
    return bytes(buffer.tobytes())


def allocate_too_much() -> None:
    from cenote import DeviceBuffer

    DeviceBuffer(size=128 << 20)


def check_out_of_memory(run: Callable[[], Any]) -> None:
    """The error of a worker is the caller's, with its figures."""
    with pytest.raises(MemoryError) as caught:
        run()
    error: Any = caught.value
    while not hasattr(error, "requested"):  # an engine may wrap it
        error = error.cause if getattr(error, "cause", None) is not None else error.__cause__
    assert (error.requested, error.limit) == (128 << 20, 64 << 20)


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, env=ENVIRONMENT) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_resource_reaches_the_workers_of_dask(dask_client: Any) -> None:
    specifications = dask_client.run(current_specification)
    assert list(specifications.values()) == [SPECIFICATION] * 2


def test_buffers_travel_between_the_workers_of_dask(dask_client: Any) -> None:
    first, second = dask_client.scheduler_info()["workers"]
    buffer = dask_client.submit(filled_buffer, b"water" * 1000, workers=[first])
    assert dask_client.submit(contents, buffer, workers=[second]).result() == b"water" * 1000


def test_error_of_a_dask_worker_has_its_figures(dask_client: Any) -> None:
    check_out_of_memory(lambda: dask_client.submit(allocate_too_much, pure=False, retries=0).result())


@pytest.fixture(scope="module")
def started_ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": ENVIRONMENT}, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_resource_reaches_the_workers_of_ray(started_ray: Any) -> None:
    assert started_ray.get(started_ray.remote(current_specification).remote()) == SPECIFICATION


def test_buffers_travel_between_the_workers_of_ray(started_ray: Any) -> None:
    buffer = started_ray.remote(filled_buffer).remote(b"water" * 1000)
    assert started_ray.get(started_ray.remote(contents).remote(buffer)) == b"water" * 1000


def test_error_of_a_ray_worker_has_its_figures(started_ray: Any) -> None:
    check_out_of_memory(lambda: started_ray.get(started_ray.remote(allocate_too_much).remote()))


def test_pytorch_takes_the_allocator_where_there_is_no_gpu(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    pytest.importorskip("torch")
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("there is a GPU here: tests/gpu has the rest")
    run_fresh(
        """
        import torch
        from cenote.allocators.torch import torch_allocator
        torch.cuda.memory.change_current_allocator(torch_allocator)
        assert torch.cuda.get_allocator_backend() == "pluggable"
        """
    )
